public import CAutoGLMReliability
import Platform
import ReliabilityCore

func breakerDefaults() -> agr_breaker_config {
  let defaults = BreakerConfiguration()
  var config = agr_breaker_config()
  config.struct_size = UInt32(MemoryLayout<agr_breaker_config>.size)
  config.consecutive_failures = defaults.consecutiveFailures
  config.window = defaults.window.rawValue
  config.window_calls = defaults.windowCalls
  config.window_ns = defaults.windowLength
  config.minimum_calls = defaults.minimumCalls
  config.half_open_permits = defaults.halfOpenPermits
  config.half_open_successes = defaults.halfOpenSuccesses
  config.max_permits = defaults.maxPermits
  config.failure_rate = defaults.failureRate
  config.slow_rate = defaults.slowRate
  config.slow_call_ns = defaults.slowCall
  config.open_ns = defaults.openTime
  config.open_max_ns = defaults.openLimit
  config.open_growth = defaults.openGrowth
  config.open_jitter = defaults.openJitter
  config.permit_timeout_ns = defaults.permitTimeout
  config.mode = defaults.mode.rawValue
  return config
}

func readBreakerConfiguration(
  _ config: agr_breaker_config
) throws(Failure) -> BreakerConfiguration {
  var value = BreakerConfiguration()
  guard let window = BreakerConfiguration.Window(rawValue: config.window) else {
    throw .argument("window", "must be one of AGR_WINDOW_*")
  }
  value.consecutiveFailures = config.consecutive_failures
  value.window = window
  value.windowCalls = config.window_calls
  value.windowLength = config.window_ns
  value.minimumCalls = config.minimum_calls
  value.halfOpenPermits = config.half_open_permits
  value.halfOpenSuccesses = config.half_open_successes
  value.maxPermits = config.max_permits
  value.failureRate = config.failure_rate
  value.slowRate = config.slow_rate
  value.slowCall = config.slow_call_ns
  value.openTime = config.open_ns
  value.openLimit = config.open_max_ns
  value.openGrowth = config.open_growth
  value.openJitter = config.open_jitter
  value.permitTimeout = config.permit_timeout_ns
  value.backpressureFails = try readFlag(config.backpressure_fails, "backpressure_fails")
  value.mode = try requireMode(config.mode)
  try value.validate()
  return value
}

private func requireMode(_ value: Int32) throws(Failure) -> BreakerMode {
  guard let mode = BreakerMode(rawValue: value) else {
    throw .argument("mode", "must be AGR_BREAKER_AUTOMATIC ... AGR_BREAKER_OBSERVE")
  }
  return mode
}

@inline(__always)
private func breakerHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<Breaker> {
  try handle(pointer, .breaker, "breaker", ignoring: 1)
}

@implementation @_cdecl("agr_breaker_config_init")
public func agr_breaker_config_init(
  _ config: UnsafeMutablePointer<agr_breaker_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, breakerDefaults())
}

@implementation @_cdecl("agr_breaker_config_preset")
public func agr_breaker_config_preset(
  _ config: UnsafeMutablePointer<agr_breaker_config>?, _ preset: Int32,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try checkOutput(config, "config")
    var value = breakerDefaults()
    switch try requirePreset(preset) {
    case .development: value.mode = BreakerMode.disabled.rawValue
    case .production:
      value.window_calls = 10
      value.minimum_calls = 10
    case .edge:
      value.window = BreakerConfiguration.Window.none.rawValue
      value.consecutive_failures = 4
    }
    writeStructure(value, to: out)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_breaker_create")
public func agr_breaker_create(
  _ config: UnsafePointer<agr_breaker_config>?,
  _ out_breaker: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_breaker, "out_breaker")
    out.pointee = nil
    let config = try readStructure(config, defaults: breakerDefaults(), "config")
    let engine = try Breaker(
      readBreakerConfiguration(config), seed: config.seed, permitSeed: processRandom(),
      now: now())
    out.pointee = try makeHandle(.breaker, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_breaker_create_in_region")
public func agr_breaker_create_in_region(
  _ region: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_breaker_config>?,
  _ out_breaker: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_breaker, "out_breaker")
    out.pointee = nil
    let config = try readStructure(config, defaults: breakerDefaults(), "config")
    var configuration = try readBreakerConfiguration(config)
    configuration.seed = config.seed
    out.pointee = try openShared(
      Breaker.self, .breaker, region, name, configuration, now: now())
    return AGR_OK
  }
}

