import Platform
import ReliabilityCore

// How the shards are touched: under their locks, and what follows from a touch after unlocking.

extension IdempotencyCache {
  /// How many waiters are told at a time, so that the lock is held shortly however many there are.
  private static let batch = 32

  /// Runs an operation under a shard's lock, then tells the waiters whose answer it changed.
  @inline(__always)
  func under<Answer, Problem: Error>(
    _ number: Int,
    _ operation: (inout IdempotencyShard, borrowing IdempotencyShared) throws(Problem) -> Answer
  ) throws(Problem) -> Answer {
    locks[number].lock()
    defer { unlockAndTell(number) }
    // A pointer of its own, so that what is accessed is the shard and not the row of all of them.
    let shard = shards[number]
    return try operation(&shard.pointee, shared)
  }

  @inline(__always)
  private func unlockAndTell(_ number: Int) {
    if shards[number].pointee.hasChanges {
      tellAll(number)
    } else {
      locks[number].unlock()
    }
  }

  /// Releases the lock, and takes it again for each further batch.
  ///
  /// An eventfd is written under the lock, because its ticket, and with it the descriptor, may end
  /// as soon as that is free, and the number be somebody else's file; the write does not block.
  /// Threads are woken after unlocking: a word that changed hands costs a needless look at most.
  private func tellAll(_ number: Int) {
    let shard = shards[number]
    while true {
      var sleepers = InlineArray<32, UInt32>(repeating: 0)
      var count = 0
      for _ in 0..<IdempotencyCache.batch {
        guard let change = shard.pointee.takeChange(shared) else { break }
        if let descriptor = IdempotencyCache.descriptor(of: change.attachment) {
          if change.isReady {
            platform_eventfd_signal(descriptor)
          } else {
            platform_eventfd_clear(descriptor)
          }
        }
        if waitWords.change(change.waiter) {
          sleepers[count] = UInt32(truncatingIfNeeded: change.waiter)
          count &+= 1
        }
      }
      let hasMore = shard.pointee.hasChanges
      locks[number].unlock()
      for index in 0..<count { waitWords.wake(Int(sleepers[index])) }
      guard hasMore else { return }
      locks[number].lock()
    }
  }

  /// Makes room under the other locks, one after the other; says whether it made any.
  func clearElsewhere(_ number: Int, _ time: Int64) -> Bool {
    for step in 1..<shards.count {
      let other = (number &+ step) & (shards.count &- 1)
      if under(other, { shard, shared in shard.clearOne(time, shared) }) { return true }
    }
    return false
  }

  /// The counters of all shards, one after the other.
  func counters() -> IdempotencyShard.Counters {
    var sum = IdempotencyShard.Counters()
    for number in 0..<shards.count {
      let one = under(number) { shard, _ in shard.counters }
      sum.executed &+= one.executed
      sum.replayed &+= one.replayed
      sum.joined &+= one.joined
      sum.promoted &+= one.promoted
      sum.leasesLost &+= one.leasesLost
      sum.mismatched &+= one.mismatched
      sum.evicted &+= one.evicted
      sum.illegal &+= one.illegal
    }
    return sum
  }

  /// What is attached to a ticket is its descriptor plus 1.
  static func descriptor(of attachment: Int32) -> Int32? {
    attachment > 0 ? attachment &- 1 : nil
  }

  static func close(_ attachment: Int32) {
    if let descriptor = descriptor(of: attachment) { platform_close(descriptor) }
  }
}
