public import CAutoGLMReliability
import Platform
import ReliabilityCore

func keyedDefaults() -> agr_keyed_limiter_config {
  var config = agr_keyed_limiter_config()
  config.struct_size = UInt32(MemoryLayout<agr_keyed_limiter_config>.size)
  config.max_keys = 65_536
  config.refill_interval_ns = Time.second
  config.max_debt_tokens = -1
  config.reservation_timeout_ns = 10 * Time.minute
  config.max_reservations = 1024
  config.max_key_bytes = 1024
  return config
}

@inline(__always)
private func keyedHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<KeyedLimiter> {
  try handle(pointer, .keyedLimiter, "limiter")
}

/// `AGR_WHEN_FULL_*` as a choice to evict.
func readEviction(_ value: Int32) throws(Failure) -> Bool {
  guard value == AGR_WHEN_FULL_REFUSE || value == AGR_WHEN_FULL_EVICT else {
    throw .argument("when_full", "must be AGR_WHEN_FULL_REFUSE or AGR_WHEN_FULL_EVICT")
  }
  return value == AGR_WHEN_FULL_EVICT
}

func readKeyedConfiguration(
  _ config: agr_keyed_limiter_config
) throws(Failure) -> KeyedLimiter.Configuration {
  try KeyedLimiter.Configuration(
    rate: KeyedRate(
      capacity: config.capacity, maxDebt: config.max_debt_tokens, tokens: config.refill_tokens,
      interval: config.refill_interval_ns),
    maxKeys: config.max_keys, maxReservations: Int(config.max_reservations),
    reservationTimeout: config.reservation_timeout_ns, evict: readEviction(config.when_full),
    maxKeyBytes: config.max_key_bytes, observe: readFlag(config.observe, "observe"))
}

@implementation @_cdecl("agr_keyed_limiter_config_init")
public func agr_keyed_limiter_config_init(
  _ config: UnsafeMutablePointer<agr_keyed_limiter_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, keyedDefaults())
}

@implementation @_cdecl("agr_keyed_limiter_create")
public func agr_keyed_limiter_create(
  _ config: UnsafePointer<agr_keyed_limiter_config>?,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_limiter, "out_limiter")
    out.pointee = nil
    let config = try readStructure(config, defaults: keyedDefaults(), "config")
    let engine = try KeyedLimiter(
      readKeyedConfiguration(config), seed: seedOrRandom(config.seed), permitSeed: processRandom(),
      now: 0)
    out.pointee = try makeHandle(.keyedLimiter, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_keyed_limiter_create_in_region")
public func agr_keyed_limiter_create_in_region(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_keyed_limiter_config>?,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_limiter, "out_limiter")
    out.pointee = nil
    let config = try readStructure(config, defaults: keyedDefaults(), "config")
    var configuration = try readKeyedConfiguration(config)
    configuration.seed = config.seed
    out.pointee = try openShared(
      KeyedLimiter.self, .keyedLimiter, region, name, configuration, now: 0
    ) { if $0.seed == 0 { $0.seed = $1 } }
    return AGR_OK
  }
}

@implementation @_cdecl("agr_keyed_limiter_destroy")
public func agr_keyed_limiter_destroy(_ limiter: OpaquePointer?) {
  if let stored = storedKeyedLimiter(limiter) { return destroy(stored, .storedKeyedLimiter) }
  guard let limiter = try? keyedHandle(limiter) else { return }
  destroy(limiter, .keyedLimiter)
}

@implementation @_cdecl("agr_keyed_limiter_try_acquire")
public func agr_keyed_limiter_try_acquire(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ tokens: Int64,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_try_acquire_at(
    limiter, key, key_length, tokens, now(), out_retry_after_ns, error)
}

@implementation @_cdecl("agr_keyed_limiter_try_acquire_at")
public func agr_keyed_limiter_try_acquire_at(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ tokens: Int64,
  _ now_ns: Int64, _ out_retry_after_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guard let engine: Handle<KeyedLimiter> = handleIfKind(limiter, .keyedLimiter) else {
    return tryAcquireKeyInStore(limiter, key, key_length, tokens, out_retry_after_ns, error)
  }
  return guarded(error) { () throws(Failure) in
    out_retry_after_ns?.pointee = 0
    let tag = try engine.pointee.tag(key, key_length)
    switch try engine.pointee.tryAcquire(tag, tokens, now: now_ns) {
    case .admitted: return AGR_OK
    case .limited(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_LIMITED
    }
  }
}

@implementation @_cdecl("agr_keyed_limiter_acquire")
public func agr_keyed_limiter_acquire(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ tokens: Int64,
  _ timeout_ns: Int64, _ out_retry_after_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    out_retry_after_ns?.pointee = 0
    try requireTimeOrForever(timeout_ns, "timeout_ns")
    if let stored = storedKeyedLimiter(limiter) {
      return try stored.pointee.acquire(
        stored.pointee.key(key, key_length), tokens, maxWait: timeout_ns, out_retry_after_ns,
        error)
    }
    let limiter = try keyedHandle(limiter)
    let tag = try limiter.pointee.tag(key, key_length)
    let start = systemNow()
    switch try limiter.pointee.take(tag, tokens, maxWait: timeout_ns, now: start) {
    case .granted(let wait, _):
      if wait > 0 { platform_sleep_until_ns(Time.add(start, wait)) }
      return AGR_OK
    case .limited(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_LIMITED
    }
  }
}

@implementation @_cdecl("agr_keyed_limiter_reserve")
public func agr_keyed_limiter_reserve(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ tokens: Int64,
  _ max_wait_ns: Int64, _ out_reservation: UnsafeMutablePointer<agr_reservation>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_reserve_at(
    limiter, key, key_length, tokens, max_wait_ns, now(), out_reservation, out_retry_after_ns,
    error)
}

@implementation @_cdecl("agr_keyed_limiter_reserve_at")
public func agr_keyed_limiter_reserve_at(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ tokens: Int64,
  _ max_wait_ns: Int64, _ now_ns: Int64,
  _ out_reservation: UnsafeMutablePointer<agr_reservation>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_reservation, "out_reservation")
    out.pointee = agr_reservation()
    out_retry_after_ns?.pointee = 0
    if let stored = storedKeyedLimiter(limiter) {
      return try stored.pointee.reserve(
        stored.pointee.key(key, key_length), tokens, maxWait: max_wait_ns, now: now_ns, out,
        out_retry_after_ns, error)
    }
    let limiter = try keyedHandle(limiter)
    let tag = try limiter.pointee.tag(key, key_length)
    return answer(
      try limiter.pointee.reserve(tag, tokens, maxWait: max_wait_ns, now: now_ns), out,
      out_retry_after_ns)
  }
}

