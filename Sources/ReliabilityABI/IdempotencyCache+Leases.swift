import Platform
import ReliabilityCore

// The ends of a run.

extension IdempotencyCache {
  /// Ends a lease with its result.
  func complete(
    _ lease: UInt64, _ data: UnsafeRawPointer?, _ length: Int, now: Int64
  ) throws(Failure) -> Bool {
    try end(lease, data, length, .success, now)
  }

  /// Ends a lease without success; `data` is kept if failures are.
  func fail(
    _ lease: UInt64, _ data: UnsafeRawPointer?, _ length: Int, now: Int64
  ) throws(Failure) -> Bool {
    if shared.configuration.keepsFailures { return try end(lease, data, length, .failed, now) }
    try IdempotencyCache.requireData(data, length)
    return try giveBack(lease, now: now)
  }

  /// Ends a lease whose run had no effect, whatever is done with failures: the first who waits is
  /// promoted, or the key is forgotten.
  func giveBack(_ lease: UInt64, now: Int64) throws(Failure) -> Bool {
    let time = try self.time(now)
    guard let number = shard(of: lease) else { return false }
    return under(number) { shard, shared in shard.giveBack(lease, now: time, shared) }
  }

  /// Ends a lease whose run may have had its effect.
  func abandon(_ lease: UInt64, now: Int64) throws(Failure) -> Bool {
    let time = try self.time(now)
    guard let number = shard(of: lease) else { return false }
    return under(number) { shard, shared in shard.abandon(lease, now: time, shared) }
  }

  /// Extends a lease to `leaseTime` from now; 0: as configured.
  func renew(_ lease: UInt64, leaseTime: Int64, now: Int64) throws(Failure) -> Bool {
    guard leaseTime >= 0 && leaseTime <= Time.max else {
      throw .argument("lease_ns", "must be 0 ... AGR_TIME_MAX_NS nanoseconds")
    }
    let time = try self.time(now)
    guard let number = shard(of: lease) else { return false }
    let length = leaseTime == 0 ? shared.configuration.leaseTime : leaseTime
    return under(number) { shard, shared in shard.renew(lease, time: length, now: time, shared) }
  }

  private func end(
    _ lease: UInt64, _ data: UnsafeRawPointer?, _ length: Int, _ state: KeyState, _ now: Int64
  ) throws(Failure) -> Bool {
    try IdempotencyCache.requireData(data, length)
    let time = try self.time(now)
    guard let number = shard(of: lease) else { return false }
    return try end(lease, data, length, state, number, time, shared.configuration.timeToLive) {
      true
    }
  }

  /// Ends a lease with its result, which `keep` says whether to keep, after room was made for it.
  func end(
    _ lease: UInt64, _ data: UnsafeRawPointer?, _ length: Int, _ state: KeyState, _ number: Int,
    _ time: Int64, _ timeToLive: Int64, _ keep: () -> Bool
  ) throws(Failure) -> Bool {
    // Nobody else's result makes room for one that is too late.
    guard under(number, { shard, shared in shard.mayEnd(lease, now: time, shared) }) else {
      return false
    }
    // A length beyond Int.max arrives as a negative one.
    guard length >= 0 && length <= shared.configuration.maxBytes else {
      throw Failure(.neverFits, "length", "more than max_bytes: it could never be kept")
    }
    guard reserve(length, number, time) else { throw refuse(.bytes) }
    // Copied before the lock is taken, so that a large result holds up nobody.
    guard let block = ResultBlock.make(data, length, state) else {
      shared.releaseBytes(length)
      throw .noMemory
    }
    let isKept =
      keep()
      && under(number) { shard, shared in
        shard.complete(lease, block, timeToLive: timeToLive, now: time, shared)
      }
    if isKept { return true }
    block.release(shared)
    return false
  }

  /// Counts bytes, and clears others away for them as far as that is allowed. The lock is
  /// released after each, so that a large result in the place of many small ones holds up nobody.
  private func reserve(_ bytes: Int, _ number: Int, _ time: Int64) -> Bool {
    while !shared.reserveBytes(bytes) {
      let cleared = under(number) { shard, shared in shard.clearOne(time, shared) }
      guard cleared || clearElsewhere(number, time) else { return false }
    }
    return true
  }

  static func requireData(_ data: UnsafeRawPointer?, _ length: Int) throws(Failure) {
    guard data != nil || length == 0 else {
      throw .argument("data", "must not be NULL with a length")
    }
  }

  /// Which shard a lease could be of.
  func shard(of lease: UInt64) -> Int? {
    let number = IdempotencyLease.shard(of: lease)
    return number < shards.count ? number : nil
  }
}
