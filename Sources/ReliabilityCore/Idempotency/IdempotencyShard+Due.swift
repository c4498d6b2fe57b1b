// What happens to entries in the course of time, and to make room.

extension IdempotencyShard {
  /// Gives an entry in the heap a new due time.
  mutating func setDue(_ slot: Int, _ due: Int64) {
    entries.at(slot).pointee.due = due
    heap.update(slot, entries)
  }

  /// Brings an entry up to date; says whether it is still there. One that has waiters always is.
  mutating func settle(
    _ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    // At the most twice: a lease that was lost may have outlived its time to live as well.
    for _ in 0..<2 where entries.at(slot).pointee.due <= now {
      guard expire(slot, now, shared) else { return false }
    }
    return true
  }

  /// What is due for an entry; says whether it is still there.
  private mutating func expire(
    _ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    let entry = entries.at(slot)
    switch entry.pointee.state {
    case .processing where entry.pointee.isElsewhere:
      return askAgain(slot, now, shared)
    case .processing:
      counters.leasesLost &+= 1
      release(slot, since: entry.pointee.due, now, shared)
      return true
    case .pending where !entry.pointee.waiters.isEmpty:
      passOn(slot, now, shared)
      return true
    default:
      remove(slot, shared)
      return false
    }
  }

  /// Ends a run that may have had effects: the first who waits is promoted, else the key is kept
  /// for its time to live, so that the next who asks is told.
  mutating func release(
    _ slot: Int, since: Int64, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) {
    let entry = entries.at(slot)
    entry.pointee.outcomeUnknown = true
    move(slot, to: .pending)
    if entry.pointee.waiters.isEmpty {
      setDue(slot, Time.add(since, shared.configuration.timeToLive))
    } else {
      promote(slot, now, shared)
    }
  }

  /// Tells the first who waits that it is his turn; he has one lease time to come.
  mutating func promote(_ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared) {
    counters.promoted &+= 1
    setReady(Int(entries.at(slot).pointee.waiters.first), true, shared)
    setDue(slot, Time.add(now, shared.configuration.leaseTime))
  }

  /// The promoted waiter did not come: the next is promoted, and he goes to the end of the line. If
  /// there is no other, it is for him or the next who asks, whoever comes first.
  private mutating func passOn(_ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared) {
    let entry = entries.at(slot)
    guard !entry.pointee.waiters.hasOne,
      let late = entry.pointee.waiters.popFirst(shared.waiters.order)
    else {
      setDue(slot, Time.forever)
      return
    }
    entry.pointee.waiters.append(late, shared.waiters.order)
    setReady(late, false, shared)
    promote(slot, now, shared)
  }

  /// A little cleaning at every operation, so that nothing stays for ever.
  mutating func doChores(_ now: Int64, _ shared: borrowing IdempotencyShared) {
    for _ in 0..<IdempotencyShard.chores {
      guard let slot = heap.first, entries.at(slot).pointee.due <= now else { break }
      _ = expire(slot, now, shared)
    }
    for _ in 0..<IdempotencyShard.chores {
      guard purgeOldest(now, shared) else { break }
    }
  }

  /// One step towards more room; says whether it changed anything.
  package mutating func clearOne(_ now: Int64, _ shared: borrowing IdempotencyShared) -> Bool {
    if purgeOldest(now, shared) { return true }
    if let slot = heap.first, entries.at(slot).pointee.due <= now {
      _ = expire(slot, now, shared)
      return true
    }
    guard shared.configuration.evicts, kept.first != IndexList.none else { return false }
    remove(Int(kept.first), shared)
    counters.evicted &+= 1
    return true
  }

  /// Removes the key that was completed first, if its time has run out.
  private mutating func purgeOldest(
    _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    guard kept.first != IndexList.none else { return false }
    let slot = Int(kept.first)
    guard entries.at(slot).pointee.due <= now else { return false }
    remove(slot, shared)
    return true
  }
}
