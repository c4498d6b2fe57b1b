import CAutoGLMReliability
import ReliabilityABI
import Testing

@Suite struct PolicyTests {
  @Test("A call that fails and then succeeds: attempt, backoff, attempt, done")
  func retries() {
    let rig = Rig()
    rig.build()
    var step = rig.begin()
    #expect(step.kind == AGR_STEP_ATTEMPT && step.reason == AGR_REASON_FIRST && step.attempt == 1)
    #expect(step.remaining_ns == 60 * second && step.connect_timeout_ns == 3 * second)
    step = rig.end(rig.outcome(http: 500))
    #expect(step.kind == AGR_STEP_WAIT && step.reason == AGR_REASON_BACKOFF)
    #expect(step.wait_ns == 100 * millisecond)
    step = rig.wait(step)
    #expect(step.kind == AGR_STEP_ATTEMPT && step.reason == AGR_REASON_RETRY && step.attempt == 2)
    step = rig.end(rig.outcome())
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_SUCCEEDED)
    let snapshot = rig.snapshot()
    #expect(snapshot.attempts == 2 && snapshot.retries == 1 && snapshot.succeeded == 1)
    #expect(snapshot.backoff_ns == UInt64(100 * millisecond))
  }

  @Test("Attempts run out, permanent errors stop at once, a server's hint is kept")
  func stops() {
    let rig = Rig()
    rig.build()
    var step = rig.begin()
    for _ in 0..<2 { step = rig.wait(rig.end(rig.outcome(http: 500))) }
    step = rig.end(rig.outcome(http: 500))
    #expect(step.reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
    _ = rig.begin()
    #expect(rig.end(rig.outcome(http: 400)).reason == AGR_REASON_FAILED_PERMANENT)
    _ = rig.begin()
    step = rig.end(rig.outcome(http: 429, hint: 7 * second))
    #expect(step.reason == AGR_REASON_SERVER_HINT)
    #expect(step.wait_ns >= 7 * second && step.wait_ns <= 8 * second)
    _ = rig.begin()
    step = rig.end(rig.outcome(http: 429, hint: 121 * second))
    #expect(step.reason == AGR_REASON_HINT_TOO_LONG && step.retry_after_ns == 121 * second)
    _ = rig.begin()
    #expect(rig.end(rig.outcome(class: AGR_CLASS_UNKNOWN)).reason == AGR_REASON_OUTCOME_UNKNOWN)
    _ = rig.begin()
    #expect(rig.end(rig.outcome(class: AGR_CLASS_CANCELLED)).reason == AGR_REASON_CANCELLED)
  }

  @Test("A key lets an unknown outcome be retried, for the upstream may know it")
  func unknownUnderAKey() {
    let rig = Rig()
    rig.build()
    _ = rig.begin(key: "k")
    #expect(rig.end(rig.outcome(class: AGR_CLASS_UNKNOWN)).reason == AGR_REASON_BACKOFF)
  }

  @Test("A run that may have had its effect is told to the next, even when its last attempt failed")
  func unknownIsRemembered() {
    let rig = Rig()
    rig.addCache()
    rig.build()
    _ = rig.begin(key: "k")
    _ = rig.wait(rig.end(rig.outcome(class: AGR_CLASS_UNKNOWN)))
    #expect(rig.end(rig.outcome(http: 400)).reason == AGR_REASON_FAILED_PERMANENT)
    #expect(rig.begin(key: "k").outcome_unknown == 1)
  }

  @Test("No wait overruns the deadline, and it counts over attempts and waits together")
  func deadline() {
    let rig = Rig()
    rig.retry.backoff.base_delay_ns = second
    rig.retry.backoff.max_attempts = 0
    rig.build()
    var step = rig.begin(deadline: 2500 * millisecond)
    #expect(step.remaining_ns == 2500 * millisecond && step.attempt_timeout_ns == step.remaining_ns)
    step = rig.wait(rig.end(rig.outcome(http: 500)))
    #expect(step.remaining_ns == 1500 * millisecond)
    step = rig.end(rig.outcome(http: 500))
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE)
    #expect(step.retry_after_ns == 2 * second)
    rig.now = 10 * second
    step = rig.begin(deadline: 10 * second)
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE)
  }

  @Test("An open breaker refuses with the time until it clears; its permits are always given back")
  func breaker() {
    let rig = Rig()
    rig.addBreaker(failures: 2)
    rig.build(retries: false)
    for _ in 0..<2 {
      _ = rig.begin()
      #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
    }
    let step = rig.begin()
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_OPEN)
    #expect(step.component == AGR_COMPONENT_BREAKER && step.retry_after_ns == 5 * second)
    rig.now = 5 * second
    for _ in 0..<9 { #expect(rig.begin().kind == AGR_STEP_ATTEMPT) }
    #expect(rig.snapshot().abandoned == 8)
  }

  @Test("With retry_when_open the breaker is waited for within the deadline")
  func waitsForBreaker() {
    let rig = Rig()
    rig.addBreaker(failures: 1)
    rig.config.retry_when_open = 1
    rig.build()
    _ = rig.begin()
    var step = rig.end(rig.outcome(http: 500))
    step = rig.wait(step)
    #expect(step.kind == AGR_STEP_WAIT && step.reason == AGR_REASON_WAIT_BREAKER)
    step = rig.wait(step)
    #expect(step.kind == AGR_STEP_ATTEMPT)
    #expect(rig.end(rig.outcome()).reason == AGR_REASON_SUCCEEDED)
  }

  @Test("Limiters are charged for each attempt, all or none, and settled by the real cost")
  func limiters() {
    let rig = Rig()
    rig.addLimiter(capacity: 10, perSecond: 10)
    rig.config.max_limiter_wait_ns = second
    rig.build(retries: false)
    var step = rig.begin(cost: 8)
    #expect(step.kind == AGR_STEP_ATTEMPT)
    _ = rig.end(rig.outcome(cost: 2))
    var left: Int64 = 0
    _ = agr_limiter_available_at(rig.limiters[0], 0, &left, nil)
    #expect(left == 8)
    step = rig.begin(cost: 9)
    #expect(step.kind == AGR_STEP_WAIT && step.reason == AGR_REASON_WAIT_LIMITER)
    #expect(step.wait_ns == 100 * millisecond)
    rig.now += 40 * millisecond
    var early = freshStep()
    #expect(agr_call_advance_at(rig.call, nil, rig.now, &early, nil) == 0)
    #expect(early.kind == AGR_STEP_WAIT && early.wait_ns == 60 * millisecond)
    step = rig.wait(early)
    #expect(step.kind == AGR_STEP_ATTEMPT)
    _ = rig.end(rig.outcome())
    step = rig.begin(cost: 10)
    #expect(step.kind == AGR_STEP_WAIT)
    var other: OpaquePointer?
    let refused = rig.start(&other, cost: 10)
    #expect(refused.reason == AGR_REASON_LIMITED && refused.retry_after_ns == second)
    agr_call_destroy_at(other, rig.now)
    #expect(rig.begin(cost: 11).reason == AGR_REASON_NEVER_FITS)
  }

  @Test("The budget stops retries when it is empty")
  func budget() {
    let rig = Rig()
    rig.addBudget(quota: 1, initial: 1)
    rig.build()
    _ = rig.begin()
    var step = rig.wait(rig.end(rig.outcome(http: 500)))
    step = rig.end(rig.outcome(http: 500))
    #expect(step.reason == AGR_REASON_BUDGET_EXHAUSTED && step.component == AGR_COMPONENT_BUDGET)
  }

  @Test("A key is executed once: others join, are given the result, or are promoted in turn")
  func idempotency() {
    let rig = Rig()
    rig.addCache()
    rig.build(retries: false)
    #expect(rig.begin(key: "k").kind == AGR_STEP_ATTEMPT)
    var second: OpaquePointer?
    var third: OpaquePointer?
    var step = rig.start(&second, key: "k")
    #expect(step.kind == AGR_STEP_JOIN && step.fd >= 0)
    #expect(rig.start(&third, key: "k").kind == AGR_STEP_JOIN)
    #expect(rig.end(rig.outcome(http: 500)).kind == AGR_STEP_DONE)
    var outOfTurn = freshStep()
    #expect(agr_call_advance_at(third, nil, rig.now, &outOfTurn, nil) == 0)
    #expect(outOfTurn.kind == AGR_STEP_JOIN)
    #expect(agr_call_advance_at(second, nil, rig.now, &step, nil) == 0)
    #expect(step.kind == AGR_STEP_ATTEMPT && step.reason == AGR_REASON_PROMOTED)
    #expect(rig.end(rig.outcome(), body: "answer", call: second).reason == AGR_REASON_SUCCEEDED)
    #expect(agr_call_advance_at(third, nil, rig.now, &step, nil) == 0)
    #expect(step.reason == AGR_REASON_REPLAYED && body(step) == "answer")
    step = rig.begin(key: "k")
    #expect(step.reason == AGR_REASON_REPLAYED && body(step) == "answer")
    agr_call_destroy_at(second, rig.now)
    agr_call_destroy_at(third, rig.now)
    #expect(rig.snapshot().attempts == 2)
  }

  @Test("The lease lasts as long as the call may, and one that is abandoned tells the next")
  func leases() {
    let rig = Rig()
    rig.addCache()
    rig.build(retries: false)
    let first = rig.begin(key: "k")
    #expect(first.outcome_unknown == 0 && first.fence > 0)
    rig.now = 30 * second
    var other: OpaquePointer?
    #expect(rig.start(&other, key: "k").kind == AGR_STEP_JOIN)
    agr_call_destroy_at(other, rig.now)
    let next = rig.begin(key: "k")
    #expect(next.kind == AGR_STEP_ATTEMPT && next.outcome_unknown == 1)
    #expect(next.fence > first.fence)
  }

  @Test("After the commit point a failure is final")
  func commit() {
    let rig = Rig()
    rig.build()
    _ = rig.begin()
    #expect(agr_call_commit(rig.call, nil) == 0)
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_COMMITTED)
    #expect(agr_call_commit(rig.call, nil) == Int32(AGR_ERR_STATE))
  }

  @Test("Steps out of order, late outcomes and finished calls are told so and change nothing")
  func outOfOrder() {
    let rig = Rig()
    rig.build()
    let first = rig.begin()
    var step = freshStep()
    #expect(agr_call_advance_at(rig.call, nil, 0, &step, nil) == Int32(AGR_ERR_STATE))
    #expect(step.kind == AGR_STEP_ATTEMPT && step.attempt_id == first.attempt_id)
    var outcome = rig.outcome(http: 500)
    outcome.attempt_id = first.attempt_id &+ 99
    #expect(agr_call_advance_at(rig.call, &outcome, 0, &step, nil) == Int32(AGR_STALE))
    outcome.attempt_id = first.attempt_id
    #expect(agr_call_advance_at(rig.call, &outcome, 0, &step, nil) == 0)
    #expect(agr_call_advance_at(rig.call, &outcome, 0, &step, nil) == Int32(AGR_ERR_STATE))
    step = rig.wait(step)
    #expect(agr_call_advance_at(rig.call, &outcome, 0, &step, nil) == Int32(AGR_STALE))
    #expect(rig.end(rig.outcome()).kind == AGR_STEP_DONE)
    #expect(agr_call_advance_at(rig.call, nil, 0, &step, nil) == Int32(AGR_ERR_STATE))
    #expect(step.reason == AGR_REASON_SUCCEEDED)
  }

  @Test("Combinations that cannot work are refused by name")
  func combinations() {
    func refused(_ change: (Rig) -> Void) -> String {
      let rig = Rig()
      change(rig)
      var error = agr_error()
      let status = withUnsafePointer(to: &rig.retry) { retry in
        if rig.config.retry != nil { rig.config.retry = retry }
        return agr_policy_create(&rig.config, &rig.policy, &error)
      }
      #expect(status == Int32(AGR_ERR_ARGUMENT))
      #expect(rig.policy == nil)
      return text(error.field)
    }
    #expect(refused { $0.addBudget(quota: 1, initial: 1) } == "budget")
    #expect(refused { $0.config.fallback = Int32(AGR_FALLBACK_CACHED) } == "fallback")
    #expect(refused { $0.config.fallback = Int32(AGR_FALLBACK_DEFAULT) } == "fallback")
    #expect(refused { $0.config.attempt_timeout_ns = 61 * second } == "attempt_timeout_ns")
    #expect(refused { $0.config.total_timeout_ns = 0 } == "total_timeout_ns")
    #expect(refused { $0.config.observe = 1 << AGR_COMPONENT_BREAKER } == "observe")
    #expect(refused { $0.config.off = 1 << AGR_COMPONENT_DEADLINE } == "off")
    #expect(refused { $0.config.max_calls = 0 } == "max_calls")
    #expect(refused { $0.config.event_capacity = 100 } == "event_capacity")
    #expect(refused { $0.config.limiter_count = 5 } == "limiter_count")
    #expect(refused { $0.config.retry_when_open = 1 } == "retry_when_open")
    #expect(
      refused {
        $0.addBreaker(failures: 1)
        $0.addLimiter(capacity: 1, perSecond: 1)
        $0.config.order.0 = Int32(AGR_COMPONENT_BREAKER)
        $0.config.order.1 = Int32(AGR_COMPONENT_LIMITER)
        $0.config.order_count = 2
      } == "order")
  }
}
