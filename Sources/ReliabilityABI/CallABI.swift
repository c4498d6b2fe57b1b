public import CAutoGLMReliability
import Platform
import ReliabilityCore

private func requestDefaults() -> agr_request {
  var request = agr_request()
  request.struct_size = UInt32(MemoryLayout<agr_request>.size)
  request.costs.0 = 1
  return request
}

func outcomeDefaults() -> agr_outcome {
  var outcome = agr_outcome()
  outcome.struct_size = UInt32(MemoryLayout<agr_outcome>.size)
  outcome.error_class = ErrorClass.success.rawValue
  outcome.server_delay_ns = Retry.Failed.noHint
  outcome.latency_ns = -1
  outcome.costs = (-1, -1, -1, -1)
  return outcome
}

@implementation @_cdecl("agr_request_init")
public func agr_request_init(_ request: UnsafeMutablePointer<agr_request>?, _ struct_size: UInt32) {
  initialize(request, struct_size, requestDefaults())
}

@implementation @_cdecl("agr_outcome_init")
public func agr_outcome_init(_ outcome: UnsafeMutablePointer<agr_outcome>?, _ struct_size: UInt32) {
  initialize(outcome, struct_size, outcomeDefaults())
}

@inline(__always)
private func requireCost(_ cost: Int64, atLeast least: Int64) throws(Failure) {
  guard cost >= least && cost <= TokenRate.maximumTokens else {
    throw .argument("costs", "must be 0 ... 2^50 tokens (-1 in an outcome: unknown)")
  }
}

@inline(__always)
private func requireBytes(
  _ bytes: UnsafeRawPointer?, _ length: Int, limit: Int, _ field: StaticString,
  _ lengthField: StaticString
) throws(Failure) {
  guard bytes != nil || length == 0 else {
    throw .argument(field, "must not be NULL when its length is not 0")
  }
  guard length >= 0 && length <= limit else {
    throw .argument(lengthField, "is more than can be taken")
  }
}

/// Gives a request to `body`: the caller's own, or where it is not of this version, or none, a copy.
@inline(__always)
func withRequest<Result>(
  _ pointer: UnsafePointer<agr_request>?,
  _ body: (UnsafePointer<agr_request>) throws(Failure) -> Result
) throws(Failure) -> Result {
  if let pointer, Int(pointer.pointee.struct_size) == MemoryLayout<agr_request>.size {
    return try body(pointer)
  }
  let copy = try readStructure(
    pointer, defaults: requestDefaults(), "request", optional: true)
  return try withUnsafePointer(to: copy, body)
}

/// Refuses a request that cannot be.
@inline(__always)
func checkRequest(_ request: UnsafePointer<agr_request>) throws(Failure) {
  try requireBytes(
    request.pointee.key, request.pointee.key_length, limit: 1 << 20, "key", "key_length")
  try requireBytes(
    request.pointee.fingerprint, request.pointee.fingerprint_length, limit: 1 << 30,
    "fingerprint", "fingerprint_length")
  try requireBytes(
    request.pointee.cache_key, request.pointee.cache_key_length, limit: 1024, "cache_key",
    "cache_key_length")
  try requireCost(request.pointee.costs.0, atLeast: 0)
  try requireCost(request.pointee.costs.1, atLeast: 0)
  try requireCost(request.pointee.costs.2, atLeast: 0)
  try requireCost(request.pointee.costs.3, atLeast: 0)
  try requireTimeOrForever(request.pointee.deadline_ns, "deadline_ns")
  try requireBytes(
    request.pointee.trace_id, request.pointee.trace_id_length, limit: .max, "trace_id",
    "trace_id_length")
}

extension Policy {
  /// The rule that an outcome falls under, and its place in the table.
  @inline(__always)
  fileprivate func rule(for outcome: agr_outcome) throws(Failure) -> (RetryRule, Int) {
    let unmatched = 64
    guard outcome.domain != Domain.none.rawValue else {
      guard let errorClass = ErrorClass(rawValue: outcome.error_class) else {
        throw .argument("error_class", "must be one of AGR_CLASS_*")
      }
      return (RetryRule(.none, outcome.code, outcome.code, errorClass), unmatched)
    }
    let domain = try requireDomain(outcome.domain)
    if ruleCount == 0 {
      for index in 0..<RetryRule.standardCount {
        if let rule = RetryRule.standard(index), rule.matches(domain, outcome.code) {
          return (rule, index)
        }
      }
    } else {
      for index in 0..<ruleCount where rules[index].matches(domain, outcome.code) {
        return (rules[index], index)
      }
    }
    return (RetryRule.unmatched(domain, outcome.code), unmatched)
  }

  @inline(__always)
  func readOutcome(_ source: agr_outcome) throws(Failure) -> AttemptOutcome {
    let (rule, index) = try rule(for: source)
    try requireHint(source.server_delay_ns)
    guard source.latency_ns == -1 || Time.isValid(source.latency_ns) else {
      throw .argument("latency_ns", "must be -1, or 0 ... AGR_TIME_MAX_NS nanoseconds")
    }
    try requireBytes(
      source.result, source.result_length, limit: 1 << 50, "result", "result_length")
    let costs = source.costs
    try requireCost(costs.0, atLeast: -1)
    try requireCost(costs.1, atLeast: -1)
    try requireCost(costs.2, atLeast: -1)
    try requireCost(costs.3, atLeast: -1)
    return AttemptOutcome(
      rule: rule, ruleIndex: index, code: source.code, serverDelay: source.server_delay_ns,
      latency: source.latency_ns, costs: [costs.0, costs.1, costs.2, costs.3],
      result: source.result, resultLength: source.result_length)
  }
}

