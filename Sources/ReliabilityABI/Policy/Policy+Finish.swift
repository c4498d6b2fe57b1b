import Platform
import ReliabilityCore
import Synchronization

// The ends of a call.

extension Policy {
  /// Ends a call: gives back what it holds, and finds a fallback where one may stand in.
  func finish(
    _ call: Handle<Call>, _ reason: Reason, _ component: Component, retryAfter: Int64 = 0,
    result: UnsafeRawPointer? = nil, _ length: Int = 0
  ) {
    // Whatever has taken the time until the deadline, what the call holds is given back.
    if waits && reason == .deadline { call.pointee.allowGrace() }
    giveBack(call)
    call.pointee.step.become(.done, reason, component, attempt: call.pointee.attempt)
    call.pointee.step.retryAfter = retryAfter
    call.pointee.step.result = result
    call.pointee.step.resultLength = length
    if reason.allowsFallback { replace(&call.pointee.step, call) }
    call.pointee.phase = .done
    let shown = call.pointee.step.reason
    tally(call, shown)
    note(call, .done) {
      $0.reason = shown.rawValue
      $0.component = component.rawValue
      $0.retryAfter = retryAfter
    }
  }

  /// Another answer for one that is missing. Who refused and when it clears stay as they are.
  private func replace(_ step: inout Step, _ call: Handle<Call>) {
    guard mode(.fallback) == .enforce,
      let mode = FallbackMode(rawValue: fallback.load(ordering: .relaxed))
    else { return }
    if mode.usesCache && call.pointee.hasAnswerKey,
      let (answer, length) = answers.get(call.pointee.answerKey, now: call.pointee.now)
    {
      call.pointee.answer = answer
      step.reason = .fallbackCached
      step.result = UnsafeRawPointer(answer)
      step.resultLength = length
    } else if mode.usesStandard, let standardAnswer {
      step.reason = .fallbackDefault
      step.result = UnsafeRawPointer(standardAnswer)
      step.resultLength = standardAnswerLength
    } else if mode == .queue {
      step.reason = .queue
    }
  }

  /// Gives back a permit of the breaker for an attempt that is not made, or of which nothing is known.
  @inline(never)
  func returnPermit(_ call: Handle<Call>) {
    guard call.pointee.permit != 0, let breaker = configuration.parts.breaker else { return }
    breaker.report(call.pointee.permit, .neutral, latency: 0, call)
    call.pointee.permit = 0
  }

  /// Gives back what a call still holds when it ends.
  private func giveBack(_ call: Handle<Call>) {
    leave(call)
    cancelReservations(call)
    guard call.pointee.lease != 0, let keys = configuration.parts.keys else { return }
    // If nothing was tried, or all that was tried has failed for sure, the next one may run it.
    keys.end(call, call.pointee.mayHaveRun ? .abandoned : .givenBack)
    call.pointee.lease = 0
  }

  private func tally(_ call: Handle<Call>, _ reason: Reason) {
    switch reason {
    case .succeeded: count(call, .succeeded)
    case .replayed, .replayedFailure: count(call, .replayed)
    case .fallbackDefault, .fallbackCached, .queue: count(call, .fallbacks)
    case .limited, .neverFits: count(call, .refusedLimiter)
    case .open: count(call, .refusedBreaker)
    case .budgetExhausted: count(call, .refusedBudget)
    case .deadline: count(call, .refusedDeadline)
    case .mismatch, .capacity, .noMemory, .store, .argument: count(call, .refusedOther)
    default: count(call, .failed)
    }
  }

  /// Ends the use of a call. One that is not done is abandoned: neutral everywhere.
  static func destroy(_ call: Handle<Call>, now: Int64) {
    let policy = call.pointee.policy
    call.pointee.advance(to: now)
    policy.pointee.abandon(call)
    if call.pointee.pin != 0, let keys = policy.pointee.configuration.parts.keys {
      _ = keys.cache.pointee.release(call.pointee.pin)
    }
    platform_free(call.pointee.answer)
    if policy.pointee.pool.put(closeHandle(call)) { release(policy) }
  }

  private func abandon(_ call: Handle<Call>) {
    guard call.pointee.phase != .done else { return }
    if waits { call.pointee.enter() }
    count(call, .abandoned)
    returnPermit(call)
    if call.pointee.phase == .attempting { call.pointee.mayHaveRun = true }
    giveBack(call)
    call.pointee.phase = .done
  }
}
