public import CAutoGLMReliability
import Platform
import ReliabilityCore

func retryDefaults() -> agr_retry_config {
  var config = agr_retry_config()
  config.struct_size = UInt32(MemoryLayout<agr_retry_config>.size)
  config.backoff = backoffDefaults()
  config.temporary_delay_ns = Time.second
  config.max_server_delay_ns = 2 * Time.minute
  config.server_delay_spread_ns = 5 * Time.second
  return config
}

/// A caller's retry configuration, its rules checked one by one.
func readRetry(_ config: agr_retry_config) throws(Failure) -> Retry {
  try requireZero(config.reserved, "reserved")
  guard config.rule_count <= UInt32(RetryRule.maximumCount) else {
    throw .argument("rule_count", "must be 0 ... 64")
  }
  guard config.rule_count == 0 || config.rules != nil else {
    throw .argument("rules", "must not be NULL when rule_count is not 0")
  }
  for index in 0..<Int(config.rule_count) { _ = try readRule(config.rules[index]) }
  return try Retry(
    backoff: readNestedBackoff(config.backoff), temporaryDelay: config.temporary_delay_ns,
    maxServerDelay: config.max_server_delay_ns,
    serverDelaySpread: config.server_delay_spread_ns,
    retryUnknown: readFlag(config.retry_unknown, "retry_unknown"))
}

func readRule(_ rule: agr_retry_rule) throws(Failure) -> RetryRule {
  try requireZero(rule.reserved, "rules.reserved")
  return try RetryRule(
    checking: rule.domain, first: rule.code_min, last: rule.code_max,
    errorClass: rule.error_class, retries: rule.max_retries, delay: rule.first_delay_ns)
}

private func cRule(_ rule: RetryRule) -> agr_retry_rule {
  agr_retry_rule(
    domain: rule.domain.rawValue, code_min: rule.first, code_max: rule.last,
    error_class: rule.errorClass.rawValue, max_retries: rule.maxRetries, reserved: 0,
    first_delay_ns: rule.firstDelay)
}

/// A domain whose codes are looked up.
func requireDomain(_ value: Int32) throws(Failure) -> Domain {
  guard let domain = Domain(rawValue: value), domain != .none else {
    throw .argument("domain", "must be AGR_DOMAIN_HTTP, _ERRNO or _USER")
  }
  return domain
}

@implementation @_cdecl("agr_retry_config_init")
public func agr_retry_config_init(
  _ config: UnsafeMutablePointer<agr_retry_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, retryDefaults())
}

/// `AGR_PRESET_*`.
enum Preset: Int32 {
  case development = 1
  case production, edge
}

func requirePreset(_ value: Int32) throws(Failure) -> Preset {
  guard let preset = Preset(rawValue: value) else {
    throw .argument("preset", "must be one of AGR_PRESET_*")
  }
  return preset
}

@implementation @_cdecl("agr_retry_config_preset")
public func agr_retry_config_preset(
  _ config: UnsafeMutablePointer<agr_retry_config>?, _ preset: Int32,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try checkOutput(config, "config")
    var value = retryDefaults()
    switch try requirePreset(preset) {
    case .development:
      value.backoff.max_attempts = 3
      value.backoff.base_delay_ns = 100 * Time.millisecond
    case .production:
      value.backoff.max_attempts = 4
      value.backoff.base_delay_ns = 200 * Time.millisecond
    case .edge:
      value.backoff.max_attempts = 2
      value.backoff.base_delay_ns = 500 * Time.millisecond
    }
    writeStructure(value, to: out)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_retry_rules_default")
public func agr_retry_rules_default(
  _ rules: UnsafeMutablePointer<agr_retry_rule>?, _ capacity: UInt32,
  _ out_count: UnsafeMutablePointer<UInt32>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_count, "out_count")
    let count = RetryRule.standardCount
    out.pointee = UInt32(count)
    if capacity == 0 { return AGR_OK }
    let rules = try required(rules, "rules")
    guard capacity >= UInt32(count) else {
      throw Failure(.capacity, "capacity", "is smaller than the table")
    }
    for index in 0..<count {
      if let rule = RetryRule.standard(index) { rules[index] = cRule(rule) }
    }
    return AGR_OK
  }
}

@implementation @_cdecl("agr_retry_classify")
public func agr_retry_classify(
  _ config: UnsafePointer<agr_retry_config>?, _ domain: Int32, _ code: Int32,
  _ out_rule: UnsafeMutablePointer<agr_retry_rule>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_rule, "out_rule")
    out.pointee = agr_retry_rule()
    let config = try readStructure(config, defaults: retryDefaults(), "config", optional: true)
    _ = try readRetry(config)
    let domain = try requireDomain(domain)
    var found: RetryRule?
    if config.rule_count == 0 {
      found = RetryRule.standard(for: domain, code)
    } else {
      for index in 0..<Int(config.rule_count) where found == nil {
        let rule = try readRule(config.rules[index])
        if rule.matches(domain, code) { found = rule }
      }
    }
    out.pointee = cRule(found ?? RetryRule.unmatched(domain, code))
    return found == nil ? AGR_NOT_FOUND : AGR_OK
  }
}

@implementation @_cdecl("agr_retry_decide")
public func agr_retry_decide(
  _ config: UnsafePointer<agr_retry_config>?, _ attempt: UInt32, _ reason_retries: UInt32,
  _ rule: UnsafePointer<agr_retry_rule>?, _ has_key: UInt32, _ previous_ns: Int64,
  _ server_delay_ns: Int64, _ random: UInt64, _ out_delay_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_delay_ns, "out_delay_ns")
    out.pointee = 0
    let retry = try readRetry(
      readStructure(config, defaults: retryDefaults(), "config", optional: true))
    guard attempt >= 1 else { throw .argument("attempt", "must be 1 ... 2^32-1") }
    guard let rule else { throw .argument("rule", "must not be NULL") }
    try requireTime(previous_ns, "previous_ns")
    try requireHint(server_delay_ns)
    let verdict = retry.decide(
      Retry.Failed(
        attempt: attempt, reasonRetries: reason_retries, rule: try readRule(rule.pointee),
        hasKey: try readFlag(has_key, "has_key"), previousDelay: previous_ns,
        serverDelay: server_delay_ns, random: random))
    guard case .retry(let delay) = verdict else { return AGR_EXHAUSTED }
    out.pointee = delay
    return AGR_OK
  }
}

/// What a server asked for: −1 for nothing, a time, or never.
func requireHint(_ value: Int64) throws(Failure) {
  guard value == Retry.Failed.noHint || Time.isValid(value) || value == Time.forever else {
    throw .argument("server_delay_ns", "must be -1, 0 ... AGR_TIME_MAX_NS, or AGR_FOREVER")
  }
}
