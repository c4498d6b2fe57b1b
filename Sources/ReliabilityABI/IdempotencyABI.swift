public import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

func idempotencyDefaults() -> agr_idempotency_config {
  var config = agr_idempotency_config()
  config.struct_size = UInt32(MemoryLayout<agr_idempotency_config>.size)
  config.max_entries = 65_536
  config.max_bytes = 64 << 20
  config.max_key_bytes = 255
  config.max_waiters = 1024
  config.max_pins = 4096
  config.when_full = Int32(AGR_WHEN_FULL_REFUSE)
  config.on_failure = Int32(AGR_ON_FAILURE_FORGET)
  config.ttl_ns = Time.day
  config.lease_ns = Time.minute
  return config
}

/// A cache of the process, or the one in front of a store.
@inline(__always)
func idempotencyHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<IdempotencyCache> {
  if let durable = durableHandle(pointer) { return DurableCache.front(durable) }
  return try handle(pointer, .idempotency, "cache")
}

@inline(__always)
func durableHandle(_ pointer: OpaquePointer?) -> Handle<DurableCache>? {
  handleIfKind(pointer, .durableIdempotency)
}

/// `AGR_ON_FAILURE_*` as a choice to keep failures.
private func readFailureKeeping(_ value: Int32) throws(Failure) -> Bool {
  guard value == AGR_ON_FAILURE_FORGET || value == AGR_ON_FAILURE_KEEP else {
    throw .argument("on_failure", "must be AGR_ON_FAILURE_FORGET or AGR_ON_FAILURE_KEEP")
  }
  return value == AGR_ON_FAILURE_KEEP
}

func readConfiguration(
  _ config: agr_idempotency_config, alwaysEvicts: Bool = false
) throws(Failure) -> IdempotencyConfiguration {
  try requireZero(config.reserved, "reserved")
  return try IdempotencyConfiguration(
    maxEntries: Int(config.max_entries),
    maxBytes: Int(truncatingIfNeeded: config.max_bytes), maxKeyBytes: Int(config.max_key_bytes),
    maxWaiters: Int(config.max_waiters), maxPins: Int(config.max_pins),
    evicts: readEviction(config.when_full) || alwaysEvicts,
    keepsFailures: readFailureKeeping(config.on_failure),
    timeToLive: config.ttl_ns, leaseTime: config.lease_ns)
}

@implementation @_cdecl("agr_idempotency_config_init")
public func agr_idempotency_config_init(
  _ config: UnsafeMutablePointer<agr_idempotency_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, idempotencyDefaults())
}

@implementation @_cdecl("agr_idempotency_create")
public func agr_idempotency_create(
  _ config: UnsafePointer<agr_idempotency_config>?,
  _ out_cache: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_cache, "out_cache")
    out.pointee = nil
    let config = try readStructure(config, defaults: idempotencyDefaults(), "config")
    let engine = try IdempotencyCache(
      readConfiguration(config), hashSeed: seedOrRandom(config.seed), random: processRandom())
    out.pointee = try makeHandle(.idempotency, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_idempotency_destroy")
public func agr_idempotency_destroy(_ cache: OpaquePointer?) {
  if let durable = durableHandle(cache) {
    destroy(durable, .durableIdempotency)
  } else if let cache = try? idempotencyHandle(cache) {
    destroy(cache, .idempotency)
  }
}

@implementation @_cdecl("agr_idempotency_state")
public func agr_idempotency_state(
  _ cache: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ out_state: UnsafeMutablePointer<Int32>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_state_at(cache, key, key_length, now(), out_state, error)
}

@implementation @_cdecl("agr_idempotency_state_at")
public func agr_idempotency_state_at(
  _ handle: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ now_ns: Int64,
  _ out_state: UnsafeMutablePointer<Int32>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(handle)
    let out = try required(out_state, "out_state")
    out.pointee = 0
    if let durable = durableHandle(handle) {
      return try durable.pointee.state(key, key_length, now: now_ns, out, error)
    }
    let state = try cache.pointee.state(key, key_length, now: now_ns)
    out.pointee = Int32(state.rawValue)
    return state == .absent ? AGR_NOT_FOUND : AGR_OK
  }
}

@implementation @_cdecl("agr_idempotency_release")
public func agr_idempotency_release(
  _ cache: OpaquePointer?, _ pin: UInt64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(cache)
    return cache.pointee.release(pin) ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_idempotency_snapshot_read")
public func agr_idempotency_snapshot_read(
  _ cache: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_idempotency_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(cache)
    let out = try checkOutput(out_snapshot, "out_snapshot")
    let sum = cache.pointee.counters()
    writeStructure(
      agr_idempotency_snapshot(
        struct_size: 0,
        waiters: UInt32(truncatingIfNeeded: cache.pointee.shared.waiters.used),
        entries: UInt64(truncatingIfNeeded: cache.pointee.shared.entries),
        bytes: UInt64(truncatingIfNeeded: cache.pointee.shared.bytes),
        pins: UInt64(truncatingIfNeeded: cache.pointee.shared.pins.used),
        executed: sum.executed, replayed: sum.replayed, joined: sum.joined,
        promoted: sum.promoted, leases_lost: sum.leasesLost, mismatched: sum.mismatched,
        evicted: sum.evicted, refused: cache.pointee.refused.load(ordering: .relaxed),
        illegal: sum.illegal), to: out)
    return AGR_OK
  }
}