@implementation @_cdecl("agr_breaker_destroy")
public func agr_breaker_destroy(_ breaker: OpaquePointer?) {
  if let stored: Handle<StoredBreaker> = handleIfKind(breaker, .storedBreaker) {
    return destroy(stored, .storedBreaker)
  }
  guard let breaker = try? breakerHandle(breaker) else { return }
  destroy(breaker, .breaker)
}

@implementation @_cdecl("agr_breaker_acquire")
public func agr_breaker_acquire(
  _ breaker: OpaquePointer?, _ out_permit: UnsafeMutablePointer<UInt64>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_breaker_acquire_at(breaker, now(), out_permit, out_retry_after_ns, error)
}

@implementation @_cdecl("agr_breaker_acquire_at")
public func agr_breaker_acquire_at(
  _ breaker: OpaquePointer?, _ now_ns: Int64, _ out_permit: UnsafeMutablePointer<UInt64>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guard let engine: Handle<Breaker> = handleIfKind(breaker, .breaker) else {
    return acquireInStore(breaker, now_ns, out_permit, out_retry_after_ns, error)
  }
  return guarded(error) { () throws(Failure) in
    let out = try required(out_permit, "out_permit")
    out.pointee = 0
    out_retry_after_ns?.pointee = 0
    switch try engine.pointee.acquire(now: now_ns) {
    case .admitted(let permit):
      out.pointee = permit
      return AGR_OK
    case .refused(let retryAfter):
      out_retry_after_ns?.pointee = retryAfter
      return AGR_OPEN
    }
  }
}

@implementation @_cdecl("agr_breaker_report")
public func agr_breaker_report(
  _ breaker: OpaquePointer?, _ permit: UInt64, _ outcome: Int32, _ latency_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_breaker_report_at(breaker, permit, outcome, latency_ns, now(), error)
}

@implementation @_cdecl("agr_breaker_report_at")
public func agr_breaker_report_at(
  _ breaker: OpaquePointer?, _ permit: UInt64, _ outcome: Int32, _ latency_ns: Int64,
  _ now_ns: Int64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guard let engine: Handle<Breaker> = handleIfKind(breaker, .breaker) else {
    return reportInStore(breaker, permit, outcome, latency_ns, now_ns, error)
  }
  return guarded(error) { () throws(Failure) in
    let outcome = try requireOutcome(outcome)
    return try engine.pointee.report(
      permit, outcome, latency: latency_ns, now: now_ns, processRandom)
      ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_breaker_state")
public func agr_breaker_state(
  _ breaker: OpaquePointer?, _ out_state: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_breaker_state_at(breaker, now(), out_state, error)
}

@implementation @_cdecl("agr_breaker_state_at")
public func agr_breaker_state_at(
  _ breaker: OpaquePointer?, _ now_ns: Int64, _ out_state: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let breaker = try breakerHandle(breaker)
    try required(out_state, "out_state").pointee =
      try breaker.pointee.state(now: now_ns).rawValue
    return AGR_OK
  }
}

@implementation @_cdecl("agr_breaker_force")
public func agr_breaker_force(
  _ breaker: OpaquePointer?, _ mode: Int32, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_breaker_force_at(breaker, mode, now(), error)
}

@implementation @_cdecl("agr_breaker_force_at")
public func agr_breaker_force_at(
  _ breaker: OpaquePointer?, _ mode: Int32, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let breaker = try breakerHandle(breaker)
    try breaker.pointee.force(requireMode(mode), now: now_ns)
    return AGR_OK
  }
}
