// Those who joined.

extension IdempotencyShard {
  package enum TicketAnswer {
    /// Promoted: it is the caller's turn.
    case execute(IdempotencyLease)
    case replay(PinnedResult)
    case inProgress(leaseRemaining: Int64)
    case stale
  }

  mutating func join(
    _ slot: Int, _ shared: borrowing IdempotencyShared
  ) throws(Shortage) -> UInt64 {
    guard let waiter = shared.waiters.claim(shard: number, entry: slot) else { throw .waiters }
    entries.at(slot).pointee.waiters.append(waiter.slot, shared.waiters.order)
    counters.joined &+= 1
    return waiter.ticket
  }

  /// What has become of the run that was joined. With `execute` and `replay` the ticket ends, and
  /// `attachment` is what the host had attached to it; else 0.
  ///
  /// With `keeps` a ticket stays good with `execute`, until `finish` or `giveWay`.
  package mutating func poll(
    _ ticket: UInt64, now: Int64, _ shared: borrowing IdempotencyShared,
    attachment: inout Int32, keeps: Bool = false
  ) throws(Shortage) -> TicketAnswer {
    doChores(now, shared)
    guard let waiter = shared.waiters.find(ticket) else { return .stale }
    if let block = shared.waiters.waiters[waiter].block {
      guard let pinned = shared.pins.pin(block) else { throw .pins }
      counters.replayed &+= 1
      attachment = end(waiter, shared)
      return .replay(pinned)
    }
    let slot = shared.waiters.waiters[waiter].entry
    // It has a waiter, and is therefore still there.
    _ = settle(slot, now, shared)
    let entry = entries.at(slot)
    if entry.pointee.state == .pending && Int(entry.pointee.waiters.first) == waiter {
      if !keeps {
        entry.pointee.waiters.remove(waiter, shared.waiters.order)
        attachment = end(waiter, shared)
      }
      return .execute(grant(slot, now, shared))
    }
    return .inProgress(leaseRemaining: Time.subtract(entry.pointee.due, now))
  }

  /// Gives up a ticket; says `false` when it is stale. `attachment` as in `poll`.
  package mutating func leave(
    _ ticket: UInt64, now: Int64, _ shared: borrowing IdempotencyShared,
    attachment: inout Int32
  ) -> Bool {
    doChores(now, shared)
    guard let waiter = shared.waiters.find(ticket) else { return false }
    if shared.waiters.waiters[waiter].block == nil {
      let slot = shared.waiters.waiters[waiter].entry
      _ = settle(slot, now, shared)
      let entry = entries.at(slot)
      let wasPromoted =
        entry.pointee.state == .pending && Int(entry.pointee.waiters.first) == waiter
      entry.pointee.waiters.remove(waiter, shared.waiters.order)
      if wasPromoted { replacePromoted(slot, now, shared) }
    }
    attachment = end(waiter, shared)
    return true
  }

  /// The promoted waiter went: the next is promoted. Without one, the key is kept only to tell that
  /// an outcome is unknown.
  private mutating func replacePromoted(
    _ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) {
    if !entries.at(slot).pointee.waiters.isEmpty {
      promote(slot, now, shared)
    } else if entries.at(slot).pointee.outcomeUnknown {
      setDue(slot, Time.add(now, shared.configuration.timeToLive))
    } else {
      remove(slot, shared)
    }
  }

  /// Attaches a number of the host's to a ticket; says `false` when that is stale.
  package func attach(
    _ attachment: Int32, to ticket: UInt64, _ shared: borrowing IdempotencyShared
  ) -> Bool {
    guard let waiter = shared.waiters.find(ticket) else { return false }
    shared.waiters.waiters.at(waiter).pointee.attachment = attachment
    return true
  }

  /// What the host needs to know of a ticket that is good.
  package struct Readiness {
    package let waiter: Int
    /// A poll has an answer.
    package let isReady: Bool
    package let attachment: Int32
  }

  package func readiness(
    of ticket: UInt64, _ shared: borrowing IdempotencyShared
  ) -> Readiness? {
    guard let waiter = shared.waiters.find(ticket) else { return nil }
    return readiness(waiter, shared)
  }

  private func readiness(_ waiter: Int, _ shared: borrowing IdempotencyShared) -> Readiness {
    let now = shared.waiters.waiters[waiter]
    return Readiness(waiter: waiter, isReady: now.isReady, attachment: now.attachment)
  }

  /// The next waiter whose readiness changed.
  package mutating func takeChange(_ shared: borrowing IdempotencyShared) -> Readiness? {
    guard let waiter = changes.popFirst(shared.waiters.changes) else { return nil }
    shared.waiters.waiters.at(waiter).pointee.isQueued = false
    return readiness(waiter, shared)
  }

  package var hasChanges: Bool { !changes.isEmpty }

  /// Says whether a poll has an answer, and puts that into the list of changes.
  mutating func setReady(
    _ waiter: Int, _ isReady: Bool, _ shared: borrowing IdempotencyShared
  ) {
    let place = shared.waiters.waiters.at(waiter)
    guard place.pointee.isReady != isReady else { return }
    place.pointee.isReady = isReady
    if !place.pointee.isQueued {
      place.pointee.isQueued = true
      changes.append(waiter, shared.waiters.changes)
    }
  }

  /// Ends a ticket, and returns what was attached to it.
  mutating func end(_ waiter: Int, _ shared: borrowing IdempotencyShared) -> Int32 {
    let old = shared.waiters.waiters[waiter]
    if old.isQueued { changes.remove(waiter, shared.waiters.changes) }
    old.block?.release(shared)
    shared.waiters.giveBack(waiter)
    return old.attachment
  }
}
