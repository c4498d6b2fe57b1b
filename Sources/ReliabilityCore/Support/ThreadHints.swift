import Platform
import Synchronization

/// Where each thread looks first in a table of slots: at the one it freed last, or behind the one it took last,
/// which is most likely free and in its cache. Threads begin far from each other, so that they do not meet;
/// several may share a hint.
package struct ThreadHints: ~Copyable {
  private let words: AtomicWords

  /// For a table of `count` slots.
  package init(count: Int) throws(Failure) {
    let words = try AtomicWords(count: ThreadRows.count &* ThreadRows.stride)
    for row in 0..<ThreadRows.count {
      let first = count / ThreadRows.count &* row
      words.store(row &* ThreadRows.stride, UInt64(truncatingIfNeeded: first))
    }
    self.words = words
  }

  /// The present thread's row.
  @inline(__always)
  package static func row() -> Int { ThreadRows.start(of: platform_thread()) }

  /// A slot, which may be the count itself.
  @inline(__always)
  package subscript(row: Int) -> Int {
    get { Int(truncatingIfNeeded: words.load(row)) }
    nonmutating set { words.store(row, UInt64(truncatingIfNeeded: newValue)) }
  }
}
