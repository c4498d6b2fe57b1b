import Platform

/// Where each thread looks first in a table of slots: at the one it freed last, or behind the one it took last,
/// which is most likely free and in its cache. Threads begin far from each other, so that they do not meet;
/// several may share a hint. Each process has its own.
package struct ThreadHints: BitwiseCopyable {
  private let words: AtomicWords
  private let count: Int

  static let wordCount = ThreadRows.count * ThreadRows.stride

  /// For a table of `count` slots.
  init(count: Int, _ words: AtomicWords) {
    self.words = words
    self.count = count
  }

  /// Processes with different salts begin at different places too.
  func settle(_ salt: UInt64) {
    let start = count == 0 ? 0 : Int(truncatingIfNeeded: salt &>> 1) % count
    for row in 0..<ThreadRows.count {
      let first = count / ThreadRows.count &* row &+ start
      let slot = first >= count ? first &- count : first
      words.store(row &* ThreadRows.stride, UInt64(truncatingIfNeeded: slot))
    }
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
