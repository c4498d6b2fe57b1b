import CAutoGLMReliability
import ReliabilityABI
import Testing

/// What happens where two parts of a policy meet: a bound that is reached, a deadline that ends another's wait,
/// a lease that was lost.
@Suite struct PolicyCornerTests {
  @Test("A cache that is full refuses the call, or is only observed")
  func cacheFull() {
    let rig = Rig()
    rig.addCache { $0.max_entries = 1 }
    rig.build(retries: false)
    #expect(rig.begin(key: "a").kind == AGR_STEP_ATTEMPT)
    var other: OpaquePointer?
    let step = rig.start(&other, key: "b")
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_CAPACITY)
    #expect(step.component == AGR_COMPONENT_IDEMPOTENCY)
    agr_call_destroy_at(other, rig.now)
    rig.set(AGR_COMPONENT_IDEMPOTENCY, AGR_MODE_OBSERVE)
    #expect(rig.start(&other, key: "b").kind == AGR_STEP_ATTEMPT)
    agr_call_destroy_at(other, rig.now)
    #expect(rig.snapshot().observed == 1)
  }

  @Test(
    "A deadline ends the wait for another's run, and gives a turn that comes too late to the next")
  func joinedDeadline() {
    let rig = Rig()
    rig.addCache { $0.lease_ns = 100 * second }
    rig.build(retries: false)
    #expect(rig.begin(key: "k").kind == AGR_STEP_ATTEMPT)
    var late: OpaquePointer?
    var later: OpaquePointer?
    #expect(rig.start(&late, key: "k", deadline: second).wait_ns == second)
    #expect(rig.start(&later, key: "k", deadline: 2 * second).kind == AGR_STEP_JOIN)
    var step = rig.wake(at: second, call: late)
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE)
    #expect(step.component == AGR_COMPONENT_IDEMPOTENCY && step.retry_after_ns == 99 * second)
    rig.now = 2 * second
    #expect(rig.end(rig.outcome(http: 500)).kind == AGR_STEP_DONE)
    step = rig.wake(at: 2 * second, call: later)
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_DEADLINE)
    #expect(step.component == AGR_COMPONENT_DEADLINE)
    agr_call_destroy_at(late, rig.now)
    agr_call_destroy_at(later, rig.now)
    step = rig.begin(key: "k")
    #expect(step.kind == AGR_STEP_ATTEMPT && step.outcome_unknown == 0)
  }

  @Test("A result that cannot be pinned for one who joined ends that call, and it alone")
  func noPin() {
    let rig = Rig()
    rig.addCache { $0.max_pins = 1 }
    rig.build(retries: false)
    _ = rig.begin(key: "k")
    var joined: OpaquePointer?
    var reader: OpaquePointer?
    #expect(rig.start(&joined, key: "k").kind == AGR_STEP_JOIN)
    #expect(rig.end(rig.outcome(), body: "answer").reason == AGR_REASON_SUCCEEDED)
    #expect(rig.start(&reader, key: "k").reason == AGR_REASON_REPLAYED)
    #expect(rig.wake(at: rig.now, call: joined).reason == AGR_REASON_CAPACITY)
    agr_call_destroy_at(joined, rig.now)
    agr_call_destroy_at(reader, rig.now)
    #expect(rig.begin(key: "k").reason == AGR_REASON_REPLAYED)
  }

  @Test("Who wakes up after the deadline makes no attempt, whatever was waited for")
  func wokenTooLate() {
    let rig = Rig()
    rig.addLimiter(capacity: 1, perSecond: 1)
    rig.config.max_limiter_wait_ns = 10 * second
    rig.build()
    _ = rig.begin()
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_BACKOFF)
    #expect(rig.wake(at: 61 * second).reason == AGR_REASON_DEADLINE)
    _ = rig.begin()
    var other: OpaquePointer?
    let step = rig.start(&other, deadline: 61 * second + 1100 * millisecond)
    #expect(step.reason == AGR_REASON_WAIT_LIMITER)
    #expect(rig.wake(at: 63 * second, call: other).reason == AGR_REASON_DEADLINE)
    agr_call_destroy_at(other, rig.now)
    #expect(rig.snapshot().attempts == 2)
  }

  @Test("A cost that never fits and a breaker without a permit are told, or only observed")
  func refusalsOfParts() {
    let rig = Rig()
    rig.addLimiter(capacity: 5, perSecond: 5)
    rig.addBreaker(failures: 5, maxPermits: 1)
    rig.build(retries: false)
    #expect(rig.begin(cost: 6).reason == AGR_REASON_NEVER_FITS)
    #expect(rig.begin().kind == AGR_STEP_ATTEMPT)
    var other: OpaquePointer?
    let step = rig.start(&other)
    #expect(step.reason == AGR_REASON_CAPACITY && step.component == AGR_COMPONENT_BREAKER)
    agr_call_destroy_at(other, rig.now)
    rig.set(AGR_COMPONENT_BREAKER, AGR_MODE_OBSERVE)
    rig.set(AGR_COMPONENT_LIMITER, AGR_MODE_OBSERVE)
    #expect(rig.start(&other, cost: 6).kind == AGR_STEP_ATTEMPT)
    agr_call_destroy_at(other, rig.now)
    #expect(rig.snapshot().observed == 2)
  }

  @Test(
    "A key that went to another between attempts is not executed, and the breaker's permit is given back"
  )
  func leaseLost() {
    let rig = Rig()
    rig.addCache()
    rig.addBreaker(failures: 5, maxPermits: 1)
    rig.config.total_timeout_ns = Int64.max
    rig.build()
    let first = rig.begin(key: "k")
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_BACKOFF)
    // The lease is good for the backoff and a second; the host comes back much later.
    rig.now = 10 * second
    var other: OpaquePointer?
    rig.set(AGR_COMPONENT_BREAKER, AGR_MODE_OFF)
    let taken = rig.start(&other, key: "k")
    #expect(taken.kind == AGR_STEP_ATTEMPT && taken.fence > first.fence)
    #expect(taken.outcome_unknown == 1)
    rig.set(AGR_COMPONENT_BREAKER, AGR_MODE_ENFORCE)
    let step = rig.wake(at: rig.now)
    #expect(step.kind == AGR_STEP_DONE && step.reason == AGR_REASON_LEASE_LOST)
    #expect(rig.end(rig.outcome(), body: "answer", call: other).reason == AGR_REASON_SUCCEEDED)
    agr_call_destroy_at(other, rig.now)
    #expect(rig.begin(key: "k").reason == AGR_REASON_REPLAYED)
    #expect(rig.begin().kind == AGR_STEP_ATTEMPT)
  }

  @Test("A lease that ran out during the attempt is noticed before the wait")
  func leaseLostInAttempt() {
    let rig = Rig()
    rig.addCache()
    rig.config.total_timeout_ns = Int64.max
    rig.build()
    _ = rig.begin(key: "k")
    rig.now = 10 * second
    var other: OpaquePointer?
    #expect(rig.start(&other, key: "k").kind == AGR_STEP_ATTEMPT)
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_LEASE_LOST)
    agr_call_destroy_at(other, rig.now)
  }

  @Test("A success that is too large to keep is one all the same, and the next is told of it")
  func tooLargeToKeep() {
    let rig = Rig()
    rig.addCache { $0.max_bytes = 16 }
    rig.build(retries: false)
    _ = rig.begin(key: "k")
    let large = String(repeating: "x", count: 17)
    #expect(rig.end(rig.outcome(), body: large).reason == AGR_REASON_SUCCEEDED)
    let next = rig.begin(key: "k")
    #expect(next.kind == AGR_STEP_ATTEMPT && next.outcome_unknown == 1)
  }

  @Test("A failure that is too large to keep is forgotten")
  func failureTooLargeToKeep() {
    let rig = Rig()
    rig.addCache(onFailure: AGR_ON_FAILURE_KEEP) { $0.max_bytes = 16 }
    rig.build(retries: false)
    _ = rig.begin(key: "k")
    let large = String(repeating: "x", count: 17)
    #expect(rig.end(rig.outcome(http: 400), body: large).reason == AGR_REASON_FAILED_PERMANENT)
    let next = rig.begin(key: "k")
    #expect(next.kind == AGR_STEP_ATTEMPT && next.outcome_unknown == 0)
    #expect(rig.end(rig.outcome(http: 400), body: "no").reason == AGR_REASON_FAILED_PERMANENT)
    #expect(rig.begin(key: "k").reason == AGR_REASON_REPLAYED_FAILURE)
  }

  @Test("Retries and their budget can be observed: counted, not made; made, and not refused")
  func observedRetries() {
    let rig = Rig()
    rig.addBudget(quota: 1, initial: 0)
    rig.config.observe = 1 << AGR_COMPONENT_RETRY
    rig.build()
    _ = rig.begin()
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
    #expect(rig.snapshot().observed == 1 && rig.snapshot().retries == 0)
    rig.set(AGR_COMPONENT_RETRY, AGR_MODE_ENFORCE)
    rig.set(AGR_COMPONENT_BUDGET, AGR_MODE_OBSERVE)
    _ = rig.begin()
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_BACKOFF)
    #expect(rig.snapshot().observed == 2 && rig.snapshot().refused_budget == 0)
  }

  @Test("A seed makes the delays repeatable")
  func seeded() {
    func delays(_ seed: UInt64) -> [Int64] {
      let rig = Rig()
      rig.config.seed = seed
      rig.retry.backoff.jitter = Int32(AGR_JITTER_FULL)
      rig.build()
      return (0..<8).map { _ in
        _ = rig.begin()
        return rig.end(rig.outcome(http: 500)).wait_ns
      }
    }
    #expect(delays(7) == delays(7))
    #expect(delays(7) != delays(8))
  }

  @Test("The retries that a rule allows are each call's own, also where another call was before")
  func retriesOfARule() {
    let rig = Rig()
    rig.retry.backoff.max_attempts = 0
    rig.build()
    for _ in 0..<3 {
      var step = rig.begin()
      for _ in 0..<2 {
        step = rig.end(rig.outcome(http: 503))
        #expect(step.kind == AGR_STEP_WAIT)
        step = rig.wait(step)
      }
      #expect(rig.end(rig.outcome(http: 503)).reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
    }
  }

  @Test("No more calls than max_calls are alive")
  func callsAreBounded() {
    let rig = Rig()
    rig.config.max_calls = 2
    rig.build()
    var calls: [OpaquePointer?] = [nil, nil, nil]
    var step = freshStep()
    var error = agr_error()
    #expect(agr_call_begin_at(rig.policy, nil, 0, &calls[0], &step, nil) == 0)
    #expect(agr_call_begin_at(rig.policy, nil, 0, &calls[1], &step, nil) == 0)
    #expect(
      agr_call_begin_at(rig.policy, nil, 0, &calls[2], &step, &error) == Int32(AGR_ERR_CAPACITY))
    #expect(text(error.field) == "max_calls" && calls[2] == nil)
    agr_call_destroy_at(calls[0], 0)
    #expect(agr_call_begin_at(rig.policy, nil, 0, &calls[2], &step, nil) == 0)
    agr_call_destroy_at(calls[1], 0)
    agr_call_destroy_at(calls[2], 0)
  }

  @Test("Cached answers: the newest of a set stay, and the bytes are bounded")
  func cachedAnswers() {
    let rig = Rig()
    rig.config.cached_entries = 4
    rig.config.cached_bytes = 100
    rig.config.fallback = Int32(AGR_FALLBACK_CACHED)
    rig.build(retries: false)
    func store(_ key: String, _ size: Int) {
      rig.now += 1
      _ = rig.begin(answerKey: key)
      _ = rig.end(rig.outcome(), body: String(repeating: "x", count: size))
    }
    func isKept(_ key: String) -> Bool {
      _ = rig.begin(answerKey: key)
      return rig.end(rig.outcome(http: 500)).reason == AGR_REASON_FALLBACK_CACHED
    }
    for key in ["a", "b", "c", "d", "e"] { store(key, 20) }
    #expect(["a", "b", "c", "d", "e"].map(isKept) == [false, true, true, true, true])
    store("f", 90)
    #expect(["b", "c", "d", "e", "f"].map(isKept) == [false, false, false, false, true])
    store("g", 101)
    #expect(!isKept("g"))
    store("f", 1)
    _ = rig.begin(answerKey: "f")
    #expect(body(rig.end(rig.outcome(http: 500))) == "x")
  }

  @Test("A part cannot be observed and off, and a fallback cannot be observed")
  func modes() {
    func field(_ change: (Rig) -> Void) -> String {
      let rig = Rig()
      rig.addBreaker(failures: 1)
      change(rig)
      var error = agr_error()
      #expect(agr_policy_create(&rig.config, &rig.policy, &error) == Int32(AGR_ERR_ARGUMENT))
      return text(error.field)
    }
    #expect(
      field {
        $0.config.observe = 1 << AGR_COMPONENT_BREAKER
        $0.config.off = 1 << AGR_COMPONENT_BREAKER
      } == "observe")
    #expect(
      field {
        $0.config.fallback = Int32(AGR_FALLBACK_QUEUE)
        $0.config.observe = 1 << AGR_COMPONENT_FALLBACK
      } == "observe")
    let rig = Rig()
    rig.config.fallback = Int32(AGR_FALLBACK_QUEUE)
    rig.build()
    var error = agr_error()
    for mode in [AGR_MODE_OBSERVE, -1, 3] {
      let status = agr_policy_set_mode(
        rig.policy, Int32(AGR_COMPONENT_FALLBACK), Int32(mode), &error)
      #expect(status == Int32(AGR_ERR_ARGUMENT) && text(error.field) == "mode")
    }
  }

  @Test("Control characters and what is not ASCII are escaped in the JSON of an event")
  func escapes() {
    var event = agr_event()
    event.struct_size = UInt32(MemoryLayout<agr_event>.size)
    event.kind = Int32(AGR_EVENT_REFUSED)
    event.reason = Int32(AGR_REASON_OPEN)
    event.retry_after_ns = Int64.max
    withUnsafeMutableBytes(of: &event.trace_id) { $0.copyBytes(from: [0x1f, 0xe9, 0x5c, 0x41]) }
    var buffer = [CChar](repeating: 0, count: 1024)
    var length = 0
    #expect(agr_event_json(&event, &buffer, buffer.count, &length, nil) == 0)
    let line = String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    #expect(line.contains(#""\u001f\u00e9\\A""#))
    #expect(line.contains(#""retry_after_ms":null"#) && line.contains(#""reason":"open""#))
  }

  @Test("Every reason and part has a name of its own in the JSON of an event")
  func names() {
    func name(reason: Int, component: Int) -> String {
      var event = agr_event()
      event.struct_size = UInt32(MemoryLayout<agr_event>.size)
      event.kind = Int32(AGR_EVENT_DONE)
      event.reason = Int32(reason)
      event.component = Int32(component)
      var buffer = [CChar](repeating: 0, count: 1024)
      var length = 0
      #expect(agr_event_json(&event, &buffer, buffer.count, &length, nil) == 0)
      return String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self)
    }
    let reasons = Array(0...4) + Array(10...26) + Array(40...47)
    #expect(Set(reasons.map { name(reason: $0, component: 0) }).count == reasons.count)
    #expect(Set((0...7).map { name(reason: 0, component: $0) }).count == 8)
    #expect(reasons.allSatisfy { !name(reason: $0, component: 0).contains("\"unknown\"") })
    #expect(name(reason: 99, component: 99).contains("\"unknown\""))
  }

  @Test("A call that was executed without being asked for keeps nothing alive")
  func executeWithoutCall() {
    let rig = Rig()
    rig.addCache()
    rig.build(retries: false)
    _ = rig.begin(key: "k")
    #expect(rig.end(rig.outcome(), body: "answer").reason == AGR_REASON_SUCCEEDED)
    agr_call_destroy_at(rig.call, rig.now)
    rig.call = nil
    let key = Array("k".utf8)
    var step = freshStep()
    key.withUnsafeBytes {
      var request = agr_request()
      agr_request_init(&request, UInt32(MemoryLayout<agr_request>.size))
      request.key = $0.baseAddress
      request.key_length = $0.count
      let status = agr_policy_execute(rig.policy, &request, { _, _, _ in }, nil, nil, &step, nil)
      #expect(status == 0)
    }
    #expect(step.reason == AGR_REASON_REPLAYED && step.result == nil && step.result_length == 0)
    #expect(rig.snapshot().calls_alive == 0)
    var snapshot = agr_idempotency_snapshot()
    snapshot.struct_size = UInt32(MemoryLayout<agr_idempotency_snapshot>.size)
    #expect(agr_idempotency_snapshot_read(rig.cache, &snapshot, nil) == 0)
    #expect(snapshot.pins == 0)
  }
}
