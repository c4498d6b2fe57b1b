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
    giveBack(call)
    var step = Step(.done, reason)
    step.component = component
    step.attempt = call.pointee.attempt
    step.retryAfter = retryAfter
    step.result = result
    step.resultLength = length
    if reason.allowsFallback { replace(&step, call) }
    call.pointee.phase = .done
    call.pointee.step = step
    tally(step)
    note(call, .done) {
      $0.reason = step.reason.rawValue
      $0.component = step.component.rawValue
      $0.retryAfter = step.retryAfter
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

  /// Gives back what a call still holds when it ends.
  private func giveBack(_ call: Handle<Call>) {
    leave(call)
    cancelReservations(call)
    guard call.pointee.lease != 0, let cache = configuration.parts.idempotency else { return }
    if call.pointee.mayHaveRun {
      _ = try? cache.pointee.abandon(call.pointee.lease, now: call.pointee.now)
    } else {
      // Nothing was tried, or all that was tried has failed for sure: the next one may run it.
      _ = try? cache.pointee.giveBack(call.pointee.lease, now: call.pointee.now)
    }
    call.pointee.lease = 0
  }

  private func tally(_ step: Step) {
    switch step.reason {
    case .succeeded: count(.succeeded)
    case .replayed, .replayedFailure: count(.replayed)
    case .fallbackDefault, .fallbackCached, .queue: count(.fallbacks)
    case .limited, .neverFits: count(.refusedLimiter)
    case .open: count(.refusedBreaker)
    case .budgetExhausted: count(.refusedBudget)
    case .deadline: count(.refusedDeadline)
    case .mismatch, .capacity, .noMemory: count(.refusedOther)
    default: count(.failed)
    }
  }

  /// Ends the use of a call. One that is not done is abandoned: neutral everywhere.
  static func destroy(_ call: Handle<Call>, now: Int64) {
    let policy = call.pointee.policy
    call.pointee.advance(to: now)
    policy.pointee.abandon(call)
    if call.pointee.pin != 0, let cache = policy.pointee.configuration.parts.idempotency {
      _ = cache.pointee.release(call.pointee.pin)
    }
    platform_free(call.pointee.answer)
    policy.pointee.pool.put(closeHandle(call))
    release(policy)
  }

  private func abandon(_ call: Handle<Call>) {
    guard call.pointee.phase != .done else { return }
    count(.abandoned)
    if call.pointee.permit != 0, let breaker = configuration.parts.breaker {
      _ = try? breaker.pointee.report(
        call.pointee.permit, .neutral, latency: 0, now: call.pointee.now, processRandom)
      call.pointee.permit = 0
    }
    if call.pointee.phase == .attempting { call.pointee.mayHaveRun = true }
    giveBack(call)
    call.pointee.phase = .done
  }
}
