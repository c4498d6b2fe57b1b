import CAutoGLMReliability
import ReliabilityABI
import Testing

let second: Int64 = 1_000_000_000
let millisecond: Int64 = 1_000_000

/// A policy with its parts, driven in virtual time.
final class Rig {
  var policy: OpaquePointer?
  var call: OpaquePointer?
  var breaker: OpaquePointer?
  var limiters: [OpaquePointer?] = []
  var budget: OpaquePointer?
  var cache: OpaquePointer?
  var config = agr_policy_config()
  var retry = agr_retry_config()
  var now: Int64 = 0

  init() {
    agr_policy_config_init(&config, UInt32(MemoryLayout<agr_policy_config>.size))
    agr_retry_config_init(&retry, UInt32(MemoryLayout<agr_retry_config>.size))
    retry.backoff.jitter = Int32(AGR_JITTER_NONE)
  }

  deinit {
    agr_call_destroy_at(call, now)
    agr_policy_destroy(policy)
    agr_breaker_destroy(breaker)
    for limiter in limiters { agr_limiter_destroy(limiter) }
    agr_retry_budget_destroy(budget)
    agr_idempotency_destroy(cache)
  }

  func addBreaker(failures: UInt32, maxPermits: UInt32 = 64) {
    var config = agr_breaker_config()
    agr_breaker_config_init(&config, UInt32(MemoryLayout<agr_breaker_config>.size))
    config.window = Int32(AGR_WINDOW_NONE)
    config.consecutive_failures = failures
    config.open_ns = 5 * second
    config.open_jitter = 0
    config.max_permits = maxPermits
    #expect(agr_breaker_create(&config, &breaker, nil) == 0)
    self.config.breaker = breaker
  }

  func addLimiter(capacity: Int64, perSecond: Int64) {
    var config = agr_limiter_config()
    agr_limiter_config_init(&config, UInt32(MemoryLayout<agr_limiter_config>.size))
    config.capacity = capacity
    config.refill_tokens = perSecond
    var limiter: OpaquePointer?
    #expect(agr_limiter_create_at(&config, 0, &limiter, nil) == 0)
    if limiters.isEmpty {
      self.config.limiters.0 = limiter
    } else {
      self.config.limiters.1 = limiter
    }
    limiters.append(limiter)
    self.config.limiter_count = UInt32(limiters.count)
  }

  func addCache(
    onFailure: Int = AGR_ON_FAILURE_FORGET,
    _ change: (inout agr_idempotency_config) -> Void = { _ in }
  ) {
    var config = agr_idempotency_config()
    agr_idempotency_config_init(&config, UInt32(MemoryLayout<agr_idempotency_config>.size))
    config.on_failure = Int32(onFailure)
    config.lease_ns = second
    change(&config)
    #expect(agr_idempotency_create(&config, &cache, nil) == 0)
    self.config.idempotency = cache
  }

  func addBudget(quota: UInt32, initial: UInt32) {
    var config = agr_retry_budget_config()
    agr_retry_budget_config_init(&config, UInt32(MemoryLayout<agr_retry_budget_config>.size))
    config.min_per_second = 0
    config.ratio = 0
    config.quota = quota
    config.initial = initial
    #expect(agr_retry_budget_create_at(&config, 0, &budget, nil) == 0)
    self.config.budget = budget
  }

  func build(retries: Bool = true) {
    withUnsafePointer(to: &retry) {
      config.retry = retries ? $0 : nil
      var error = agr_error()
      let status = agr_policy_create(&config, &policy, &error)
      #expect(status == 0, "\(text(error.field)): \(text(error.message))")
    }
  }

  func begin(
    key: String? = nil, answerKey: String? = nil, cost: Int64 = 1, deadline: Int64 = 0
  ) -> agr_step {
    agr_call_destroy_at(call, now)
    call = nil
    return start(&call, key: key, answerKey: answerKey, cost: cost, deadline: deadline)
  }

  func start(
    _ call: inout OpaquePointer?, key: String? = nil, answerKey: String? = nil, cost: Int64 = 1,
    deadline: Int64 = 0
  ) -> agr_step {
    var request = agr_request()
    agr_request_init(&request, UInt32(MemoryLayout<agr_request>.size))
    request.costs.0 = cost
    request.deadline_ns = deadline
    var step = freshStep()
    let bytes = Array((key ?? "").utf8)
    let answerBytes = Array((answerKey ?? "").utf8)
    let trace = Array("trace-\"1\"".utf8)
    bytes.withUnsafeBytes { key in
      answerBytes.withUnsafeBytes { answer in
        trace.withUnsafeBufferPointer { trace in
          request.key = key.baseAddress
          request.key_length = key.count
          request.cache_key = answer.baseAddress
          request.cache_key_length = answer.count
          trace.withMemoryRebound(to: CChar.self) {
            request.trace_id = $0.baseAddress
            request.trace_id_length = $0.count
          }
          let status = agr_call_begin_at(policy, &request, now, &call, &step, nil)
          #expect(status == 0)
        }
      }
    }
    return step
  }

  func outcome(
    http code: Int32? = nil, class errorClass: Int = AGR_CLASS_SUCCESS, hint: Int64 = -1,
    cost: Int64 = -1
  ) -> agr_outcome {
    var outcome = agr_outcome()
    agr_outcome_init(&outcome, UInt32(MemoryLayout<agr_outcome>.size))
    outcome.error_class = Int32(errorClass)
    if let code {
      outcome.domain = Int32(AGR_DOMAIN_HTTP)
      outcome.code = code
    }
    outcome.server_delay_ns = hint
    outcome.costs.0 = cost
    return outcome
  }

  func end(_ outcome: agr_outcome, body: String = "", call other: OpaquePointer? = nil) -> agr_step
  {
    var outcome = outcome
    var step = freshStep()
    let bytes = Array(body.utf8)
    bytes.withUnsafeBytes {
      outcome.result = $0.baseAddress
      outcome.result_length = $0.count
      #expect(agr_call_advance_at(other ?? call, &outcome, now, &step, nil) == 0)
    }
    return step
  }

  /// Waits as the step says, and goes on.
  func wait(_ step: agr_step, call other: OpaquePointer? = nil) -> agr_step {
    now += step.wait_ns
    var next = freshStep()
    #expect(agr_call_advance_at(other ?? call, nil, now, &next, nil) == 0)
    return next
  }

  /// Goes on after a wait which the clock alone has ended.
  func wake(at time: Int64, call other: OpaquePointer? = nil) -> agr_step {
    now = time
    var step = freshStep()
    #expect(agr_call_advance_at(other ?? call, nil, now, &step, nil) == 0)
    return step
  }

  func set(_ component: Int, _ mode: Int) {
    #expect(agr_policy_set_mode(policy, Int32(component), Int32(mode), nil) == 0)
  }

  func snapshot() -> agr_policy_snapshot {
    var snapshot = agr_policy_snapshot()
    snapshot.struct_size = UInt32(MemoryLayout<agr_policy_snapshot>.size)
    #expect(agr_policy_snapshot_read(policy, &snapshot, nil) == 0)
    return snapshot
  }
}

func freshStep() -> agr_step {
  var step = agr_step()
  step.struct_size = UInt32(MemoryLayout<agr_step>.size)
  return step
}

/// A fixed array of characters as a string.
func text<T>(_ array: T) -> String {
  withUnsafeBytes(of: array) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
}

func body(_ step: agr_step) -> String {
  String(
    decoding: UnsafeRawBufferPointer(start: step.result, count: step.result_length), as: UTF8.self)
}
