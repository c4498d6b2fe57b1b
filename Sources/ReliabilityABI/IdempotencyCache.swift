import Platform
import ReliabilityCore
import Synchronization

/// The idempotency cache as the entry points and the policy use it: the core's shards, each under a
/// lock, and the threads and descriptors that wait.
///
/// - `begin`, `join` ask to execute a key: `.execute(lease)`, `.replay(pinned)`,
///   `.inProgress(ticket, leaseRemaining)` (ticket 0 with `begin`), `.mismatch`.
/// - `poll`, `wait` ask what has become of a ticket: `.execute`, `.replay` (both end it),
///   `.inProgress(leaseRemaining)`, `.stale`. `leave` gives it up, `descriptor` is its eventfd.
/// - `complete`, `fail`, `giveBack`, `abandon` end a lease, `renew` extends it; `false`: stale.
/// - `release` unpins; `false`: stale.
///
/// Any thread may call any of them at any time. `now` is checked, and on the caller's scale.
/// Everything that a caller can get wrong, and every want of a place, is thrown as a `Failure`.
struct IdempotencyCache: ~Copyable {
  typealias BeginAnswer = IdempotencyShard.BeginAnswer
  typealias TicketAnswer = IdempotencyShard.TicketAnswer

  let shared: IdempotencyShared
  let shards: IdempotencyShards
  let locks: ForkSafeLocks
  let waitWords: WaitWords
  let refused: Atomic<UInt64>
  private let timeline: Timeline
  private let timelineMemory: Block
  private let keyHash: SipHash
  private let fingerprintHash: SipHash

  /// `hashSeed` is for the hashes of keys; `random` makes the ids of leases, tickets and pins
  /// differ from those of other caches.
  init(
    _ configuration: IdempotencyConfiguration, hashSeed: UInt64, random: UInt64
  ) throws(Failure) {
    let shared = try IdempotencyShared(configuration, seed: random)
    let shards = try IdempotencyShards(configuration, seed: SplitMix64.mix(random))
    let locks = try ForkSafeLocks(count: configuration.shardCount)
    let waitWords = try WaitWords(count: configuration.maxWaiters)
    let timelineMemory = try Block(words: Timeline.wordCount)
    self.shared = shared
    self.shards = shards
    self.locks = locks
    self.waitWords = waitWords
    refused = Atomic(0)
    timeline = Timeline(timelineMemory.words)
    self.timelineMemory = timelineMemory
    keyHash = SipHash(seed: hashSeed)
    fingerprintHash = SipHash(seed: ~hashSeed)
  }

  deinit {
    for number in 0..<shards.count { shards[number].pointee.drain(shared) }
    for slot in 0..<shared.configuration.maxWaiters {
      let left = shared.waiters.drain(slot)
      left.block?.release(shared)
      IdempotencyCache.close(left.attachment)
    }
    for slot in 0..<shared.configuration.maxPins { shared.pins.drain(slot)?.release(shared) }
  }

  // MARK: - Asking for a key

  func begin(
    _ key: UnsafeRawPointer?, _ keyLength: Int, fingerprint: UnsafeRawPointer?,
    _ fingerprintLength: Int, now: Int64
  ) throws(Failure) -> BeginAnswer {
    try ask(key, keyLength, fingerprint, fingerprintLength, joins: false, now)
  }

  /// As `begin`; with `.inProgress` the caller has joined.
  func join(
    _ key: UnsafeRawPointer?, _ keyLength: Int, fingerprint: UnsafeRawPointer?,
    _ fingerprintLength: Int, now: Int64
  ) throws(Failure) -> BeginAnswer {
    try ask(key, keyLength, fingerprint, fingerprintLength, joins: true, now)
  }

