import Platform

/// Some of the keys of an idempotency cache, under one lock of the host's.
///
/// An entry that is completed is in `kept`, by the order of completion, which with one time to live
/// is the order of expiry. Every other entry is in `heap`, by the time its state ends by itself.
/// Nothing here waits or acts: waiters whose answer changed are put into a list, which the host
/// empties with `takeChange` before it unlocks.
package struct IdempotencyShard: ~Copyable {
  package struct Counters {
    package var executed: UInt64 = 0
    package var replayed: UInt64 = 0
    package var joined: UInt64 = 0
    package var promoted: UInt64 = 0
    package var leasesLost: UInt64 = 0
    package var mismatched: UInt64 = 0
    package var evicted: UInt64 = 0
    package var illegal: UInt64 = 0

    package init() {}
  }

  /// How much one operation cleans up of what is not its own.
  static let chores = 2
  /// How much it clears at the most when it needs the place.
  static let mostCleared = 64

  let number: UInt64
  let capacity: Int
  let entries: Slab<IdempotencyEntry>
  let order: Slab<IndexList.Link>
  /// The first slot of each bucket, plus 1.
  let buckets: Slab<UInt32>
  let bucketMask: UInt64
  var heap: DueHeap
  var kept = IndexList()
  var changes = IndexList()
  /// The free slots that were used before, linked by `next`, and the first never used.
  var free: UInt32 = 0
  var fresh = 0
  /// Of the last lease. It starts at random, so that another cache's lease is not taken for ours.
  var generation: UInt64
  package var counters = Counters()

  package init(
    number: Int, _ configuration: IdempotencyConfiguration, seed: UInt64
  ) throws(Failure) {
    let capacity = configuration.slotsPerShard
    var bucketCount = 1
    while bucketCount < capacity { bucketCount &*= 2 }
    let entries = try Slab<IdempotencyEntry>(count: capacity)
    let order = try Slab<IndexList.Link>(count: capacity)
    let buckets = try Slab<UInt32>(count: bucketCount)
    let heap = try DueHeap(capacity: capacity)
    self.number = UInt64(truncatingIfNeeded: number)
    self.capacity = capacity
    self.entries = entries
    self.order = order
    self.buckets = buckets
    self.heap = heap
    bucketMask = UInt64(truncatingIfNeeded: bucketCount &- 1)
    generation = SplitMix64.mix(seed) & IdempotencyLease.generationMask
  }

  /// Which shard of `count`, a power of two up to 16, has the keys with this hash.
  @inline(__always)
  package static func number(of hash: UInt64, count: Int) -> Int {
    Int(truncatingIfNeeded: hash &>> 60) & (count &- 1)
  }

  package enum BeginAnswer {
    case execute(IdempotencyLease)
    case replay(PinnedResult)
    /// Somebody else executes it; `ticket` is 0 unless the caller joins.
    case inProgress(ticket: UInt64, leaseRemaining: Int64)
    /// The key is in use with another fingerprint.
    case mismatch
  }

  /// Asks to execute a key. `fingerprint` is the hash of the request, 0: not checked.
  package mutating func begin(
    _ key: IdempotencyKey, fingerprint: UInt64, joins: Bool, now: Int64,
    _ shared: borrowing IdempotencyShared
  ) throws(Shortage) -> BeginAnswer {
    doChores(now, shared)
    guard let slot = find(key), settle(slot, now, shared) else {
      let slot = try insert(key, now, shared)
      entries.at(slot).pointee.fingerprint = fingerprint
      return .execute(grant(slot, now, shared))
    }
    let entry = entries.at(slot)
    let known = entry.pointee.fingerprint
    if known != 0 && fingerprint != 0 && known != fingerprint {
      counters.mismatched &+= 1
      return .mismatch
    }
    if let block = entry.pointee.block {
      guard let pinned = shared.pins.pin(block) else { throw .pins }
      counters.replayed &+= 1
      return .replay(pinned)
    }
    if entry.pointee.state == .pending && isFree(slot) {
      takeOver(slot, shared)
      if fingerprint != 0 { entry.pointee.fingerprint = fingerprint }
      return .execute(grant(slot, now, shared))
    }
    let ticket = joins ? try join(slot, shared) : 0
    return .inProgress(ticket: ticket, leaseRemaining: Time.subtract(entry.pointee.due, now))
  }

  /// The state of a key.
  package mutating func state(
    _ key: IdempotencyKey, now: Int64, _ shared: borrowing IdempotencyShared
  ) -> KeyState {
    doChores(now, shared)
    guard let slot = find(key), settle(slot, now, shared) else { return .absent }
    return entries[slot].state
  }

  /// Changes an entry's state, if that is legal; else it is counted, and nothing changes.
  @discardableResult
  mutating func move(_ slot: Int, to state: KeyState) -> Bool {
    let entry = entries.at(slot)
    guard entry.pointee.state.canMove(to: state) else {
      counters.illegal &+= 1
      return false
    }
    entry.pointee.state = state
    return true
  }

  /// A pending key which whoever comes first may execute: nobody waits, or only the one who was
  /// promoted and did not come in time.
  private func isFree(_ slot: Int) -> Bool {
    let entry = entries.at(slot)
    return entry.pointee.waiters.isEmpty || entry.pointee.due == Time.forever
  }

  /// Takes the promotion from the waiter who did not come in time, if there is one.
  private mutating func takeOver(_ slot: Int, _ shared: borrowing IdempotencyShared) {
    let first = entries.at(slot).pointee.waiters.first
    if first != IndexList.none { setReady(Int(first), false, shared) }
  }

  /// Gives out the lease of a pending entry.
  mutating func grant(
    _ slot: Int, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) -> IdempotencyLease {
    move(slot, to: .processing)
    generation = (generation &+ 1) & IdempotencyLease.generationMask
    if generation == 0 { generation = 1 }
    let entry = entries.at(slot)
    entry.pointee.generation = generation
    entry.pointee.isElsewhere = false
    setDue(slot, Time.add(now, shared.configuration.leaseTime))
    counters.executed &+= 1
    return IdempotencyLease(
      id: IdempotencyLease.id(shard: number, generation: generation, slot: slot),
      fence: shared.nextFence(), expiresIn: Time.subtract(entry.pointee.due, now),
      outcomeUnknown: entry.pointee.outcomeUnknown)
  }
}
