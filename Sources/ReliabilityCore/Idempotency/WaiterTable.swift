import Synchronization

/// Those who joined a key and wait for what becomes of it, over all shards of a cache.
///
/// A ticket is `shard << 60 | generation << 20 | slot`. A slot belongs to the shard in its ticket
/// and is touched under that shard's lock only; the ticket itself is atomic, because a late one may
/// be looked up under the lock of a shard that no longer owns the slot.
package struct WaiterTable: ~Copyable {
  package static let maximumCount = 1 << 20

  struct Waiter: BitwiseCopyable {
    /// The entry that was joined, while there is no result.
    var entry: Int
    /// The result, once it was delivered.
    var block: ResultBlock?
    /// A number of the host's, given back when the ticket ends; 0: none.
    var attachment: Int32
    /// A poll has an answer.
    var isReady: Bool
    /// In the shard's list of changes which the host has not been told.
    var isQueued: Bool
  }

  private static let slotBits: UInt64 = 20
  private static let slotMask: UInt64 = (1 << 20) - 1
  private static let generationMask: UInt64 = (1 << 40) - 1
  private static let shardShift: UInt64 = 60

  private let tickets: AtomicWords
  private let memory: Block
  private let pool: SlotPool
  private let sequence: Atomic<UInt64>
  private let count: Int
  let waiters: Slab<Waiter>
  /// The order of those who wait for one entry.
  let order: Slab<IndexList.Link>
  /// The order of changes to tell.
  let changes: Slab<IndexList.Link>

  package init(count: Int, seed: UInt64) throws(Failure) {
    let slots = Swift.max(1, count)
    let memory = try Block(words: slots)
    let pool = try SlotPool(count: count)
    let waiters = try Slab<Waiter>(count: slots)
    let order = try Slab<IndexList.Link>(count: slots)
    let changes = try Slab<IndexList.Link>(count: slots)
    tickets = memory.words
    self.memory = memory
    self.pool = pool
    self.waiters = waiters
    self.order = order
    self.changes = changes
    self.count = count
    sequence = Atomic(SplitMix64.mix(seed))
  }

  package var used: Int { pool.used }

  /// Which shard a ticket belongs to, unchecked.
  @inline(__always)
  package static func shard(of ticket: UInt64) -> Int {
    Int(truncatingIfNeeded: ticket &>> shardShift)
  }

  @inline(__always)
  package static func slot(of ticket: UInt64) -> Int {
    Int(truncatingIfNeeded: ticket & slotMask)
  }

  /// The slot of a ticket that is good.
  func find(_ ticket: UInt64) -> Int? {
    let slot = WaiterTable.slot(of: ticket)
    guard ticket != 0, slot < count, tickets.loadAcquiring(slot) == ticket else { return nil }
    return slot
  }

  /// A new ticket for an entry, or `nil` when all are out.
  func claim(shard: UInt64, entry: Int) -> (slot: Int, ticket: UInt64)? {
    guard let slot = pool.take() else { return nil }
    var generation =
      sequence.wrappingAdd(1, ordering: .relaxed).newValue & WaiterTable.generationMask
    if generation == 0 { generation = 1 }
    waiters[slot] = Waiter(
      entry: entry, block: nil, attachment: 0, isReady: false, isQueued: false)
    let ticket =
      shard &<< WaiterTable.shardShift | generation &<< WaiterTable.slotBits
      | UInt64(truncatingIfNeeded: slot)
    tickets.storeReleasing(slot, ticket)
    return (slot, ticket)
  }

  func giveBack(_ slot: Int) {
    tickets.storeReleasing(slot, 0)
    pool.giveBack(slot)
  }

  /// What a slot still holds, for the end of the cache; it is empty after this.
  package func drain(_ slot: Int) -> (block: ResultBlock?, attachment: Int32) {
    guard slot < count, tickets.load(slot) != 0 else { return (nil, 0) }
    tickets.store(slot, 0)
    let waiter = waiters[slot]
    return (waiter.block, waiter.attachment)
  }
}
