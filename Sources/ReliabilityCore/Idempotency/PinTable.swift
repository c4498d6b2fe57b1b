/// A result that stays where it is until its pin is released.
package struct PinnedResult {
  package let data: UnsafeRawPointer
  package let length: Int
  package let pin: UInt64
  package let state: KeyState
}

/// The pins that are out. A pin is `generation << 20 | slot`; it never expires, and is released
/// exactly once. Lock-free.
package struct PinTable: ~Copyable {
  package static let maximumCount = 1 << 20

  private static let slotBits: UInt64 = 20
  private static let generationMask: UInt64 = (1 << 44) - 1

  private let pool: SlotPool
  /// Two words a slot: `generation << 1 | busy`, and the block's address.
  private let slots: AtomicWords
  private let count: Int
  private let seed: UInt64

  package init(count: Int, seed: UInt64) throws(Failure) {
    let pool = try SlotPool(count: count)
    let slots = try AtomicWords(count: Swift.max(1, count) &* 2)
    self.pool = pool
    self.slots = slots
    self.count = count
    self.seed = seed
  }

  package var used: Int { pool.used }

  /// Pins a block, or `nil` when all pins are out.
  package func pin(_ block: ResultBlock) -> PinnedResult? {
    guard let slot = pool.take() else { return nil }
    let word = slot &* 2
    let tag = slots.load(word)
    // A slot's first generation is random, so that a pin of another cache is not taken for ours.
    let last = tag == 0 ? SplitMix64.mix(seed &+ UInt64(truncatingIfNeeded: slot)) : tag &>> 1
    var generation = (last &+ 1) & PinTable.generationMask
    if generation == 0 { generation = 1 }
    block.retain()
    slots.store(word &+ 1, block.address)
    slots.storeReleasing(word, generation &<< 1 | 1)
    return PinnedResult(
      data: block.data, length: block.length,
      pin: generation &<< PinTable.slotBits | UInt64(truncatingIfNeeded: slot), state: block.state)
  }

  /// Takes the pin off; `nil` when it is stale. The caller drops the block's reference.
  package func release(_ pin: UInt64) -> ResultBlock? {
    let slot = Int(truncatingIfNeeded: pin & ((1 << PinTable.slotBits) &- 1))
    guard slot < count else { return nil }
    let word = slot &* 2
    let tag = (pin &>> PinTable.slotBits) &<< 1 | 1
    guard slots.loadAcquiring(word) == tag else { return nil }
    let block = ResultBlock(address: slots.load(word &+ 1))
    guard slots.exchange(word, tag, tag & ~1) else { return nil }
    pool.giveBack(slot)
    return block
  }

  /// The block that a slot still pins, for the end of the cache; takes the pin off.
  package func drain(_ slot: Int) -> ResultBlock? {
    guard slot < count, slots.load(slot &* 2) & 1 == 1 else { return nil }
    slots.store(slot &* 2, 0)
    return ResultBlock(address: slots.load(slot &* 2 &+ 1))
  }
}
