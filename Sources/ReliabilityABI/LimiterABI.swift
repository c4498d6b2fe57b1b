public import CAutoGLMReliability
import Platform
import ReliabilityCore

private typealias LimiterHandle = Handle<Limiter>

func limiterDefaults() -> agr_limiter_config {
  var config = agr_limiter_config()
  config.struct_size = UInt32(MemoryLayout<agr_limiter_config>.size)
  config.max_reservations = 1024
  config.refill_interval_ns = Time.second
  config.initial_tokens = -1
  config.max_debt_tokens = -1
  config.reservation_timeout_ns = 10 * Time.minute
  return config
}

/// The engine; of a limiter in a store, the bucket in front, which comes first in it.
@inline(__always)
private func limiterHandle(_ pointer: OpaquePointer?) throws(Failure) -> LimiterHandle {
  try handle(pointer, .limiter, "limiter", ignoring: 1)
}

/// A flag that must be 0 or 1.
func readFlag(_ value: UInt32, _ field: StaticString) throws(Failure) -> Bool {
  guard value <= 1 else { throw .argument(field, "must be 0 or 1") }
  return value == 1
}

func requireZero(_ value: UInt32, _ field: StaticString) throws(Failure) {
  guard value == 0 else { throw .argument(field, "must be 0") }
}

/// `isNew`: else the initial tokens are not looked at.
func readLimiterConfiguration(
  _ config: UnsafePointer<agr_limiter_config>?, isNew: Bool = true
) throws(Failure) -> Limiter.Configuration {
  let config = try readStructure(config, defaults: limiterDefaults(), "config")
  try requireZero(config.reserved, "reserved")
  return try Limiter.Configuration(
    rate: TokenRate(
      capacity: config.capacity, maxDebt: config.max_debt_tokens, tokens: config.refill_tokens,
      interval: config.refill_interval_ns),
    initial: isNew ? config.initial_tokens : -1,
    maxReservations: Int(config.max_reservations),
    reservationTimeout: config.reservation_timeout_ns,
    observe: readFlag(config.observe, "observe"))
}

@implementation @_cdecl("agr_limiter_config_init")
public func agr_limiter_config_init(
  _ config: UnsafeMutablePointer<agr_limiter_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, limiterDefaults())
}

@implementation @_cdecl("agr_limiter_create")
public func agr_limiter_create(
  _ config: UnsafePointer<agr_limiter_config>?,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_create_at(config, now(), out_limiter, error)
}

