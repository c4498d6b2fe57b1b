import Synchronization

/// The last events, written by many threads and read by any number of independent readers.
///
/// Each record is guarded by a sequence number: odd while it is written, and `2·position + 2` once
/// the event at that position is complete. A reader that finds another number has been overtaken.
package struct EventRing: ~Copyable {
  private let words: AtomicWords
  private let head: Atomic<UInt64>
  private let mask: UInt64
  private let stride: Int

  /// `capacity` is a power of two; every record has `recordWords` words.
  package init(capacity: Int, recordWords: Int) throws(Failure) {
    let words = try AtomicWords(count: capacity &* (recordWords &+ 1))
    self.words = words
    stride = recordWords &+ 1
    mask = UInt64(truncatingIfNeeded: capacity &- 1)
    head = Atomic(0)
  }

  /// Appends a record of as many words as the ring's have.
  @inline(__always)
  package func append<let count: Int>(_ record: InlineArray<count, UInt64>) {
    let position = head.wrappingAdd(1, ordering: .relaxed).oldValue
    let base = Int(truncatingIfNeeded: position & mask) &* stride
    let before = words.load(base)
    // A writer that is a whole lap behind, or still writing here, keeps the record; ours is lost.
    guard before & 1 == 0, before <= position &* 2,
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
    let end = head.load(ordering: .acquiring)
    // A cursor from nowhere starts at the oldest.
    if cursor > end { cursor = 0 }
    let oldest = end > mask &+ 1 ? end &- mask &- 1 : 0
    if cursor < oldest {
      lost &+= oldest &- cursor
      cursor = oldest
    }
    while cursor < end {
      let base = Int(truncatingIfNeeded: cursor & mask) &* stride
      let complete = cursor &* 2 &+ 2
      let sequence = words.loadAcquiring(base)
      if sequence < complete {
        // Its writer is at it still, and it comes with a later call; unless the writer found the place
        // taken by one a lap behind, which shows when the next event is there already.
        let next = Int(truncatingIfNeeded: (cursor &+ 1) & mask) &* stride
        guard sequence & 1 == 0, words.loadAcquiring(next) >= complete &+ 2 else { return false }
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
