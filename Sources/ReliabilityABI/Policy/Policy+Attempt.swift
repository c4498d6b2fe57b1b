import CAutoGLMReliability
import ReliabilityCore
import Synchronization

// The stages of an attempt: deadline, limiters, breaker.

extension Policy {
  /// Goes towards the next attempt as far as it goes without waiting.
  func attempt(_ call: Handle<Call>) {
    if call.pointee.remaining == 0 {
      finish(call, .deadline, .deadline)
      return
    }
    guard configuration.parts.limiterCount > 0, mode(.limiter) != .off else {
      askBreaker(call)
      return
    }
    var failedAt = 0
    let limiters = configuration.parts.limiters
    // A wait that ends at the deadline is one too many.
    let isCut = configuration.maxLimiterWait >= call.pointee.remaining
    let maxWait = isCut ? Time.subtract(call.pointee.remaining, 1) : configuration.maxLimiterWait
    do throws(Failure) {
      var wait: Int64 = 0
      let refusal =
        configuration.parts.areLimitersStored
        ? try reserveInStore(call, maxWait, &wait)
        : try DemandSet.reserve(
          count: configuration.parts.limiterCount, maxWait: maxWait, now: call.pointee.now,
          failedAt: &failedAt,
          { index in
            DemandSet.Demand(
              limiter: limiters[index].unsafelyUnwrapped.engine, tokens: call.pointee.costs[index])
          },
          keep: { index, reservation in
            call.pointee.reservations[index] = reservation.permit
            wait = Swift.max(wait, reservation.wait)
          },
          kept: { index in call.pointee.reservations[index] })
      if let refusal {
        forgetReservations(call)
        let needed = Time.add(refusal.retryAfter, maxWait)
        let isLate = isCut && needed <= configuration.maxLimiterWait && needed != Time.forever
        if isLate
          ? refuse(call, .limiter, .deadline, needed)
          : refuse(call, .limiter, .limited, refusal.retryAfter)
        {
          askBreaker(call)
        }
        return
      }
      if wait > 0 && wait >= call.pointee.remaining {
        finish(call, .deadline, .deadline, retryAfter: wait)
      } else if wait > 0 {
        pause(call, .waitingForLimiter, wait, .waitLimiter, .limiter)
      } else {
        askBreaker(call)
      }
    } catch {
      forgetReservations(call)
      if isTooLate(call, error) {
        finish(call, .deadline, .deadline)
      } else if refuse(
        call, .limiter, reason(of: error), error.kind == .neverFits ? Time.forever : 0)
      {
        askBreaker(call)
      }
    }
  }

  /// The last stage; the limiters are satisfied.
  func askBreaker(_ call: Handle<Call>) {
    guard let breaker = configuration.parts.breaker, mode(.breaker) != .off else {
      handOut(call)
      return
    }
    do throws(Failure) {
      let admission = try breaker.acquire(call)
      if waits { call.pointee.catchUp() }
      switch admission {
      case .admitted(let permit):
        call.pointee.permit = permit
        handOut(call)
      case .refused(let retryAfter): standOpen(call, retryAfter)
      }
    } catch {
      if refuse(call, .breaker, .capacity, 0) { handOut(call) }
    }
  }

  /// The breaker is open: wait for it where that is wanted and worth it, else be refused.
  private func standOpen(_ call: Handle<Call>, _ retryAfter: Int64) {
    guard mode(.breaker) == .enforce, configuration.retryWhenOpen, mode(.retry) == .enforce,
      let retry = configuration.retry, retryAfter < call.pointee.remaining,
      !retry.backoff.isExhausted(after: call.pointee.attempt &+ 1)
    else {
      if refuse(call, .breaker, .open, retryAfter) { handOut(call) }
      return
    }
    cancelReservations(call)
    call.pointee.attempt &+= 1
    note(call, .refused) {
      $0.reason = Reason.open.rawValue
      $0.component = Component.breaker.rawValue
      $0.retryAfter = retryAfter
    }
    pause(call, .waitingForBreaker, Swift.max(1, retryAfter), .waitBreaker, .breaker)
  }

  /// Tells the host to make the attempt, if the key is still this call's to execute.
  private func handOut(_ call: Handle<Call>) {
    guard keepLease(call) else {
      loseLease(call)
      return
    }
    // A store may have taken all the time there was.
    if waits && call.pointee.remaining == 0 {
      returnPermit(call)
      finish(call, .deadline, .deadline)
      return
    }
    count(call, .attempts)
    call.pointee.phase = .attempting
    call.pointee.attempt &+= 1
    call.pointee.attemptID = call.pointee.id &<< 20 | UInt64(call.pointee.attempt & 0xf_ffff)
    call.pointee.attemptStart = call.pointee.now
    call.pointee.step.become(
      .attempt, call.pointee.attemptReason, .none, attempt: call.pointee.attempt)
    call.pointee.step.attemptID = call.pointee.attemptID
    call.pointee.step.outcomeUnknown = call.pointee.outcomeUnknown
    call.pointee.step.fence = call.pointee.fence
  }

  /// The key may be somebody else's by now: nothing more is attempted.
  @inline(never)
  private func loseLease(_ call: Handle<Call>) {
    call.pointee.lease = 0
    returnPermit(call)
    finish(call, .leaseLost, .idempotency)
  }

