public import Platform

// Both types are public and frozen with an inlinable deinit, because Embedded Swift destroys a
// noncopyable value in another module only where it can see the deinit. They are not exported.

/// Memory from the platform's allocator, zero at first, at the start of a cache line.
@frozen public struct Block: ~Copyable {
  @usableFromInline let base: UnsafeMutableRawPointer?
  private let anchor: Anchor

  package init(bytes: Int) throws(Failure) {
    guard let memory = platform_allocate(bytes) else { throw .noMemory }
    base = memory
    anchor = Anchor()
  }

  package init(words: Int) throws(Failure) {
    try self.init(bytes: words &* MemoryLayout<UInt64>.size)
  }

  /// None.
  package init() {
    base = nil
    anchor = Anchor()
  }

  @inlinable deinit { platform_free(base) }

  package var start: UnsafeMutableRawPointer { (base ?? platform_nowhere()).unsafelyUnwrapped }

  /// All of it.
  package var words: AtomicWords { AtomicWords(at: start) }
}

/// A fixed array of plain values, from the platform's allocator, zero at first.
///
/// Invariant: `Element` is trivial, and all of its bytes zero is a value of it.
@frozen public struct Slab<Element: BitwiseCopyable>: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Element>
  package let count: Int

  package init(count: Int) throws(Failure) {
    guard let memory = platform_allocate(count &* MemoryLayout<Element>.stride) else {
      throw .noMemory
    }
    base = memory.assumingMemoryBound(to: Element.self)
    self.count = count
  }

  @inlinable deinit { platform_free(base) }

  @inline(__always)
  package subscript(index: Int) -> Element {
    get { base[index] }
    nonmutating set { base[index] = newValue }
  }

  /// The element in place, for updates of single fields.
  @inline(__always)
  package func at(_ index: Int) -> UnsafeMutablePointer<Element> { base + index }
}
