public import CAutoGLMReliability
import Platform
import ReliabilityCore

private typealias LimiterHandle = Handle<Limiter>

private func limiterDefaults() -> agr_limiter_config {
  var config = agr_limiter_config()
  config.struct_size = UInt32(MemoryLayout<agr_limiter_config>.size)
  config.max_reservations = 1024
  config.refill_interval_ns = Time.second
  config.initial_tokens = -1
  config.max_debt_tokens = -1
  config.reservation_timeout_ns = 10 * Time.minute
  return config
}

@inline(__always)
private func limiterHandle(_ pointer: OpaquePointer?) throws(Failure) -> LimiterHandle {
  try handle(pointer, .limiter, "limiter")
}

/// A flag that must be 0 or 1.
func readFlag(_ value: UInt32, _ field: StaticString) throws(Failure) -> Bool {
  guard value <= 1 else { throw .argument(field, "must be 0 or 1") }
  return value == 1
}

func requireZero(_ value: UInt32, _ field: StaticString) throws(Failure) {
  guard value == 0 else { throw .argument(field, "must be 0") }
}

private func readConfiguration(
  _ config: UnsafePointer<agr_limiter_config>?
) throws(Failure) -> Limiter.Configuration {
  let config = try readStructure(config, defaults: limiterDefaults(), "config")
  try requireZero(config.reserved, "reserved")
  return try Limiter.Configuration(
    rate: TokenRate(
      capacity: config.capacity, maxDebt: config.max_debt_tokens, tokens: config.refill_tokens,
      interval: config.refill_interval_ns),
    initial: config.initial_tokens,
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
    let engine = try Limiter(readConfiguration(config), seed: processRandom(), now: now_ns)
    out.pointee = try makeHandle(.limiter, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_limiter_destroy")
public func agr_limiter_destroy(_ limiter: OpaquePointer?) {
  guard let limiter = try? limiterHandle(limiter) else { return }
  release(limiter)
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
  guarded(error) { () throws(Failure) in
    let limiter = try limiterHandle(limiter)
    out_retry_after_ns?.pointee = 0
    switch try limiter.pointee.engine.tryAcquire(tokens, now: now_ns) {
    case .admitted: return AGR_OK
    case .limited(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_LIMITED
    }
  }
}
