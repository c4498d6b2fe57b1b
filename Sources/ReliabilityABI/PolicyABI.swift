public import CAutoGLMReliability
import ReliabilityCore

private func policyDefaults() -> agr_policy_config {
  var config = agr_policy_config()
  config.struct_size = UInt32(MemoryLayout<agr_policy_config>.size)
  config.max_calls = 1024
  config.total_timeout_ns = Time.minute
  config.attempt_timeout_ns = Time.forever
  config.connect_timeout_ns = 3 * Time.second
  config.first_byte_timeout_ns = 30 * Time.second
  config.idle_timeout_ns = 30 * Time.second
  config.event_capacity = 256
  config.cached_bytes = 16 << 20
  config.cached_ttl_ns = Time.hour
  return config
}

@inline(__always)
func policyHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<Policy> {
  try handle(pointer, .policy, "policy")
}

private func readParts(_ config: agr_policy_config) throws(Failure) -> PolicyParts {
  guard config.limiter_count <= UInt32(AGR_DIMENSIONS_MAX) else {
    throw .argument("limiter_count", "must be 0 ... AGR_DIMENSIONS_MAX")
  }
  var parts = PolicyParts()
  if config.idempotency != nil { parts.keys = try KeysPart(config.idempotency) }
  if config.breaker != nil { parts.breaker = try BreakerPart(config.breaker) }
  if config.budget != nil { parts.budget = try handle(config.budget, .retryBudget, "budget") }
  parts.limiterCount = Int(config.limiter_count)
  let limiters = config.limiters
  if parts.limiterCount > 0 { parts.limiters[0] = try LimiterPart(limiters.0) }
  if parts.limiterCount > 1 { parts.limiters[1] = try LimiterPart(limiters.1) }
  if parts.limiterCount > 2 { parts.limiters[2] = try LimiterPart(limiters.2) }
  if parts.limiterCount > 3 { parts.limiters[3] = try LimiterPart(limiters.3) }
  return parts
}

private func readFallback(_ value: Int32) throws(Failure) -> FallbackMode {
  guard let mode = FallbackMode(rawValue: value) else {
    throw .argument("fallback", "must be one of AGR_FALLBACK_*")
  }
  return mode
}

/// The policy's configuration, with a retry configuration that was read already.
private func readConfiguration(
  _ config: agr_policy_config, _ retry: Retry?
) throws(Failure) -> PolicyConfiguration {
  guard config.fallback_data != nil || config.fallback_length == 0 else {
    throw .argument("fallback_data", "must not be NULL when fallback_length is not 0")
  }
  // A length beyond Int.max arrives as a negative one.
  guard config.fallback_length >= 0 && config.fallback_length <= 1 << 30 else {
    throw .argument("fallback_length", "must be 0 ... 2^30 bytes")
  }
  var value = PolicyConfiguration(
    timeouts: try Timeouts(
      total: config.total_timeout_ns, attempt: config.attempt_timeout_ns,
      connect: config.connect_timeout_ns, firstByte: config.first_byte_timeout_ns,
      idle: config.idle_timeout_ns))
  value.parts = try readParts(config)
  value.retry = retry
  value.maxCalls = Int(config.max_calls)
  value.maxLimiterWait = config.max_limiter_wait_ns
  value.retryWhenOpen = try readFlag(config.retry_when_open, "retry_when_open")
  value.fallback = try readFallback(config.fallback)
  value.hasStandardAnswer = config.fallback_data != nil
  value.cachedEntries = Int(config.cached_entries)
  value.cachedBytes = config.cached_bytes
  value.cachedTimeToLive = config.cached_ttl_ns
  value.eventCapacity = Int(config.event_capacity)
  value.observe = config.observe
  value.off = config.off
  value.seed = config.seed
  try value.validate()
  let order = config.order
  try withUnsafeBytes(of: order) { bytes throws(Failure) in
    try value.requireOrder(
      { bytes.loadUnaligned(fromByteOffset: $0 &* 4, as: Int32.self) },
      count: Int(config.order_count))
  }
  return value
}

