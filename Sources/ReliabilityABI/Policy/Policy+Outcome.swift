import ReliabilityCore

// What follows from the outcome of an attempt.

extension Policy {
  /// Goes on with the outcome of the present attempt.
  func conclude(_ call: Handle<Call>, _ outcome: AttemptOutcome) {
    if waits { call.pointee.enter() }
    let errorClass = outcome.rule.errorClass
    let latency =
      outcome.latency >= 0
      ? outcome.latency : Time.subtract(call.pointee.now, call.pointee.attemptStart)
    settle(call, outcome, latency)
    if waits { call.pointee.catchUp() }
    if errorClass == .success {
      succeed(call, outcome)
      return
    }
    if errorClass == .unknown || errorClass == .cancelled { call.pointee.mayHaveRun = true }
    note(call, .attempt) { fill(&$0, outcome, latency) }
    if call.pointee.isCommitted {
      fail(call, errorClass == .cancelled ? .cancelled : .committed, .retry, outcome)
      return
    }
    retry(call, outcome)
  }

  /// Tells the breaker and the limiters.
  private func settle(_ call: Handle<Call>, _ outcome: AttemptOutcome, _ latency: Int64) {
    if call.pointee.permit != 0, let breaker = configuration.parts.breaker {
      breaker.report(
        call.pointee.permit, outcome.rule.errorClass.outcome, latency: latency, call)
      call.pointee.permit = 0
    }
    for index in 0..<configuration.parts.limiterCount
    where call.pointee.reservations[index] != 0 {
      configuration.parts.limiters[index]?.settle(
        call.pointee.reservations[index], actual: outcome.costs[index], call)
    }
    forgetReservations(call)
  }

  private func succeed(_ call: Handle<Call>, _ outcome: AttemptOutcome) {
    if call.pointee.lease != 0, let keys = configuration.parts.keys {
      // If it cannot be kept, whoever asks next must know that it was executed all the same.
      keys.end(call, .success, outcome.result, outcome.resultLength)
      call.pointee.lease = 0
    }
    if call.pointee.hasAnswerKey {
      answers.put(
        call.pointee.answerKey, outcome.result, outcome.resultLength, now: call.pointee.now)
    }
    finish(call, .succeeded, .none)
  }

  /// Tries again, or stops and says why.
  private func retry(_ call: Handle<Call>, _ outcome: AttemptOutcome) {
    guard let retry = configuration.retry, mode(.retry) != .off else {
      fail(call, Policy.reasonWithoutRetry(outcome.rule.errorClass), .none, outcome)
      return
    }
    let verdict = retry.decide(
      Retry.Failed(
        attempt: call.pointee.attempt,
        reasonRetries: retries(call, outcome.ruleIndex), rule: outcome.rule,
        hasKey: call.pointee.hasKey, previousDelay: call.pointee.previousDelay,
        serverDelay: outcome.serverDelay, random: random()))
    let delay: Int64
    switch verdict {
    case .stop(let stop):
      fail(
        call, Reason(stop), .retry, outcome, retryAfter: Swift.max(0, outcome.serverDelay))
      return
    case .retry(let wait): delay = wait
    }
    if mode(.retry) == .observe {
      observe(call, .retry, .retry, delay)
      fail(call, Policy.reasonWithoutRetry(outcome.rule.errorClass), .none, outcome)
      return
    }
    guard delay < call.pointee.remaining else {
      fail(call, .deadline, .deadline, outcome, retryAfter: delay)
      return
    }
    guard let refusal = payForRetry(call) else {
      wait(call, outcome, delay)
      return
    }
    note(call, .refused) {
      $0.reason = Reason.budgetExhausted.rawValue
      $0.component = Component.budget.rawValue
      $0.retryAfter = refusal
    }
    fail(call, .budgetExhausted, .budget, outcome, retryAfter: refusal)
  }

  private func wait(_ call: Handle<Call>, _ outcome: AttemptOutcome, _ delay: Int64) {
    countRetry(call, outcome.ruleIndex)
    call.pointee.previousDelay = delay
    call.pointee.attemptReason = .retry
    count(call, .retries)
    count(call, .backoff, UInt64(bitPattern: delay))
    let reason: Reason = outcome.serverDelay >= 0 ? .serverHint : .backoff
    note(call, .retry) {
      fill(&$0, outcome, 0)
      $0.reason = reason.rawValue
      $0.component = Component.retry.rawValue
      $0.backoff = delay
    }
    if delay > 0 {
      pause(call, .waitingForBackoff, delay, reason, .retry)
    } else {
      attempt(call)
    }
  }

  /// The retries that a call has made for a rule.
  private func retries(_ call: Handle<Call>, _ rule: Int) -> UInt32 {
    call.pointee.hasRetried ? CallPool.place(of: call).pointee.ruleRetries[rule] : 0
  }

  private func countRetry(_ call: Handle<Call>, _ rule: Int) {
    let place = CallPool.place(of: call)
    if !call.pointee.hasRetried {
      place.pointee.ruleRetries = InlineArray(repeating: 0)
      call.pointee.hasRetried = true
    }
    if place.pointee.ruleRetries[rule] < .max { place.pointee.ruleRetries[rule] &+= 1 }
  }

  /// Takes one retry out of the budget. `nil`: done, or nobody asks; else when there is one again.
  private func payForRetry(_ call: Handle<Call>) -> Int64? {
    guard let budget = configuration.parts.budget, mode(.budget) != .off,
      case .limited(let retryAfter)? = try? budget.pointee.withdraw(1, now: call.pointee.now)
    else { return nil }
    guard mode(.budget) == .observe else { return retryAfter }
    observe(call, .budget, .budgetExhausted, retryAfter)
    return nil
  }

  private static func reasonWithoutRetry(_ errorClass: ErrorClass) -> Reason {
    switch errorClass {
    case .permanent: .failedPermanent
    case .cancelled: .cancelled
    case .unknown: .outcomeUnknown
    case .success, .transient, .temporary: .attemptsExhausted
    }
  }

  /// Ends a call whose last attempt failed, and its key's run with it.
  private func fail(
    _ call: Handle<Call>, _ reason: Reason, _ component: Component, _ outcome: AttemptOutcome,
    retryAfter: Int64 = 0
  ) {
    if call.pointee.lease != 0, let keys = configuration.parts.keys {
      keys.end(
        call, call.pointee.mayHaveRun ? .abandoned : .failure, outcome.result,
        outcome.resultLength)
      call.pointee.lease = 0
    }
    finish(call, reason, component, retryAfter: retryAfter)
  }

  private func fill(_ event: inout CallEvent, _ outcome: AttemptOutcome, _ latency: Int64) {
    event.domain = outcome.rule.domain.rawValue
    event.code = outcome.code
    event.errorClass = outcome.rule.errorClass.rawValue
    event.latency = latency
    event.retryAfter = Swift.max(0, outcome.serverDelay)
  }
}
