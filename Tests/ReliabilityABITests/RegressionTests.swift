import CAutoGLMReliability
import ReliabilityABI
import Testing

/// Defects that were found, one test each, so that they stay mended.
@Suite struct RegressionTests {
  @Test("An event is not written in front of a buffer of no bytes")
  func jsonOfNoCapacity() {
    var event = agr_event()
    event.struct_size = UInt32(MemoryLayout<agr_event>.size)
    var buffer = [CChar](repeating: 7, count: 16)
    var length = 0
    let status = buffer.withUnsafeMutableBufferPointer {
      agr_event_json(&event, $0.baseAddress! + 8, 0, &length, nil)
    }
    #expect(status == Int32(AGR_ERR_CAPACITY))
    #expect(length > 0)
    #expect(buffer.allSatisfy { $0 == 7 })
  }

  @Test("A call whose lease ran out between attempts does not go on: another may have the key")
  func leaseBetweenAttempts() {
    let rig = Rig()
    rig.addCache()
    rig.config.total_timeout_ns = .max
    rig.retry.backoff.base_delay_ns = 2 * second
    rig.build()
    _ = rig.begin(key: "k")
    var other: OpaquePointer?
    rig.now = 1_500 * millisecond
    #expect(rig.start(&other, key: "k").kind == AGR_STEP_ATTEMPT, "a lease lasts a second here")
    rig.now = 2 * second
    let step = rig.end(rig.outcome(http: 500))
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LEASE_LOST)
    agr_call_destroy_at(other, rig.now)
    let begun = rig.begin(key: "fresh")
    #expect(begun.kind == AGR_STEP_ATTEMPT)
    let wait = rig.end(rig.outcome(http: 500))
    rig.now += 1_500 * millisecond
    #expect(rig.start(&other, key: "fresh").kind == AGR_STEP_JOIN, "a wait is covered")
    agr_call_destroy_at(other, rig.now)
    rig.now += wait.wait_ns - 1_500 * millisecond
    var next = agr_step()
    next.struct_size = UInt32(MemoryLayout<agr_step>.size)
    #expect(agr_call_advance_at(rig.call, nil, rig.now, &next, nil) == 0)
    #expect(next.kind == AGR_STEP_ATTEMPT)
  }

  @Test("What a smaller capacity cut does not come back by a cancellation after it grew again")
  func capacityInBetween() {
    var config = agr_limiter_config()
    agr_limiter_config_init(&config, UInt32(MemoryLayout<agr_limiter_config>.size))
    config.capacity = 10
    config.refill_tokens = 0
    var limiter: OpaquePointer?
    #expect(agr_limiter_create_at(&config, 0, &limiter, nil) == 0)
    defer { agr_limiter_destroy(limiter) }
    var reserved = agr_reservation()
    #expect(agr_limiter_reserve_at(limiter, 5, 0, 0, &reserved, nil, nil) == 0)
    for capacity: Int64 in [2, 10] {
      config.capacity = capacity
      #expect(agr_limiter_reconfigure_at(limiter, &config, 0, nil) == 0)
    }
    #expect(agr_limiter_cancel_at(limiter, reserved.permit, 0, nil) == 0)
    var available: Int64 = -1
    #expect(agr_limiter_available_at(limiter, 0, &available, nil) == 0)
    #expect(available == 2)
  }

  @Test("A rule's count of retries is kept beyond 255")
  func manyRetries() {
    let rig = Rig()
    var rule = agr_retry_rule()
    rule.domain = Int32(AGR_DOMAIN_USER)
    rule.code_max = 9
    rule.error_class = Int32(AGR_CLASS_TRANSIENT)
    rule.max_retries = 300
    rig.retry.backoff.max_attempts = 0
    rig.retry.backoff.base_delay_ns = 0
    withUnsafePointer(to: &rule) {
      rig.retry.rules = $0
      rig.retry.rule_count = 1
      rig.build()
    }
    var step = rig.begin()
    var attempts = 0
    while step.kind == AGR_STEP_ATTEMPT && attempts < 1_000 {
      attempts += 1
      var outcome = rig.outcome(class: AGR_CLASS_TRANSIENT)
      outcome.domain = Int32(AGR_DOMAIN_USER)
      outcome.code = 5
      step = rig.end(outcome)
    }
    #expect(attempts == 301 && step.reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
  }

  @Test("A call goes on when its clock is set back, and keeps what was left to wait")
  func clockSetBack() {
    let rig = Rig()
    rig.now = 1_000_000 * second
    rig.build()
    _ = rig.begin()
    _ = rig.end(rig.outcome(http: 500))
    rig.now = 5 * second
    var step = agr_step()
    step.struct_size = UInt32(MemoryLayout<agr_step>.size)
    #expect(agr_call_advance_at(rig.call, nil, rig.now, &step, nil) == 0)
    #expect(step.kind == AGR_STEP_WAIT && step.wait_ns == 100 * millisecond)
    #expect(step.remaining_ns == 60 * second)
    #expect(rig.wait(step).kind == AGR_STEP_ATTEMPT)
  }

  @Test("An observed cache replays to nobody")
  func observedReplay() {
    let rig = Rig()
    rig.addCache()
    rig.config.observe = 1 << AGR_COMPONENT_IDEMPOTENCY
    rig.build(retries: false)
    for _ in 0..<3 {
      #expect(rig.begin(key: "k").kind == AGR_STEP_ATTEMPT)
      #expect(rig.end(rig.outcome(), body: "answer").reason == AGR_REASON_SUCCEEDED)
    }
    #expect(rig.snapshot().observed == 2)
  }

  @Test("A wait for tokens that would overrun the deadline is the deadline's refusal")
  func limiterBeyondDeadline() {
    let rig = Rig()
    rig.addLimiter(capacity: 1, perSecond: 1)
    rig.config.max_limiter_wait_ns = 60 * second
    rig.build(retries: false)
    _ = rig.begin()
    var other: OpaquePointer?
    let late = rig.start(&other, deadline: 500 * millisecond)
    #expect(late.reason == AGR_REASON_DEADLINE && late.component == AGR_COMPONENT_LIMITER)
    #expect(late.retry_after_ns == second)
    agr_call_destroy_at(other, 0)
    let exact = rig.start(&other, deadline: second)
    #expect(exact.kind == AGR_STEP_DONE && exact.reason == AGR_REASON_DEADLINE)
    agr_call_destroy_at(other, 0)
    let inTime = rig.start(&other, deadline: second + 1)
    #expect(inTime.kind == AGR_STEP_WAIT && inTime.wait_ns == second)
    agr_call_destroy_at(other, 0)
  }

  @Test("A cached answer does not outlive its time because the clock was set back")
  func cachedAnswerSetBack() {
    let rig = Rig()
    rig.config.cached_entries = 8
    rig.config.cached_ttl_ns = second
    rig.config.fallback = Int32(AGR_FALLBACK_CACHED)
    rig.now = 1_000 * second
    rig.build(retries: false)
    _ = rig.begin(answerKey: "prompt")
    _ = rig.end(rig.outcome(), body: "old")
    rig.now = 900 * second
    _ = rig.begin(answerKey: "prompt")
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
  }

  @Test("However often the mode is changed, nothing counted before comes back")
  func manyGenerations() {
    var config = agr_breaker_config()
    agr_breaker_config_init(&config, UInt32(MemoryLayout<agr_breaker_config>.size))
    var breaker: OpaquePointer?
    #expect(agr_breaker_create(&config, &breaker, nil) == 0)
    defer { agr_breaker_destroy(breaker) }
    for _ in 0..<19 {
      var permit: UInt64 = 0
      #expect(agr_breaker_acquire_at(breaker, 0, &permit, nil, nil) == 0)
      let outcome = Int32(AGR_OUTCOME_FAILURE)
      #expect(agr_breaker_report_at(breaker, permit, outcome, 0, 0, nil) == 0)
    }
    for _ in 0..<2_048 {
      #expect(agr_breaker_force_at(breaker, Int32(AGR_BREAKER_FORCED_CLOSED), 0, nil) == 0)
      #expect(agr_breaker_force_at(breaker, Int32(AGR_BREAKER_AUTOMATIC), 0, nil) == 0)
    }
    var snapshot = agr_breaker_snapshot()
    snapshot.struct_size = UInt32(MemoryLayout<agr_breaker_snapshot>.size)
    #expect(agr_breaker_snapshot_read_at(breaker, 0, &snapshot, nil) == 0)
    #expect(snapshot.window_total == 0 && snapshot.window_failures == 0)
  }

  @Test("Observed limiters admit everybody, and are not given what they did not give")
  func observedLimiters() {
    var config = agr_limiter_config()
    agr_limiter_config_init(&config, UInt32(MemoryLayout<agr_limiter_config>.size))
    config.capacity = 5
    config.observe = 1
    config.initial_tokens = 0
    var observed: OpaquePointer?
    #expect(agr_limiter_create_at(&config, 0, &observed, nil) == 0)
    config.observe = 0
    var strict: OpaquePointer?
    #expect(agr_limiter_create_at(&config, 0, &strict, nil) == 0)
    defer { for one in [observed, strict] { agr_limiter_destroy(one) } }
    var demands = [
      agr_limiter_demand(limiter: observed, tokens: 5),
      agr_limiter_demand(limiter: strict, tokens: 1),
    ]
    #expect(
      agr_limiter_try_acquire_all_at(&demands, 2, 0, nil, nil, nil) == Int32(AGR_LIMITED))
    var available: Int64 = -1
    #expect(agr_limiter_available_at(observed, 0, &available, nil) == 0 && available == 0)

    var keyed = agr_keyed_limiter_config()
    agr_keyed_limiter_config_init(&keyed, UInt32(MemoryLayout<agr_keyed_limiter_config>.size))
    (keyed.capacity, keyed.refill_tokens, keyed.max_keys, keyed.observe) = (1, 1, 1, 1)
    var limiter: OpaquePointer?
    #expect(agr_keyed_limiter_create(&keyed, &limiter, nil) == 0)
    defer { agr_keyed_limiter_destroy(limiter) }
    for key in 0..<100 {
      var key = key
      #expect(agr_keyed_limiter_try_acquire_at(limiter, &key, 8, 1, 0, nil, nil) == 0)
    }
  }
}
