import Testing

@testable import ReliabilityCore

/// One shard driven as the host does it, in virtual time and with answers that can be compared.
final class IdempotencyHarness {
  enum Answer: Equatable {
    case execute(unknown: Bool, expiresIn: Int64)
    case replay(String, KeyState)
    case inProgress(Int64)
    case mismatch
    case stale
    case done
    case neverFits
    case short(Shortage)
  }

  let shared: IdempotencyShared
  var shard: IdempotencyShard
  let hash: SipHash
  /// What the last call gave, for the next.
  var lease: UInt64 = 0
  var fence: UInt64 = 0
  var ticket: UInt64 = 0
  var pin: UInt64 = 0
  var attachment: Int32 = 0

  static func configuration(
    entries: Int = 8, bytes: Int = 1 << 20, waiters: Int = 8, pins: Int = 8, evicts: Bool = false,
    keepsFailures: Bool = false, ttl: Int64 = 1000, lease: Int64 = 100
  ) -> IdempotencyConfiguration {
    try! IdempotencyConfiguration(
      maxEntries: entries, maxBytes: bytes, maxKeyBytes: 255, maxWaiters: waiters, maxPins: pins,
      evicts: evicts, keepsFailures: keepsFailures, timeToLive: ttl, leaseTime: lease)
  }

  init(_ configuration: IdempotencyConfiguration, seed: UInt64 = 1) {
    shared = try! IdempotencyShared(configuration, seed: seed)
    shard = try! IdempotencyShard(number: 0, configuration, seed: seed)
    hash = SipHash(seed: seed)
  }

  deinit {
    shard.drain(shared)
    for slot in 0..<shared.configuration.maxWaiters {
      let left = shared.waiters.drain(slot)
      left.block?.release(shared)
    }
    for slot in 0..<shared.configuration.maxPins { shared.pins.drain(slot)?.release(shared) }
  }

  private func withKey<T>(_ key: String, _ body: (IdempotencyKey) -> T) -> T {
    let bytes = Array(key.utf8)
    return bytes.withUnsafeBytes { raw in
      body(IdempotencyKey(raw.baseAddress!, raw.count, hash: hash.hash(raw.baseAddress, raw.count)))
    }
  }

  private func text(_ pinned: PinnedResult) -> Answer {
    pin = pinned.pin
    let bytes = UnsafeRawBufferPointer(start: pinned.data, count: pinned.length)
    return .replay(String(decoding: bytes, as: UTF8.self), pinned.state)
  }

  private func execute(_ given: IdempotencyLease) -> Answer {
    lease = given.id
    fence = given.fence
    return .execute(unknown: given.outcomeUnknown, expiresIn: given.expiresIn)
  }

  func begin(_ key: String, fingerprint: UInt64 = 0, joins: Bool = false, _ now: Int64) -> Answer {
    withKey(key) { key in
      do throws(Shortage) {
        switch try shard.begin(key, fingerprint: fingerprint, joins: joins, now: now, shared) {
        case .execute(let lease): return execute(lease)
        case .replay(let pinned): return text(pinned)
        case .inProgress(let ticket, let remaining):
          self.ticket = ticket
          return .inProgress(remaining)
        case .mismatch: return .mismatch
        }
      } catch { return .short(error) }
    }
  }

  func join(_ key: String, fingerprint: UInt64 = 0, _ now: Int64) -> Answer {
    begin(key, fingerprint: fingerprint, joins: true, now)
  }

  func poll(_ ticket: UInt64, _ now: Int64) -> Answer {
    do throws(Shortage) {
      switch try shard.poll(ticket, now: now, shared, attachment: &attachment) {
      case .execute(let lease): return execute(lease)
      case .replay(let pinned): return text(pinned)
      case .inProgress(let remaining): return .inProgress(remaining)
      case .stale: return .stale
      }
    } catch { return .short(error) }
  }

  func leave(_ ticket: UInt64, _ now: Int64) -> Answer {
    shard.leave(ticket, now: now, shared, attachment: &attachment) ? .done : .stale
  }

  func complete(
    _ lease: UInt64, _ text: String, _ now: Int64, state: KeyState = .success
  ) -> Answer {
    guard shard.mayEnd(lease, now: now, shared) else { return .stale }
    let bytes = Array(text.utf8)
    guard bytes.count <= shared.configuration.maxBytes else { return .neverFits }
    while !shared.reserveBytes(bytes.count) {
      guard shard.clearOne(now, shared) else { return .short(.bytes) }
    }
    let block = bytes.withUnsafeBytes { ResultBlock.make($0.baseAddress, $0.count, state)! }
    if shard.complete(lease, block, now: now, shared) { return .done }
    block.release(shared)
    return .stale
  }

  func giveBack(_ lease: UInt64, _ now: Int64) -> Answer {
    shard.giveBack(lease, now: now, shared) ? .done : .stale
  }

  func abandon(_ lease: UInt64, _ now: Int64) -> Answer {
    shard.abandon(lease, now: now, shared) ? .done : .stale
  }

  func renew(_ lease: UInt64, _ time: Int64, _ now: Int64) -> Answer {
    shard.renew(lease, time: time, now: now, shared) ? .done : .stale
  }

  func release(_ pin: UInt64) -> Answer {
    guard let block = shared.pins.release(pin) else { return .stale }
    block.release(shared)
    return .done
  }

  func state(_ key: String, _ now: Int64) -> KeyState {
    withKey(key) { shard.state($0, now: now, shared) }
  }

  func isReady(_ ticket: UInt64) -> Bool? { shard.readiness(of: ticket, shared)?.isReady }

  /// How many waiters the host would be told of.
  func takeChanges() -> Int {
    var count = 0
    while shard.takeChange(shared) != nil { count += 1 }
    return count
  }

  /// Does all chores there are, a few at a time.
  func doAllChores(_ now: Int64) {
    for _ in 0..<(shared.configuration.maxEntries * 2 + 2) { shard.doChores(now, shared) }
  }

  var entries: Int { shared.entries }
  var bytes: Int { shared.bytes }
  var waiters: Int { shared.waiters.used }
  var pins: Int { shared.pins.used }
  var counters: IdempotencyShard.Counters { shard.counters }
}