@implementation @_cdecl("agr_keyed_limiter_cancel")
public func agr_keyed_limiter_cancel(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_cancel_at(limiter, permit, now(), error)
}

@implementation @_cdecl("agr_keyed_limiter_cancel_at")
public func agr_keyed_limiter_cancel_at(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_settle_at(limiter, permit, 0, now_ns, error)
}

@implementation @_cdecl("agr_keyed_limiter_settle")
public func agr_keyed_limiter_settle(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ actual_tokens: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_settle_at(limiter, permit, actual_tokens, now(), error)
}

@implementation @_cdecl("agr_keyed_limiter_settle_at")
public func agr_keyed_limiter_settle_at(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ actual_tokens: Int64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    if let stored = storedKeyedLimiter(limiter) {
      try requireTime(now_ns, "now_ns")
      return try stored.pointee.settle(permit, actual: actual_tokens, now: now_ns)
        ? AGR_OK : AGR_STALE
    }
    let limiter = try keyedHandle(limiter)
    return try limiter.pointee.settle(permit, actual: actual_tokens, now: now_ns)
      ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_keyed_limiter_available")
public func agr_keyed_limiter_available(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ out_tokens: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_available_at(limiter, key, key_length, now(), out_tokens, error)
}

@implementation @_cdecl("agr_keyed_limiter_available_at")
public func agr_keyed_limiter_available_at(
  _ limiter: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int, _ now_ns: Int64,
  _ out_tokens: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_tokens, "out_tokens")
    if let stored = storedKeyedLimiter(limiter) {
      return stored.pointee.available(try stored.pointee.key(key, key_length), out, error)
    }
    let limiter = try keyedHandle(limiter)
    let tag = try limiter.pointee.tag(key, key_length)
    out.pointee = try limiter.pointee.available(tag, now: now_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_keyed_limiter_reconfigure")
public func agr_keyed_limiter_reconfigure(
  _ limiter: OpaquePointer?, _ config: UnsafePointer<agr_keyed_limiter_config>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    guard storedKeyedLimiter(limiter) == nil else {
      throw Failure(.state, "limiter", "a limiter in a store is created anew to be changed")
    }
    let limiter = try keyedHandle(limiter)
    let config = try readStructure(config, defaults: keyedDefaults(), "config")
    try limiter.pointee.reconfigure(readKeyedConfiguration(config))
    return AGR_OK
  }
}

@implementation @_cdecl("agr_keyed_limiter_snapshot_read")
public func agr_keyed_limiter_snapshot_read(
  _ limiter: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_keyed_limiter_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_keyed_limiter_snapshot_read_at(limiter, now(), out_snapshot, error)
}

@implementation @_cdecl("agr_keyed_limiter_snapshot_read_at")
public func agr_keyed_limiter_snapshot_read_at(
  _ limiter: OpaquePointer?, _ now_ns: Int64,
  _ out_snapshot: UnsafeMutablePointer<agr_keyed_limiter_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try checkOutput(out_snapshot, "out_snapshot")
    try requireTime(now_ns, "now_ns")
    if let stored = storedKeyedLimiter(limiter) {
      writeStructure(stored.pointee.snapshot(now: now_ns), to: out)
      return AGR_OK
    }
    let limiter = try keyedHandle(limiter)
    let counters = limiter.pointee.counters()
    let slots = UInt64(truncatingIfNeeded: limiter.pointee.slots)
    writeStructure(
      agr_keyed_limiter_snapshot(
        struct_size: 0,
        open_reservations: UInt32(
          truncatingIfNeeded: limiter.pointee.openReservations(now: now_ns)),
        busy_keys: UInt64(truncatingIfNeeded: limiter.pointee.busyKeys(now: now_ns)),
        slots: slots, bytes: slots &* 16, refused: counters.refused,
        would_refuse: counters.wouldRefuse, evicted: counters.evicted,
        no_place: counters.noPlace), to: out)
    return AGR_OK
  }
}
