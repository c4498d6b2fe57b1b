import CAutoGLMReliability
import ReliabilityABI
import Testing

@Suite struct PolicyPartsTests {
  @Test("Fallbacks: the cached answer, else the default, switchable while in use")
  func fallbacks() {
    let rig = Rig()
    rig.config.cached_entries = 8
    rig.config.fallback = Int32(AGR_FALLBACK_CACHED_OR_DEFAULT)
    let standard = Array("sorry".utf8)
    standard.withUnsafeBytes {
      rig.config.fallback_data = $0.baseAddress
      rig.config.fallback_length = $0.count
      rig.build(retries: false)
    }
    _ = rig.begin(answerKey: "prompt")
    var step = rig.end(rig.outcome(http: 500))
    #expect(step.reason == AGR_REASON_FALLBACK_DEFAULT && body(step) == "sorry")
    _ = rig.begin(answerKey: "prompt")
    _ = rig.end(rig.outcome(), body: "good")
    _ = rig.begin(answerKey: "prompt")
    step = rig.end(rig.outcome(http: 500))
    #expect(step.reason == AGR_REASON_FALLBACK_CACHED && body(step) == "good")
    _ = rig.begin(answerKey: "other")
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_FALLBACK_DEFAULT)
    _ = rig.begin(answerKey: "prompt")
    #expect(rig.end(rig.outcome(http: 400)).reason == AGR_REASON_FAILED_PERMANENT)
    #expect(agr_policy_set_fallback(rig.policy, Int32(AGR_FALLBACK_QUEUE), nil) == 0)
    _ = rig.begin(answerKey: "prompt")
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_QUEUE)
    #expect(
      agr_policy_set_mode(
        rig.policy, Int32(AGR_COMPONENT_FALLBACK), Int32(AGR_MODE_OFF), nil) == 0)
    _ = rig.begin(answerKey: "prompt")
    #expect(rig.end(rig.outcome(http: 500)).reason == AGR_REASON_ATTEMPTS_EXHAUSTED)
  }

  @Test("Any part can be observed: it counts, and refuses nobody")
  func observes() {
    let rig = Rig()
    rig.addLimiter(capacity: 1, perSecond: 1)
    rig.addBreaker(failures: 1)
    rig.addCache()
    rig.config.observe =
      1 << AGR_COMPONENT_LIMITER | 1 << AGR_COMPONENT_BREAKER | 1 << AGR_COMPONENT_IDEMPOTENCY
    rig.build(retries: false)
    for _ in 0..<3 {
      #expect(rig.begin(key: "k").kind == AGR_STEP_ATTEMPT)
      _ = rig.end(rig.outcome(http: 500))
    }
    var other: OpaquePointer?
    _ = rig.begin(key: "k")
    #expect(rig.start(&other, key: "k").kind == AGR_STEP_ATTEMPT)
    agr_call_destroy_at(other, rig.now)
    #expect(rig.snapshot().observed >= 5)
    #expect(rig.snapshot().refused_limiter == 0)
  }

  @Test("Events come in order and render as JSON, whatever the trace id holds")
  func events() {
    let rig = Rig()
    rig.build()
    _ = rig.begin()
    _ = rig.end(rig.outcome(http: 503))
    var cursor: UInt64 = 0
    var lines: [String] = []
    var calls: Set<UInt64> = []
    while true {
      var event = agr_event()
      event.struct_size = UInt32(MemoryLayout<agr_event>.size)
      if agr_policy_next_event(rig.policy, &cursor, &event, nil, nil) == Int32(AGR_EMPTY) { break }
      calls.insert(event.call_id)
      event.call_id = 1
      var length = 0
      #expect(agr_event_json(&event, nil, 0, &length, nil) == 0)
      var buffer = [CChar](repeating: 1, count: length + 1)
      #expect(agr_event_json(&event, &buffer, buffer.count, &length, nil) == 0)
      #expect(
        agr_event_json(&event, &buffer, length, &length, nil) == Int32(AGR_ERR_CAPACITY))
      #expect(agr_event_json(&event, &buffer, buffer.count, &length, nil) == 0)
      lines.append(String(decoding: buffer[..<length].map { UInt8(bitPattern: $0) }, as: UTF8.self))
    }
    #expect(calls.count == 1 && !calls.contains(0))
    #expect(
      lines == [
        """
        {"event":"attempt","call":1,"trace_id":"trace-\\"1\\"","attempt":1,"reason":"none",\
        "component":"none","domain":"http","code":503,"class":"temporary","backoff_ms":0.000,\
        "latency_ms":0.000,"time_ns":0}
        """,
        """
        {"event":"retry","call":1,"trace_id":"trace-\\"1\\"","attempt":1,"reason":"backoff",\
        "component":"retry","domain":"http","code":503,"class":"temporary","backoff_ms":2000.000,\
        "latency_ms":0.000,"time_ns":0}
        """,
      ])
  }

  @Test("Execute drives a call to its end, and hands out the result with the call")
  func executes() {
    let rig = Rig()
    rig.addCache()
    rig.retry.backoff.base_delay_ns = 0
    rig.build()
    var attempts: Int32 = 0
    let function: agr_attempt_fn = { step, outcome, data in
      let attempts = data!.assumingMemoryBound(to: Int32.self)
      attempts.pointee += 1
      outcome!.pointee.error_class = Int32(
        step!.pointee.attempt < 3 ? AGR_CLASS_TRANSIENT : AGR_CLASS_SUCCESS)
    }
    var step = freshStep()
    #expect(
      agr_policy_execute(rig.policy, nil, function, &attempts, &rig.call, &step, nil) == 0)
    #expect(attempts == 3 && step.reason == AGR_REASON_SUCCEEDED && rig.call != nil)
    let bad: agr_attempt_fn = { _, outcome, _ in outcome!.pointee.error_class = 99 }
    var error = agr_error()
    #expect(
      agr_policy_execute(rig.policy, nil, bad, nil, nil, &step, &error)
        == Int32(AGR_ERR_ARGUMENT))
    #expect(text(error.field) == "error_class")
    #expect(rig.snapshot().calls_alive == 1)
  }

  @Test("Calls are bounded, and their places are used again")
  func bounded() {
    let rig = Rig()
    rig.config.max_calls = 3
    rig.build()
    var calls = [OpaquePointer?](repeating: nil, count: 4)
    for index in 0..<3 { #expect(rig.start(&calls[index]).kind == AGR_STEP_ATTEMPT) }
    var step = freshStep()
    #expect(
      agr_call_begin_at(rig.policy, nil, 0, &calls[3], &step, nil) == Int32(AGR_ERR_CAPACITY))
    for _ in 0..<1_000 {
      agr_call_destroy_at(calls[0], 0)
      #expect(rig.start(&calls[0]).kind == AGR_STEP_ATTEMPT)
    }
    agr_policy_destroy(rig.policy)
    rig.policy = nil
    // They go on without the policy's owner.
    var outcome = rig.outcome()
    #expect(agr_call_advance_at(calls[1], &outcome, 0, &step, nil) == 0)
    #expect(step.reason == AGR_REASON_SUCCEEDED)
    for call in calls { agr_call_destroy_at(call, 0) }
  }
}