@implementation @_cdecl("agr_limiter_create_at")
public func agr_limiter_create_at(
  _ config: UnsafePointer<agr_limiter_config>?, _ now_ns: Int64,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_limiter, "out_limiter")
    out.pointee = nil
    let engine = try Limiter(readLimiterConfiguration(config), seed: processRandom(), now: now_ns)
    out.pointee = try makeHandle(.limiter, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_limiter_create_in_region")
public func agr_limiter_create_in_region(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_limiter_config>?,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_create_in_region_at(region, name, config, now(), out_limiter, error)
}

@implementation @_cdecl("agr_limiter_create_in_region_at")
public func agr_limiter_create_in_region_at(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_limiter_config>?, _ now_ns: Int64,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_limiter, "out_limiter")
    out.pointee = nil
    out.pointee = try openShared(
      Limiter.self, .limiter, region, name, readLimiterConfiguration(config), now: now_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_limiter_destroy")
public func agr_limiter_destroy(_ limiter: OpaquePointer?) {
  if let stored = storedLimiter(limiter) { return destroy(stored, .storedLimiter) }
  guard let limiter = try? limiterHandle(limiter) else { return }
  destroy(limiter, .limiter)
}

@implementation @_cdecl("agr_limiter_try_acquire")
public func agr_limiter_try_acquire(
  _ limiter: OpaquePointer?, _ tokens: Int64, _ out_retry_after_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_try_acquire_at(limiter, tokens, now(), out_retry_after_ns, error)
}

@implementation @_cdecl("agr_limiter_try_acquire_at")
public func agr_limiter_try_acquire_at(
  _ limiter: OpaquePointer?, _ tokens: Int64, _ now_ns: Int64,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  // What lies in a store is looked for where the usual path ends anyway.
  guard let engine: LimiterHandle = handleIfKind(limiter, .limiter) else {
    return tryAcquireInStore(limiter, tokens, out_retry_after_ns, error)
  }
  return guarded(error) { () throws(Failure) in
    out_retry_after_ns?.pointee = 0
    switch try engine.pointee.tryAcquire(tokens, now: now_ns) {
    case .admitted: return AGR_OK
    case .limited(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_LIMITED
    }
  }
}

@implementation @_cdecl("agr_limiter_acquire")
public func agr_limiter_acquire(
  _ limiter: OpaquePointer?, _ tokens: Int64, _ timeout_ns: Int64,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let engine = try limiterHandle(limiter)
    out_retry_after_ns?.pointee = 0
    try requireTimeOrForever(timeout_ns, "timeout_ns")
    if let stored = stored(engine) {
      return try stored.pointee.acquire(tokens, timeout: timeout_ns, out_retry_after_ns, error)
    }
    let start = systemNow()
    switch try engine.pointee.acquireAhead(tokens, maxWait: timeout_ns, now: start) {
    case .granted(let wait, _):
      if wait > 0 { platform_sleep_until_ns(Time.add(start, wait)) }
      return AGR_OK
    case .limited(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_LIMITED
    }
  }
}

@implementation @_cdecl("agr_limiter_reserve")
public func agr_limiter_reserve(
  _ limiter: OpaquePointer?, _ tokens: Int64, _ max_wait_ns: Int64,
  _ out_reservation: UnsafeMutablePointer<agr_reservation>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_reserve_at(
    limiter, tokens, max_wait_ns, now(), out_reservation, out_retry_after_ns, error)
}

@implementation @_cdecl("agr_limiter_reserve_at")
public func agr_limiter_reserve_at(
  _ limiter: OpaquePointer?, _ tokens: Int64, _ max_wait_ns: Int64, _ now_ns: Int64,
  _ out_reservation: UnsafeMutablePointer<agr_reservation>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_reservation, "out_reservation")
    out.pointee = agr_reservation()
    out_retry_after_ns?.pointee = 0
    let engine = try limiterHandle(limiter)
    if let stored = stored(engine) {
      return try stored.pointee.reserve(
        tokens, maxWait: max_wait_ns, now: now_ns, out, out_retry_after_ns, error)
    }
    return answer(
      try engine.pointee.reserve(tokens, maxWait: max_wait_ns, now: now_ns), out,
      out_retry_after_ns)
  }
}

/// Writes what came of a reservation, and says it.
func answer(
  _ decision: ReserveDecision, _ out: UnsafeMutablePointer<agr_reservation>,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?
) -> Int {
  switch decision {
  case .granted(let reservation):
    out.pointee = agr_reservation(
      permit: reservation.permit, tokens: reservation.tokens, wait_ns: reservation.wait)
    return AGR_OK
  case .limited(let retryAfter):
    out_retry_after_ns?.pointee = retryAfter
    return AGR_LIMITED
  }
}

@implementation @_cdecl("agr_limiter_cancel")
public func agr_limiter_cancel(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_cancel_at(limiter, permit, now(), error)
}

@implementation @_cdecl("agr_limiter_cancel_at")
public func agr_limiter_cancel_at(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let engine = try limiterHandle(limiter)
    if let stored = stored(engine) {
      return try stored.pointee.settle(permit, actual: 0, now: now_ns) ? AGR_OK : AGR_STALE
    }
    return try engine.pointee.cancel(permit, now: now_ns) ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_limiter_settle")
public func agr_limiter_settle(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ actual_tokens: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_settle_at(limiter, permit, actual_tokens, now(), error)
}

@implementation @_cdecl("agr_limiter_settle_at")
public func agr_limiter_settle_at(
  _ limiter: OpaquePointer?, _ permit: UInt64, _ actual_tokens: Int64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let engine = try limiterHandle(limiter)
    if let stored = stored(engine) {
      return try stored.pointee.settle(permit, actual: actual_tokens, now: now_ns)
        ? AGR_OK : AGR_STALE
    }
    return try engine.pointee.settle(permit, actual: actual_tokens, now: now_ns)
      ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_limiter_available")
public func agr_limiter_available(
  _ limiter: OpaquePointer?, _ out_tokens: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_available_at(limiter, now(), out_tokens, error)
}

@implementation @_cdecl("agr_limiter_available_at")
public func agr_limiter_available_at(
  _ limiter: OpaquePointer?, _ now_ns: Int64, _ out_tokens: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let engine = try limiterHandle(limiter)
    let out = try required(out_tokens, "out_tokens")
    if let stored = stored(engine) { return try stored.pointee.available(out, error) }
    out.pointee = try engine.pointee.available(now: now_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_limiter_reconfigure")
public func agr_limiter_reconfigure(
  _ limiter: OpaquePointer?, _ config: UnsafePointer<agr_limiter_config>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_reconfigure_at(limiter, config, now(), error)
}

@implementation @_cdecl("agr_limiter_reconfigure_at")
public func agr_limiter_reconfigure_at(
  _ limiter: OpaquePointer?, _ config: UnsafePointer<agr_limiter_config>?, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let engine = try limiterHandle(limiter)
    guard stored(engine) == nil else {
      throw Failure(.state, "limiter", "a limiter in a store is created anew to be changed")
    }
    try engine.pointee.reconfigure(readLimiterConfiguration(config, isNew: false), now: now_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_limiter_snapshot_read")
public func agr_limiter_snapshot_read(
  _ limiter: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_limiter_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_snapshot_read_at(limiter, now(), out_snapshot, error)
}

@implementation @_cdecl("agr_limiter_snapshot_read_at")
public func agr_limiter_snapshot_read_at(
  _ limiter: OpaquePointer?, _ now_ns: Int64,
  _ out_snapshot: UnsafeMutablePointer<agr_limiter_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let limiter = try limiterHandle(limiter)
    let stored = stored(limiter)
    let out = try checkOutput(out_snapshot, "out_snapshot")
    let available = try limiter.pointee.available(now: now_ns)
    let rate = stored?.pointee.buckets.rate ?? limiter.pointee.rate()
    let counters = stored?.pointee.counters() ?? limiter.pointee.counters()
    let open =
      stored?.pointee.ledger.openCount(now: now_ns)
      ?? limiter.pointee.openReservations(now: now_ns)
    writeStructure(
      agr_limiter_snapshot(
        struct_size: 0,
        open_reservations: UInt32(truncatingIfNeeded: open),
        capacity: rate.capacity, refill_tokens: rate.tokens,
        refill_interval_ns: rate.interval, available: available,
        refused: counters.refused, would_refuse: counters.wouldRefuse,
        forgiven: counters.forgiven), to: out)
    return AGR_OK
  }
}