@inline(__always)
private func callHandle(_ pointer: OpaquePointer?) throws(Failure) -> Handle<Call> {
  try handle(pointer, .call, "call")
}

/// Writes the present step of a call.
@inline(__always)
func write(_ call: Handle<Call>, _ out: UnsafeMutablePointer<agr_step>) {
  guard Int(out.pointee.struct_size) == MemoryLayout<agr_step>.size else {
    var value = agr_step()
    fill(&value, call)
    writeStructure(value, to: out)
    return
  }
  fill(&out.pointee, call)
}

/// Sets every field but struct_size, in place.
@inline(__always)
private func fill(_ value: inout agr_step, _ call: Handle<Call>) {
  let remaining = call.pointee.remaining
  value.kind = call.pointee.step.kind.rawValue
  value.reason = call.pointee.step.reason.rawValue
  value.component = call.pointee.step.component.rawValue
  value.attempt_id = call.pointee.step.attemptID
  value.attempt = call.pointee.step.attempt
  value.endpoint = 0
  value.wait_ns = call.pointee.step.wait
  value.retry_after_ns = call.pointee.step.retryAfter
  value.remaining_ns = remaining
  if call.pointee.step.kind == .attempt {
    let timeouts = call.pointee.policy.pointee.configuration.timeouts
    let attempt = min(timeouts.attempt, remaining)
    value.attempt_timeout_ns = attempt
    value.connect_timeout_ns = min(timeouts.connect, attempt)
    value.first_byte_timeout_ns = min(timeouts.firstByte, attempt)
    value.idle_timeout_ns = min(timeouts.idle, attempt)
  } else {
    value.attempt_timeout_ns = 0
    value.connect_timeout_ns = 0
    value.first_byte_timeout_ns = 0
    value.idle_timeout_ns = 0
  }
  value.fd = call.pointee.step.descriptor
  value.outcome_unknown = call.pointee.step.outcomeUnknown ? 1 : 0
  value.fence = call.pointee.step.fence
  value.result = call.pointee.step.result
  value.result_length = call.pointee.step.resultLength
}

@implementation @_cdecl("agr_call_begin")
public func agr_call_begin(
  _ policy: OpaquePointer?, _ request: UnsafePointer<agr_request>?,
  _ out_call: UnsafeMutablePointer<OpaquePointer?>?, _ out_step: UnsafeMutablePointer<agr_step>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_call_begin_at(policy, request, now(), out_call, out_step, error)
}

@implementation @_cdecl("agr_call_begin_at")
public func agr_call_begin_at(
  _ policy: OpaquePointer?, _ request: UnsafePointer<agr_request>?, _ now_ns: Int64,
  _ out_call: UnsafeMutablePointer<OpaquePointer?>?, _ out_step: UnsafeMutablePointer<agr_step>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_call, "out_call")
    out.pointee = nil
    let step = try checkOutput(out_step, "out_step")
    let policy = try policyHandle(policy)
    try requireTime(now_ns, "now_ns")
    let call = try withRequest(request) { (request) throws(Failure) in
      try Policy.begin(policy, request, now: now_ns)
    }
    out.pointee = pooledPointer(call)
    write(call, step)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_call_advance")
public func agr_call_advance(
  _ call: OpaquePointer?, _ outcome: UnsafePointer<agr_outcome>?,
  _ out_step: UnsafeMutablePointer<agr_step>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_call_advance_at(call, outcome, now(), out_step, error)
}

@implementation @_cdecl("agr_call_advance_at")
public func agr_call_advance_at(
  _ call: OpaquePointer?, _ outcome: UnsafePointer<agr_outcome>?, _ now_ns: Int64,
  _ out_step: UnsafeMutablePointer<agr_step>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let step = try checkOutput(out_step, "out_step")
    let call = try callHandle(call)
    // Whatever becomes of it, the caller is told where the call stands.
    defer { write(call, step) }
    try requireTime(now_ns, "now_ns")
    let policy = call.pointee.policy
    guard let outcome else {
      guard call.pointee.phase != .attempting else {
        throw Failure(.state, "outcome", "is due: an attempt is under way")
      }
      guard call.pointee.phase != .done else {
        throw Failure(.state, "call", "is done")
      }
      call.pointee.advance(to: now_ns)
      policy.pointee.resume(call)
      return AGR_OK
    }
    let source = try readStructure(outcome, defaults: outcomeDefaults(), "outcome")
    guard call.pointee.phase == .attempting else {
      // The outcome of an attempt that was concluded before is late; any other is out of place.
      if source.attempt_id != 0 && source.attempt_id != call.pointee.attemptID { return AGR_STALE }
      throw Failure(.state, "outcome", "was given, and no attempt is under way")
    }
    guard source.attempt_id == 0 || source.attempt_id == call.pointee.attemptID else {
      return AGR_STALE
    }
    let attempt = try policy.pointee.readOutcome(source)
    call.pointee.advance(to: now_ns)
    policy.pointee.conclude(call, attempt)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_call_commit")
public func agr_call_commit(
  _ call: OpaquePointer?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let call = try callHandle(call)
    guard call.pointee.phase == .attempting else {
      throw Failure(.state, "call", "no attempt is under way")
    }
    call.pointee.isCommitted = true
    return AGR_OK
  }
}

@implementation @_cdecl("agr_call_destroy")
public func agr_call_destroy(_ call: OpaquePointer?) { agr_call_destroy_at(call, now()) }

@implementation @_cdecl("agr_call_destroy_at")
public func agr_call_destroy_at(_ call: OpaquePointer?, _ now_ns: Int64) {
  guard let call = try? callHandle(call) else { return }
  Policy.destroy(call, now: Time.isValid(now_ns) ? now_ns : call.pointee.now)
}
