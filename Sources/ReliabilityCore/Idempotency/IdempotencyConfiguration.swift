/// What an idempotency cache is told at its creation, checked.
package struct IdempotencyConfiguration {
  package let maxEntries: Int
  package let maxBytes: Int
  package let maxKeyBytes: Int
  package let maxWaiters: Int
  package let maxPins: Int
  package let evicts: Bool
  package let keepsFailures: Bool
  package let timeToLive: Int64
  package let leaseTime: Int64

  package init(
    maxEntries: Int, maxBytes: Int, maxKeyBytes: Int, maxWaiters: Int, maxPins: Int, evicts: Bool,
    keepsFailures: Bool, timeToLive: Int64, leaseTime: Int64
  ) throws(Failure) {
    guard maxEntries >= 1 && maxEntries <= 1 << 26 else {
      throw .argument("max_entries", "must be 1 ... 2^26")
    }
    guard maxBytes >= 1 && maxBytes <= 1 << 50 else {
      throw .argument("max_bytes", "must be 1 ... 2^50")
    }
    guard maxKeyBytes >= 1 && maxKeyBytes <= 1 << 20 else {
      throw .argument("max_key_bytes", "must be 1 ... 1,048,576")
    }
    guard maxWaiters >= 0 && maxWaiters <= WaiterTable.maximumCount else {
      throw .argument("max_waiters", "must be 0 ... 1,048,576")
    }
    guard maxPins >= 1 && maxPins <= PinTable.maximumCount else {
      throw .argument("max_pins", "must be 1 ... 1,048,576")
    }
    guard timeToLive >= 1 && timeToLive <= Time.max else {
      throw .argument("ttl_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard leaseTime >= 1 && leaseTime <= Time.max else {
      throw .argument("lease_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    self.maxEntries = maxEntries
    self.maxBytes = maxBytes
    self.maxKeyBytes = maxKeyBytes
    self.maxWaiters = maxWaiters
    self.maxPins = maxPins
    self.evicts = evicts
    self.keepsFailures = keepsFailures
    self.timeToLive = timeToLive
    self.leaseTime = leaseTime
  }

  /// One for a small cache, so that its bounds and its order of eviction are those of the whole.
  package var shardCount: Int {
    if maxEntries < 1024 { return 1 }
    return maxEntries < 4096 ? 4 : 16
  }

  /// Keys spread by their hash and not evenly, so a shard has room for more than its share.
  package var slotsPerShard: Int {
    let shards = shardCount
    if shards == 1 { return maxEntries }
    let share = (maxEntries &+ shards &- 1) / shards
    return Swift.min(maxEntries, share &+ share / 4 &+ 64)
  }
}
