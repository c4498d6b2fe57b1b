import Platform
import Synchronization

/// Where each thread looks first in a table of slots: at the one it freed last, or behind the one it took last,
/// which is most likely free and in its cache. Threads begin far from each other, so that they do not meet;
/// several may share a hint.
package struct ThreadHints: ~Copyable {
  private static let rows = 16
  private static let stride = 8

  private let words: AtomicWords

  /// For a table of `count` slots.
  package init(count: Int) throws(Failure) {
    let words = try AtomicWords(count: ThreadHints.rows &* ThreadHints.stride)
    for row in 0..<ThreadHints.rows {
      let first = count / ThreadHints.rows &* row
      words.store(row &* ThreadHints.stride, UInt64(truncatingIfNeeded: first))
    }
    self.words = words
  }

  /// The present thread's row.
  @inline(__always)
  package static func row() -> Int {
    // Identities are addresses, whose low bits and high bits are alike.
    let mixed = platform_thread() &* 0x9E37_79B9_7F4A_7C15
    return Int(truncatingIfNeeded: mixed &>> 60) &* stride
  }

  /// A slot, which may be the count itself.
  @inline(__always)
  package subscript(row: Int) -> Int {
    get { Int(truncatingIfNeeded: words.load(row)) }
    nonmutating set { words.store(row, UInt64(truncatingIfNeeded: newValue)) }
  }
}
