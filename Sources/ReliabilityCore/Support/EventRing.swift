import Synchronization

/// The last events, written by many threads and read by any number of independent readers.
///
/// Each record is guarded by a sequence number: odd while it is written, and `2·position + 2` once
/// the event at that position is complete. A reader that finds another number has been overtaken.
package struct EventRing: BitwiseCopyable {
  /// The next position, in a line of its own, then the records.
  private let words: AtomicWords
  private let mask: UInt64
  private let stride: Int

  private static let head = 0
  private static let records = 8

  /// `capacity` is a power of two; every record has `recordWords` words.
  package static func wordCount(capacity: Int, recordWords: Int) -> Int {
    records &+ capacity &* (recordWords &+ 1)
  }

  /// As many words as `wordCount` says.
  package init(capacity: Int, recordWords: Int, _ words: AtomicWords) {
    self.words = words
    stride = recordWords &+ 1
    mask = UInt64(truncatingIfNeeded: capacity &- 1)
  }

  @inline(__always)
  private func base(_ position: UInt64) -> Int {
    EventRing.records &+ Int(truncatingIfNeeded: position & mask) &* stride
  }

  /// Appends a record of as many words as the ring's have.
  @inline(__always)
  package func append<let count: Int>(_ record: InlineArray<count, UInt64>) {
    let position = words.add(EventRing.head, 1)
    let base = base(position)
    let before = words.load(base)
    // A writer that is a whole lap behind, or still writing here, keeps the record; ours is lost. One that
    // is two laps behind is gone, with its process.
    let isGone = before & ~1 &+ (mask &+ 1) &* 4 <= position &* 2
    guard before & 1 == 0 || isGone, before <= position &* 2,
      words.exchange(base, before, position &* 2 &+ 1)
    else { return }
    // Orders the words behind the odd number for a reader that sees any of them.
    atomicMemoryFence(ordering: .releasing)
    for index in 0..<Swift.min(count, stride &- 1) {
      words.store(base &+ 1 &+ index, record[index])
    }
    words.storeReleasing(base, position &* 2 &+ 2)
  }

  /// Reads the event at `cursor`, or the oldest that is left, and moves the cursor behind it. `lost`
  /// counts those that were overwritten before. Says `false` when there is none to read yet.
  /// `word` receives the words by index; it may be called again from 0 when it was overtaken.
  package func next(
    cursor: inout UInt64, lost: inout UInt64, _ word: (Int, UInt64) -> Void
  ) -> Bool {
    let end = words.loadAcquiring(EventRing.head)
    // A cursor from nowhere starts at the oldest.
    if cursor > end { cursor = 0 }
    let oldest = end > mask &+ 1 ? end &- mask &- 1 : 0
    if cursor < oldest {
      lost &+= oldest &- cursor
      cursor = oldest
    }
    while cursor < end {
      let base = base(cursor)
      let complete = cursor &* 2 &+ 2
      let sequence = words.loadAcquiring(base)
      if sequence < complete {
        // Its writer is at it still, and it comes with a later call; unless the writer found the place
        // taken by one a lap behind, which shows when the next event is there already, or is gone, which is
        // what half a lap of later ones says.
        let isGone = end &- cursor > (mask &+ 1) / 2
        guard
          isGone
            || sequence & 1 == 0 && words.loadAcquiring(self.base(cursor &+ 1)) >= complete &+ 2
        else { return false }
      }
      if sequence == complete {
        for index in 0..<(stride &- 1) { word(index, words.load(base &+ 1 &+ index)) }
        atomicMemoryFence(ordering: .acquiring)
        if words.load(base) == complete {
          cursor &+= 1
          return true
        }
      }
      lost &+= 1
      cursor &+= 1
    }
    return false
  }
}
