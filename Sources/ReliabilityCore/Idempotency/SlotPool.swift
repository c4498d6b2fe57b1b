import Synchronization

/// Numbers below a bound, each given to one at a time. Lock-free and exact: it refuses only when
/// all of them are out.
///
/// A Treiber stack of those given back, with a tag in its head that changes at every operation (so
/// that a head which went and came back is noticed), in front of a count of those never used.
package struct SlotPool: ~Copyable {
  private let next: AtomicWords
  private let memory: Block
  /// `tag << 32 | slot + 1`; a low half of 0 is the empty stack.
  private let head: Atomic<UInt64>
  private let fresh: Atomic<Int>
  private let inUse: Atomic<Int>
  private let count: Int

  private static let slotMask: UInt64 = (1 << 32) - 1
  private static let tagStep: UInt64 = 1 << 32

  package init(count: Int) throws(Failure) {
    let memory = try Block(words: Swift.max(1, count))
    next = memory.words
    self.memory = memory
    self.count = count
    head = Atomic(0)
    fresh = Atomic(0)
    inUse = Atomic(0)
  }

  package var used: Int { inUse.load(ordering: .relaxed) }

  /// A slot, or `nil` when all are out. What its last owner wrote is visible to the new one.
  package func take() -> Int? {
    while true {
      let seen = head.load(ordering: .acquiring)
      let low = seen & SlotPool.slotMask
      if low == 0 { break }
      let slot = Int(truncatingIfNeeded: low) &- 1
      let desired = ((seen & ~SlotPool.slotMask) &+ SlotPool.tagStep) | next.load(slot)
      if head.compareExchange(
        expected: seen, desired: desired, ordering: .acquiringAndReleasing
      ).exchanged {
        inUse.wrappingAdd(1, ordering: .relaxed)
        return slot
      }
    }
    var unused = fresh.load(ordering: .relaxed)
    while unused < count {
      let exchange = fresh.compareExchange(
        expected: unused, desired: unused &+ 1, ordering: .relaxed)
      if exchange.exchanged {
        inUse.wrappingAdd(1, ordering: .relaxed)
        return unused
      }
      unused = exchange.original
    }
    return nil
  }

  package func giveBack(_ slot: Int) {
    let low = UInt64(truncatingIfNeeded: slot &+ 1)
    inUse.wrappingSubtract(1, ordering: .relaxed)
    while true {
      let seen = head.load(ordering: .relaxed)
      next.store(slot, seen & SlotPool.slotMask)
      let desired = ((seen & ~SlotPool.slotMask) &+ SlotPool.tagStep) | low
      if head.compareExchange(
        expected: seen, desired: desired, ordering: .acquiringAndReleasing
      ).exchanged {
        return
      }
    }
  }
}