@implementation @_cdecl("agr_policy_config_init")
public func agr_policy_config_init(
  _ config: UnsafeMutablePointer<agr_policy_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, policyDefaults())
}

@implementation @_cdecl("agr_policy_create")
public func agr_policy_create(
  _ config: UnsafePointer<agr_policy_config>?,
  _ out_policy: UnsafeMutablePointer<OpaquePointer?>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_policy, "out_policy")
    out.pointee = nil
    let config = try readStructure(config, defaults: policyDefaults(), "config")
    var retry: Retry?
    var rules: UnsafePointer<agr_retry_rule>?
    var ruleCount = 0
    if let source = config.retry {
      let retryConfig = try readStructure(source, defaults: retryDefaults(), "retry")
      retry = try readRetry(retryConfig)
      rules = retryConfig.rules
      ruleCount = Int(retryConfig.rule_count)
    }
    let engine = try Policy(
      readConfiguration(config, retry),
      rules: { index throws(Failure) in try readRule(rules.unsafelyUnwrapped[index]) },
      ruleCount: ruleCount, standardAnswer: config.fallback_data, config.fallback_length)
    out.pointee = try makeHandle(.policy, engine)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_policy_destroy")
public func agr_policy_destroy(_ policy: OpaquePointer?) {
  guard let policy = try? policyHandle(policy) else { return }
  if retire(policy, .policy), policy.pointee.pool.disown() { release(policy) }
}

@implementation @_cdecl("agr_policy_set_mode")
public func agr_policy_set_mode(
  _ policy: OpaquePointer?, _ component: Int32, _ mode: Int32,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let policy = try policyHandle(policy)
    guard let component = Component(rawValue: component) else {
      throw .argument("component", "must be one of AGR_COMPONENT_*")
    }
    guard let mode = PartMode(rawValue: mode) else {
      throw .argument("mode", "must be one of AGR_MODE_*")
    }
    try policy.pointee.setMode(component, mode)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_policy_set_fallback")
public func agr_policy_set_fallback(
  _ policy: OpaquePointer?, _ fallback: Int32, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let policy = try policyHandle(policy)
    try policy.pointee.setFallback(readFallback(fallback))
    return AGR_OK
  }
}

@implementation @_cdecl("agr_policy_snapshot_read")
public func agr_policy_snapshot_read(
  _ policy: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_policy_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let policy = try policyHandle(policy)
    let out = try checkOutput(out_snapshot, "out_snapshot")
    var value = agr_policy_snapshot()
    let counted = policy.pointee.pool.counted()
    value.calls_alive = UInt32(truncatingIfNeeded: policy.pointee.pool.aliveCount)
    value.calls = counted[Policy.Counter.calls.rawValue]
    value.attempts = counted[Policy.Counter.attempts.rawValue]
    value.retries = counted[Policy.Counter.retries.rawValue]
    value.succeeded = counted[Policy.Counter.succeeded.rawValue]
    value.replayed = counted[Policy.Counter.replayed.rawValue]
    value.joined = counted[Policy.Counter.joined.rawValue]
    value.fallbacks = counted[Policy.Counter.fallbacks.rawValue]
    value.failed = counted[Policy.Counter.failed.rawValue]
    value.refused_limiter = counted[Policy.Counter.refusedLimiter.rawValue]
    value.refused_breaker = counted[Policy.Counter.refusedBreaker.rawValue]
    value.refused_budget = counted[Policy.Counter.refusedBudget.rawValue]
    value.refused_deadline = counted[Policy.Counter.refusedDeadline.rawValue]
    value.refused_other = counted[Policy.Counter.refusedOther.rawValue]
    value.abandoned = counted[Policy.Counter.abandoned.rawValue]
    value.observed = counted[Policy.Counter.observed.rawValue]
    value.backoff_ns = counted[Policy.Counter.backoff.rawValue]
    writeStructure(value, to: out)
    return AGR_OK
  }
}
