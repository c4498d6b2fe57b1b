public import CAutoGLMReliability
import Platform
import ReliabilityCore

func backoffDefaults() -> agr_backoff_config {
  var config = agr_backoff_config()
  config.struct_size = UInt32(MemoryLayout<agr_backoff_config>.size)
  config.strategy = Int32(AGR_BACKOFF_EXPONENTIAL)
  config.jitter = Int32(AGR_JITTER_FULL)
  config.max_attempts = 3
  config.base_delay_ns = 100 * Time.millisecond
  config.max_delay_ns = 20 * Time.second
  config.min_delay_ns = 10 * Time.millisecond
  config.fast_success_ns = 100 * Time.millisecond
  config.multiplier = 2
  config.jitter_ratio = 0.5
  return config
}

@inline(__always)
private func makeBackoff(_ config: agr_backoff_config) throws(Failure) -> Backoff {
  try Backoff(
    strategy: config.strategy, jitter: config.jitter, maxAttempts: config.max_attempts,
    base: config.base_delay_ns, limit: config.max_delay_ns, floor: config.min_delay_ns,
    fastSuccess: config.fast_success_ns, multiplier: config.multiplier,
    jitterRatio: config.jitter_ratio)
}

/// A backoff inside of another structure: it has no room to be of a later version.
func readNestedBackoff(_ config: agr_backoff_config) throws(Failure) -> Backoff {
  guard config.struct_size <= UInt32(MemoryLayout<agr_backoff_config>.size) else {
    throw .argument("backoff.struct_size", "must be the sizeof of the structure")
  }
  var config = config
  return try makeBackoff(readStructure(&config, defaults: backoffDefaults(), "backoff"))
}

@inline(__always)
private func readBackoff(
  _ config: UnsafePointer<agr_backoff_config>?
) throws(Failure) -> Backoff {
  try makeBackoff(readStructure(config, defaults: backoffDefaults(), "config"))
}

@implementation @_cdecl("agr_backoff_config_init")
public func agr_backoff_config_init(
  _ config: UnsafeMutablePointer<agr_backoff_config>?, _ struct_size: UInt32
) {
  initialize(config, struct_size, backoffDefaults())
}

@implementation @_cdecl("agr_backoff_delay")
public func agr_backoff_delay(
  _ config: UnsafePointer<agr_backoff_config>?, _ attempt: UInt32, _ previous_ns: Int64,
  _ random: UInt64, _ out_delay_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_delay_ns, "out_delay_ns")
    out.pointee = 0
    let backoff = try readBackoff(config)
    guard attempt >= 1 else { throw .argument("attempt", "must be 1 ... 2^32-1") }
    try requireTime(previous_ns, "previous_ns")
    if backoff.isExhausted(after: attempt) { return AGR_EXHAUSTED }
    out.pointee = backoff.delay(after: attempt, previous: previous_ns, random: random)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_backoff_adapt")
public func agr_backoff_adapt(
  _ config: UnsafePointer<agr_backoff_config>?, _ current_ns: Int64, _ outcome: Int32,
  _ latency_ns: Int64, _ out_next_ns: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_next_ns, "out_next_ns")
    out.pointee = 0
    let backoff = try readBackoff(config)
    guard backoff.floor <= backoff.limit else {
      throw .argument("min_delay_ns", "must be 0 ... max_delay_ns")
    }
    try requireTime(current_ns, "current_ns")
    try requireTime(latency_ns, "latency_ns")
    out.pointee = backoff.adapted(current_ns, try requireOutcome(outcome), latency: latency_ns)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_hint_parse")
public func agr_hint_parse(
  _ kind: Int32, _ text: UnsafePointer<CChar>?, _ length: Int, _ wall_now_ns: Int64,
  _ out_delay_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_delay_ns, "out_delay_ns")
    out.pointee = 0
    guard let hint = Hint(rawValue: kind) else {
      throw .argument("kind", "must be one of AGR_HINT_*")
    }
    guard let text else { throw .argument("text", "must not be NULL") }
    guard length >= 0 && length <= Hint.maximumLength else {
      throw .argument("length", "must be 0 ... 128 bytes")
    }
    try requireTime(wall_now_ns, "wall_now_ns")
    guard let delay = hint.parse(UnsafeRawPointer(text), length, wallClock: wall_now_ns) else {
      throw Failure(.parse, "text", "is not in the format")
    }
    out.pointee = delay
    return AGR_OK
  }
}
