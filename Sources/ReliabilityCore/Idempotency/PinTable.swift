/// A result that stays where it is until its pin is released.
package struct PinnedResult {
  package let data: UnsafeRawPointer
  package let length: Int
  package let pin: UInt64
  package let state: KeyState

  package init(data: UnsafeRawPointer, length: Int, pin: UInt64, state: KeyState) {
    self.data = data
    self.length = length
    self.pin = pin
    self.state = state
  }
}

/// The pins that are out. A pin is `generation << 20 | slot`; it never expires, and is released
/// exactly once. Lock-free: a slot is taken and freed by one exchange of its tag.
package struct PinTable: ~Copyable {
  package static let maximumCount = 1 << 20

  private static let slotBits: UInt64 = 20
  private static let generationMask: UInt64 = (1 << 44) - 1
  /// A tag is the generation with one of these in its two lowest bits.
  private static let free: UInt64 = 0
  private static let taking: UInt64 = 1
  private static let busy: UInt64 = 2
  private static let stateMask: UInt64 = 3

  /// Two words a slot: its tag, and the block's address.
  private let slots: AtomicWords
  private let hints: ThreadHints
  private let memory: Block
  private let count: Int
  private let seed: UInt64

  package init(count: Int, seed: UInt64) throws(Failure) {
    let memory = try Block(words: ThreadHints.wordCount &+ count &* 2)
    hints = ThreadHints(count: count, memory.words)
    slots = memory.words.from(ThreadHints.wordCount)
    self.memory = memory
    self.count = count
    self.seed = seed
    hints.settle(0)
  }

  /// How many are out. Looks at every slot.
  package var used: Int {
    var used = 0
    for slot in 0..<count where slots.load(slot &* 2) & PinTable.stateMask != PinTable.free {
      used &+= 1
    }
    return used
  }

  /// Pins a block, or `nil` when all pins are out.
  package func pin(_ block: ResultBlock) -> PinnedResult? {
    let row = ThreadHints.row()
    var slot = hints[row]
    for _ in 0..<count {
      if slot >= count { slot = 0 }
      let word = slot &* 2
      let tag = slots.loadAcquiring(word)
      if tag & PinTable.stateMask == PinTable.free {
        let generation = PinTable.generation(after: tag, slot, seed)
        if slots.exchange(word, tag, generation &<< 2 | PinTable.taking) {
          block.retain()
          slots.store(word &+ 1, block.address)
          slots.storeReleasing(word, generation &<< 2 | PinTable.busy)
          hints[row] = slot &+ 1
          return PinnedResult(
            data: block.data, length: block.length,
            pin: generation &<< PinTable.slotBits | UInt64(truncatingIfNeeded: slot),
            state: block.state)
        }
      }
      slot &+= 1
    }
    return nil
  }

  /// The generation that follows a free tag, never 0. A slot's first one is random, so that a pin of another
  /// cache is not taken for ours.
  @inline(__always)
  private static func generation(after tag: UInt64, _ slot: Int, _ seed: UInt64) -> UInt64 {
    let last = tag == 0 ? SplitMix64.mix(seed &+ UInt64(truncatingIfNeeded: slot)) : tag &>> 2
    let generation = (last &+ 1) & generationMask
    return generation == 0 ? 1 : generation
  }

  /// Takes the pin off; `nil` when it is stale. The caller drops the block's reference.
  package func release(_ pin: UInt64) -> ResultBlock? {
    let slot = Int(truncatingIfNeeded: pin & ((1 << PinTable.slotBits) &- 1))
    guard slot < count else { return nil }
    let word = slot &* 2
    let tag = (pin &>> PinTable.slotBits) &<< 2 | PinTable.busy
    guard slots.loadAcquiring(word) == tag else { return nil }
    let block = ResultBlock(address: slots.load(word &+ 1))
    guard slots.exchange(word, tag, tag & ~PinTable.stateMask) else { return nil }
    hints[ThreadHints.row()] = slot
    return block
  }

  /// The block that a slot still pins, for the end of the cache; takes the pin off.
  package func drain(_ slot: Int) -> ResultBlock? {
    guard slot < count, slots.load(slot &* 2) & PinTable.stateMask == PinTable.busy else {
      return nil
    }
    slots.store(slot &* 2, 0)
    return ResultBlock(address: slots.load(slot &* 2 &+ 1))
  }
}
