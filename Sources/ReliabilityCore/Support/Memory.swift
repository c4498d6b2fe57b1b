public import Platform
public import Synchronization

// Both types are public and frozen with an inlinable deinit, because Embedded Swift destroys a
// noncopyable value in another module only where it can see the deinit. They are not exported.

/// A fixed array of words shared by threads, from the platform's allocator. Indices come from the
/// library itself and are below `count`; nothing a caller passes reaches one unchecked.
@frozen public struct AtomicWords: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Atomic<UInt64>>
  package let count: Int

  /// `count` zeros, at the start of a cache line.
  package init(count: Int) throws(Failure) {
    guard let memory = platform_allocate(count &* MemoryLayout<UInt64>.size) else {
      throw .noMemory
    }
    // An all-zero word is a valid Atomic<UInt64>, which has no destructor to run either.
    base = memory.assumingMemoryBound(to: Atomic<UInt64>.self)
    self.count = count
  }

  @inlinable deinit { platform_free(base) }

  @inline(__always)
  package func load(_ index: Int) -> UInt64 { base[index].load(ordering: .relaxed) }

  @inline(__always)
  package func loadAcquiring(_ index: Int) -> UInt64 { base[index].load(ordering: .acquiring) }

  @inline(__always)
  package func store(_ index: Int, _ value: UInt64) {
    base[index].store(value, ordering: .relaxed)
  }

  @inline(__always)
  package func storeReleasing(_ index: Int, _ value: UInt64) {
    base[index].store(value, ordering: .releasing)
  }

  /// Adds to a word, and returns what it was.
  @inline(__always)
  @discardableResult
  package func add(_ index: Int, _ amount: UInt64) -> UInt64 {
    base[index].wrappingAdd(amount, ordering: .acquiringAndReleasing).oldValue
  }

  /// Replaces `expected` by `desired`; says whether it did.
  @inline(__always)
  package func exchange(_ index: Int, _ expected: UInt64, _ desired: UInt64) -> Bool {
    base[index].compareExchange(
      expected: expected, desired: desired, ordering: .acquiringAndReleasing
    ).exchanged
  }
}

/// A fixed array of pairs of words, each pair exchanged as one. Indices as in `AtomicWords`.
@frozen public struct AtomicPairs: ~Copyable {
  @usableFromInline let base: UnsafeMutablePointer<Atomic<WordPair>>
  package let count: Int

  /// `count` pairs of zeros, four to a cache line.
  package init(count: Int) throws(Failure) {
    guard let memory = platform_allocate(count &* MemoryLayout<WordPair>.stride) else {
      throw .noMemory
    }
    base = memory.assumingMemoryBound(to: Atomic<WordPair>.self)
    self.count = count
  }

  @inlinable deinit { platform_free(base) }

  /// A pair that stood there: the second word was read while the first did not change. An exchange
  /// compares both, so that a pair which was replaced by its like meanwhile does no harm.
  @inline(__always)
  package func load(_ index: Int) -> (UInt64, UInt64) {
    let words = UnsafeMutableRawPointer(base + index).assumingMemoryBound(
      to: Atomic<UInt64>.self)
    while true {
      let first = words[0].load(ordering: .acquiring)
      let second = words[1].load(ordering: .acquiring)
      if words[0].load(ordering: .relaxed) == first { return (first, second) }
    }
  }

  /// Replaces one pair by another; says whether it did.
  @inline(__always)
  package func exchange(
    _ index: Int, _ expected: (UInt64, UInt64), _ desired: (UInt64, UInt64)
  ) -> Bool {
    base[index].compareExchange(
      expected: WordPair(first: UInt(expected.0), second: UInt(expected.1)),
      desired: WordPair(first: UInt(desired.0), second: UInt(desired.1)),
      ordering: .sequentiallyConsistent
    ).exchanged
  }
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
