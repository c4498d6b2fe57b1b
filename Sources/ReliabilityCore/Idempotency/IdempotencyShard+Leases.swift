// The ends of a run.

extension IdempotencyShard {
  /// The entry that a lease is for, if the lease is good.
  mutating func holder(
    of lease: UInt64, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Int? {
    let slot = IdempotencyLease.slot(of: lease)
    let generation = IdempotencyLease.generation(of: lease)
    guard slot < fresh, generation != 0, entries.at(slot).pointee.generation == generation,
      settle(slot, now, shared), entries.at(slot).pointee.state == .processing
    else { return nil }
    return slot
  }

  /// Whether a lease that is about to be ended is good; one that is not is counted.
  package mutating func mayEnd(
    _ lease: UInt64, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    ending(lease, now, shared) != nil
  }

  /// As `holder`, for an end of a run: one that comes too late or twice is counted.
  private mutating func ending(
    _ lease: UInt64, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Int? {
    doChores(now, shared)
    guard let slot = holder(of: lease, now, shared) else {
      counters.illegal &+= 1
      return nil
    }
    return slot
  }

  /// Ends a run with its result, a success or a failure that is kept, and delivers it. Says `false`
  /// when the lease is stale, and then the block is still the caller's.
  package mutating func complete(
    _ lease: UInt64, _ block: ResultBlock, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    complete(lease, block, timeToLive: shared.configuration.timeToLive, now: now, shared)
  }

  /// The same, with a time to live of its own.
  package mutating func complete(
    _ lease: UInt64, _ block: ResultBlock, timeToLive: Int64, now: Int64,
    _ shared: borrowing IdempotencyShared
  ) -> Bool {
    guard let slot = ending(lease, now, shared), move(slot, to: block.state) else { return false }
    let entry = entries.at(slot)
    heap.remove(slot, entries)
    entry.pointee.block = block
    entry.pointee.due = Time.add(now, timeToLive)
    kept.append(slot, order)
    while let waiter = entry.pointee.waiters.popFirst(shared.waiters.order) {
      block.retain()
      shared.waiters.waiters.at(waiter).pointee.block = block
      setReady(waiter, true, shared)
    }
    return true
  }

  /// Ends a run that had no effect: the first who waits is promoted, else the key is forgotten; unless an
  /// earlier run may have had one, of which the next who asks must still be told.
  package mutating func giveBack(
    _ lease: UInt64, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    guard let slot = ending(lease, now, shared), move(slot, to: .failed) else { return false }
    if entries.at(slot).pointee.outcomeUnknown {
      release(slot, since: now, now, shared)
    } else if entries.at(slot).pointee.waiters.isEmpty {
      remove(slot, shared)
    } else {
      move(slot, to: .pending)
      promote(slot, now, shared)
    }
    return true
  }

  /// Ends a run that may have had its effect.
  package mutating func abandon(
    _ lease: UInt64, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    guard let slot = ending(lease, now, shared) else { return false }
    release(slot, since: now, now, shared)
    return true
  }

  /// Extends a lease to `time` from now.
  package mutating func renew(
    _ lease: UInt64, time: Int64, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    doChores(now, shared)
    guard let slot = holder(of: lease, now, shared) else { return false }
    setDue(slot, Time.add(now, time))
    return true
  }
}