  /// Tells the host to wait.
  func pause(
    _ call: Handle<Call>, _ phase: Call.Phase, _ wait: Int64, _ reason: Reason,
    _ component: Component
  ) {
    guard keepLease(call, over: wait) else {
      loseLease(call)
      return
    }
    // A store may have taken what was left for it.
    if waits && wait >= call.pointee.remaining {
      finish(call, .deadline, .deadline, retryAfter: wait)
      return
    }
    call.pointee.phase = phase
    call.pointee.waitUntil = Time.add(call.pointee.now, wait)
    call.pointee.step.become(.wait, reason, component, attempt: call.pointee.attempt)
    call.pointee.step.wait = wait
    if waits { shorten(call, wait) }
  }

  /// Cuts a wait to when the lease, which does not cover it, is asked for again.
  @inline(never)
  private func shorten(_ call: Handle<Call>, _ wait: Int64) {
    let time = untilRenewal(call)
    call.pointee.renewAt = Time.add(call.pointee.now, time)
    call.pointee.step.wait = Swift.min(wait, time)
  }

  /// Goes on after a wait, or says how much of it is left.
  func resume(_ call: Handle<Call>) {
    if waits { call.pointee.enter() }
    if call.pointee.phase == .joined {
      pollJoined(call)
      return
    }
    if waits && !renewInTime(call) {
      loseLease(call)
      return
    }
    let left = Time.subtract(call.pointee.waitUntil, call.pointee.now)
    if left > 0 && call.pointee.remaining > 0 {
      let rest = Swift.min(left, call.pointee.remaining)
      call.pointee.step.wait =
        waits ? Swift.min(rest, Time.subtract(call.pointee.renewAt, call.pointee.now)) : rest
      return
    }
    if call.pointee.phase == .waitingForLimiter {
      if call.pointee.remaining == 0 {
        finish(call, .deadline, .deadline)
      } else {
        askBreaker(call)
      }
    } else {
      attempt(call)
    }
  }

  /// Asks for the lease again when the wait was cut for that; the time which that takes is the wait's. False: it was
  /// lost.
  @inline(never)
  private func renewInTime(_ call: Handle<Call>) -> Bool {
    let left = Time.subtract(call.pointee.waitUntil, call.pointee.now)
    let rest = Swift.min(left, call.pointee.remaining)
    guard rest > 0 && call.pointee.now >= call.pointee.renewAt else { return true }
    guard keepLease(call, over: rest) else { return false }
    call.pointee.renewAt = Time.add(call.pointee.now, untilRenewal(call))
    return true
  }

  // MARK: - Refusals

  /// A part refuses. True: it is only observed, and the call goes on; else the call is over.
  func refuse(
    _ call: Handle<Call>, _ component: Component, _ reason: Reason, _ retryAfter: Int64
  ) -> Bool {
    if mode(component) == .observe {
      observe(call, component, reason, retryAfter)
      return true
    }
    note(call, .refused) {
      $0.reason = reason.rawValue
      $0.component = component.rawValue
      $0.retryAfter = retryAfter
    }
    finish(call, reason, component, retryAfter: retryAfter)
    return false
  }

  /// Records a refusal that is not obeyed.
  func observe(
    _ call: Handle<Call>, _ component: Component, _ reason: Reason, _ retryAfter: Int64
  ) {
    count(call, .observed)
    note(call, .refused) {
      $0.reason = reason.rawValue
      $0.component = component.rawValue
      $0.retryAfter = retryAfter
      $0.observed = true
    }
  }

  // MARK: - Giving back

  func forgetReservations(_ call: Handle<Call>) {
    for index in 0..<4 { call.pointee.reservations[index] = 0 }
  }

  /// Gives the tokens of an attempt that is not made back.
  func cancelReservations(_ call: Handle<Call>) {
    for index in 0..<configuration.parts.limiterCount
    where call.pointee.reservations[index] != 0 {
      configuration.parts.limiters[index]?.cancel(call.pointee.reservations[index], call)
    }
    forgetReservations(call)
  }

  /// Reserves from limiters in a store, as one.
  @inline(never)
  private func reserveInStore(
    _ call: Handle<Call>, _ maxWait: Int64, _ wait: inout Int64
  ) throws(Failure) -> DemandSet.Refusal? {
    var made = InlineArray<4, agr_reservation>(repeating: agr_reservation())
    var place = 0
    var retryAfter: Int64 = 0
    let status = try withUnsafeMutableBytes(of: &made) { raw throws(Failure) in
      guard let out = raw.baseAddress?.assumingMemoryBound(to: agr_reservation.self) else {
        return AGR_ERR_STATE
      }
      if configuration.parts.limiterCount == 1, let stored = configuration.parts.limiters[0]?.stored
      {
        return try stored.pointee.reserve(
          call.pointee.costs[0], maxWait: maxWait, now: call.pointee.now,
          until: call.pointee.waitLimit, out, &retryAfter, nil)
      }
      var demands = StoredDemands(
        configuration.parts.limiters, call.pointee.costs, until: call.pointee.waitLimit)
      defer { (place, retryAfter) = (demands.place, demands.retryAfter) }
      return try demands.reserve(out, maxWait: maxWait, now: call.pointee.now, nil)
    }
    call.pointee.catchUp()
    switch status {
    case AGR_OK: break
    case AGR_LIMITED: return DemandSet.Refusal(index: place, retryAfter: retryAfter)
    case AGR_ERR_ARGUMENT: throw .argument("limiters", PolicyConfiguration.spread)
    default: throw Failure(.store, "limiters", "the store fails")
    }
    for index in 0..<4 {
      call.pointee.reservations[index] = made[index].permit
      wait = Swift.max(wait, made[index].wait_ns)
    }
    return nil
  }
}
