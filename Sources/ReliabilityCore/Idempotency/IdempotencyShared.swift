import Synchronization

/// What the shards of a cache have in common: its bounds, the fence, waiters and pins. Lock-free.
package struct IdempotencyShared: ~Copyable {
  package let configuration: IdempotencyConfiguration
  package let waiters: WaiterTable
  package let pins: PinTable
  private let entryCount: Atomic<Int>
  private let byteCount: Atomic<Int>
  private let fence: Atomic<UInt64>

  package init(_ configuration: IdempotencyConfiguration, seed: UInt64) throws(Failure) {
    var stream = SplitMix64(seed: seed)
    let waiters = try WaiterTable(count: configuration.maxWaiters, seed: stream.next())
    let pins = try PinTable(count: configuration.maxPins, seed: stream.next())
    self.configuration = configuration
    self.waiters = waiters
    self.pins = pins
    entryCount = Atomic(0)
    byteCount = Atomic(0)
    fence = Atomic(0)
  }

  package var entries: Int { entryCount.load(ordering: .relaxed) }
  package var bytes: Int { byteCount.load(ordering: .relaxed) }

  /// The fence of a new lease, higher than all before.
  func nextFence() -> UInt64 { fence.wrappingAdd(1, ordering: .relaxed).newValue }

  func reserveEntry() -> Bool {
    IdempotencyShared.reserve(1, entryCount, configuration.maxEntries)
  }

  func releaseEntry() { entryCount.wrappingSubtract(1, ordering: .relaxed) }

  /// Counts `bytes`, which is not negative, unless they exceed the bound.
  package func reserveBytes(_ bytes: Int) -> Bool {
    IdempotencyShared.reserve(bytes, byteCount, configuration.maxBytes)
  }

  package func releaseBytes(_ bytes: Int) {
    byteCount.wrappingSubtract(bytes, ordering: .relaxed)
  }

  private static func reserve(_ amount: Int, _ count: borrowing Atomic<Int>, _ bound: Int) -> Bool {
    var seen = count.load(ordering: .relaxed)
    while amount <= bound &- seen {
      let exchange = count.compareExchange(
        expected: seen, desired: seen &+ amount, ordering: .relaxed)
      if exchange.exchanged { return true }
      seen = exchange.original
    }
    return false
  }
}

/// What there was no place for.
package enum Shortage: Error {
  case entries, bytes, waiters, pins, memory

  package var failure: Failure {
    switch self {
    case .entries: Failure(.capacity, "max_entries", "no more keys can be kept now")
    case .bytes: Failure(.capacity, "max_bytes", "no more of keys and results can be kept now")
    case .waiters: Failure(.capacity, "max_waiters", "no more callers can join now")
    case .pins: Failure(.capacity, "max_pins", "no more results can be pinned now")
    case .memory: .noMemory
    }
  }
}