  private func ask(
    _ bytes: UnsafeRawPointer?, _ length: Int, _ fingerprint: UnsafeRawPointer?,
    _ fingerprintLength: Int, joins: Bool, _ now: Int64
  ) throws(Failure) -> BeginAnswer {
    let key = try checkedKey(bytes, length)
    let print = try checkedFingerprint(fingerprint, fingerprintLength)
    let time = try self.time(now)
    let number = IdempotencyShard.number(of: key.hash, count: shards.count)
    while true {
      do throws(Shortage) {
        return try under(number) { shard, shared throws(Shortage) in
          try shard.begin(key, fingerprint: print, joins: joins, now: time, shared)
        }
      } catch {
        // A bound of the whole cache may be reached by what lies under other locks.
        if error == .entries || error == .bytes, length <= shared.configuration.maxBytes,
          clearElsewhere(number, time)
        {
          continue
        }
        throw refuse(error)
      }
    }
  }

  /// The state of a key; `.absent` when it is not known.
  func state(
    _ bytes: UnsafeRawPointer?, _ length: Int, now: Int64
  ) throws(Failure) -> KeyState {
    let key = try checkedKey(bytes, length)
    let time = try self.time(now)
    return under(IdempotencyShard.number(of: key.hash, count: shards.count)) { shard, shared in
      shard.state(key, now: time, shared)
    }
  }

  /// Unpins a result; says `false` when the pin is stale.
  func release(_ pin: UInt64) -> Bool {
    guard let block = shared.pins.release(pin) else { return false }
    block.release(shared)
    return true
  }

  // MARK: - Arguments

  func checkedKey(
    _ bytes: UnsafeRawPointer?, _ length: Int
  ) throws(Failure) -> IdempotencyKey {
    guard let bytes else { throw .argument("key", "must not be NULL") }
    guard length >= 1 && length <= shared.configuration.maxKeyBytes else {
      throw .argument("key_length", "must be 1 ... max_key_bytes")
    }
    return IdempotencyKey(bytes, length, hash: keyHash.hash(bytes, length))
  }

  /// The hash of a fingerprint; 0 for none.
  private func checkedFingerprint(
    _ bytes: UnsafeRawPointer?, _ length: Int
  ) throws(Failure) -> UInt64 {
    guard length >= 0 && length <= 1 << 30 else {
      throw .argument("fingerprint_length", "must be 0 ... 2^30")
    }
    guard length > 0 else { return 0 }
    guard let bytes else { throw .argument("fingerprint", "must not be NULL with a length") }
    let hash = fingerprintHash.hash(bytes, length)
    return hash == 0 ? 1 : hash
  }

  /// The engine's time. It stays below the end of time, so that what lasts for ever is never due.
  func time(_ now: Int64) throws(Failure) -> Int64 {
    try requireTime(now, "now_ns")
    return Swift.min(timeline.read(now), Time.max &- 1)
  }

  /// Counts a refusal for want of a place.
  func refuse(_ shortage: Shortage) -> Failure {
    if shortage != .memory { refused.wrappingAdd(1, ordering: .relaxed) }
    return shortage.failure
  }
}

/// The shards in their places, where they stay.
struct IdempotencyShards: ~Copyable {
  private let base: UnsafeMutablePointer<IdempotencyShard>
  let count: Int

  init(_ configuration: IdempotencyConfiguration, seed: UInt64) throws(Failure) {
    let count = configuration.shardCount
    guard let memory = platform_allocate(count &* MemoryLayout<IdempotencyShard>.stride) else {
      throw .noMemory
    }
    let base = memory.bindMemory(to: IdempotencyShard.self, capacity: count)
    var stream = SplitMix64(seed: seed)
    for number in 0..<count {
      do throws(Failure) {
        let shard = try IdempotencyShard(number: number, configuration, seed: stream.next())
        (base + number).initialize(to: shard)
      } catch {
        base.deinitialize(count: number)
        platform_free(base)
        throw error
      }
    }
    self.base = base
    self.count = count
  }

  deinit {
    base.deinitialize(count: count)
    platform_free(base)
  }

  /// The shard with a number below the count, to be touched under its lock.
  subscript(number: Int) -> UnsafeMutablePointer<IdempotencyShard> { base + number }
}
