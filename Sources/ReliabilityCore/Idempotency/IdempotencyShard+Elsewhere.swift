import Platform

// Runs of other processes, which a store knows of. Whoever was given a lease here asks the store; when it is another
// process's run, the lease gives way: the key stays in progress for a while, and then the first who waits is
// given a lease again, to ask again.

extension IdempotencyShard {
  /// A place of the host's for each key, below `capacity`.
  @inline(__always)
  package static func place(of lease: UInt64) -> Int { IdempotencyLease.slot(of: lease) }

  /// The bytes of the key that a good lease is for. They stay as long as the lock is held.
  package mutating func key(
    of lease: UInt64, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> UnsafeRawBufferPointer? {
    guard let slot = holder(of: lease, now, shared) else { return nil }
    let entry = entries.at(slot)
    return UnsafeRawBufferPointer(
      start: entry.pointee.key, count: Int(entry.pointee.keyLength))
  }

  /// The run is elsewhere, for `time` at least. The key stays in progress for those who wait; with `joins` the
  /// caller becomes one of them. Without any the key is forgotten here. Says `nil` when the lease is stale, and
  /// else the ticket, 0 without one.
  package mutating func giveWay(
    _ lease: UInt64, for time: Int64, joins: Bool, now: Int64,
    _ shared: borrowing IdempotencyShared
  ) throws(Shortage) -> UInt64? {
    guard let slot = holder(of: lease, now, shared) else { return nil }
    var ticket: UInt64 = 0
    var shortage: Shortage?
    if joins {
      do throws(Shortage) { ticket = try join(slot, shared) } catch { shortage = error }
    }
    counters.executed &-= 1
    let entry = entries.at(slot)
    if entry.pointee.waiters.isEmpty {
      move(slot, to: .pending)
      remove(slot, shared)
    } else {
      entry.pointee.isElsewhere = true
      entry.pointee.generation = 0
      setReady(Int(entry.pointee.waiters.first), false, shared)
      setDue(slot, Time.add(now, time))
    }
    if let shortage { throw shortage }
    return ticket
  }

  /// Ends the ticket whose `poll` kept it and gave a lease that is good; says `false` when it is stale.
  package mutating func finish(
    _ ticket: UInt64, _ shared: borrowing IdempotencyShared, attachment: inout Int32
  ) -> Bool {
    guard let waiter = shared.waiters.find(ticket),
      shared.waiters.waiters[waiter].block == nil
    else { return false }
    let slot = shared.waiters.waiters[waiter].entry
    entries.at(slot).pointee.waiters.remove(waiter, shared.waiters.order)
    attachment = end(waiter, shared)
    return true
  }

  /// The time of a run elsewhere is over: says whether the entry is still there.
  mutating func askAgain(
    _ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    move(slot, to: .pending)
    guard !entries.at(slot).pointee.waiters.isEmpty else {
      remove(slot, shared)
      return false
    }
    promote(slot, now, shared)
    counters.promoted &-= 1
    return true
  }
}
