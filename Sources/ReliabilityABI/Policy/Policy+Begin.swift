import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

// The beginning of a call: the deadline, and whose turn it is to execute the key.

extension Policy {
  /// Begins a call in the memory behind a handle from the pool.
  static func begin(
    _ policy: Handle<Policy>, _ request: UnsafePointer<agr_request>, now: Int64
  ) throws(Failure) -> Handle<Call> {
    try checkRequest(request)
    let call: Handle<Call> = openHandle(try policy.pointee.pool.take(), .call)
    call.pointee.reset(policy, id: CallPool.nextID(call), now: now)
    let deadline = request.pointee.deadline_ns
    call.pointee.deadline =
      deadline > 0 ? deadline : Time.add(now, policy.pointee.configuration.timeouts.total)
    call.pointee.priority = request.pointee.priority
    call.pointee.costs[0] = request.pointee.costs.0
    call.pointee.costs[1] = request.pointee.costs.1
    call.pointee.costs[2] = request.pointee.costs.2
    call.pointee.costs[3] = request.pointee.costs.3
    call.pointee.trace.set(request.pointee.trace_id, request.pointee.trace_id_length)
    policy.pointee.start(call, request)
    return call
  }

  private func start(_ call: Handle<Call>, _ request: UnsafePointer<agr_request>) {
    if waits { call.pointee.enter() }
    count(call, .calls)
    // A key is worth something without a cache of ours: the upstream may know it.
    call.pointee.hasKey = request.pointee.key_length > 0
    if let bytes = request.pointee.cache_key, request.pointee.cache_key_length > 0,
      configuration.cachedEntries > 0
    {
      call.pointee.hasAnswerKey = true
      call.pointee.answerKey = answers.key(bytes, request.pointee.cache_key_length)
    }
    if call.pointee.remaining == 0 {
      finish(call, .deadline, .deadline)
      return
    }
    if let budget = configuration.parts.budget, mode(.budget) != .off {
      // The time was checked and one request always fits.
      _ = try? budget.pointee.deposit(requests: 1, now: call.pointee.now)
    }
    guard call.pointee.hasKey, let keys = configuration.parts.keys,
      mode(.idempotency) != .off
    else {
      attempt(call)
      return
    }
    let asked = call.pointee.now
    do throws(Failure) {
      let answer = try keys.join(request, call)
      if waits { call.pointee.catchUp() }
      switch answer {
      case .execute(let lease): execute(call, lease, since: asked, .first)
      case .replay(let result):
        if mode(.idempotency) == .observe {
          _ = keys.cache.pointee.release(result.pin)
          observe(call, .idempotency, .replayed, 0)
          attempt(call)
        } else {
          replay(call, result)
        }
      case .inProgress(let ticket, let remaining): join(call, keys, ticket, remaining)
      case .mismatch: if refuse(call, .idempotency, .mismatch, 0) { attempt(call) }
      }
    } catch {
      if isTooLate(call, error) {
        finish(call, .deadline, .deadline)
      } else if refuse(call, .idempotency, reason(of: error), 0) {
        attempt(call)
      }
    }
  }

  /// Whether a store has not answered before the call's deadline.
  @inline(never)
  func isTooLate(_ call: Handle<Call>, _ failure: Failure) -> Bool {
    guard waits, failure.kind == .store else { return false }
    call.pointee.catchUp()
    return call.pointee.remaining == 0
  }

  /// Why a part that failed refuses.
  func reason(of failure: Failure) -> Reason {
    switch failure.kind {
    case .noMemory: .noMemory
    case .neverFits: .neverFits
    case .mismatch: .mismatch
    case .store: .store
    case .argument: .argument
    default: .capacity
    }
  }

  /// It is this call's turn.
  private func execute(
    _ call: Handle<Call>, _ lease: IdempotencyLease, since asked: Int64, _ reason: Reason
  ) {
    call.pointee.lease = lease.id
    call.pointee.leaseUntil = Time.add(asked, lease.expiresIn)
    call.pointee.fence = lease.fence
    call.pointee.outcomeUnknown = lease.outcomeUnknown
    call.pointee.attemptReason = reason
    attempt(call)
  }

  /// Makes the lease, if there is one, last over what comes: until the deadline, or without one over a wait
  /// and what a lease is configured to be. False: it was lost, and somebody else may have it. A store that does not
  /// answer has not renewed it: then it lasts as long as it did, and is asked for again before the next attempt.
  func keepLease(_ call: Handle<Call>, over wait: Int64 = 0) -> Bool {
    guard call.pointee.lease != 0, let keys = configuration.parts.keys else { return true }
    // In a store it is not asked to last longer than it does.
    if keys.isInStore && call.pointee.leaseUntil >= call.pointee.deadline { return true }
    let configured = keys.cache.pointee.shared.configuration.leaseTime
    let remaining = call.pointee.remaining
    let time =
      remaining == Time.forever ? Time.add(wait, configured) : Swift.max(remaining, configured)
    let renewed = Time.add(call.pointee.now, time)
    let renewal = keys.renew(call, leaseTime: time)
    if waits { call.pointee.catchUp() }
    switch renewal {
    case .kept:
      call.pointee.leaseUntil = renewed
      return true
    case .lost: return false
    case .unanswered: return call.pointee.leaseUntil > call.pointee.now
    }
  }

  /// How long a wait may be before the lease, which does not cover it, is asked for again: half of what is left of it,
  /// and in the end each millisecond.
  func untilRenewal(_ call: Handle<Call>) -> Int64 {
    guard call.pointee.lease != 0, let keys = configuration.parts.keys, keys.isInStore,
      call.pointee.leaseUntil <= Swift.min(call.pointee.waitUntil, call.pointee.deadline)
    else { return Time.forever }
    let left = Time.subtract(call.pointee.leaseUntil, call.pointee.now)
    return Swift.max(left / 2, Time.millisecond)
  }

  private func replay(_ call: Handle<Call>, _ result: PinnedResult) {
    call.pointee.pin = result.pin
    finish(
      call, result.state == .success ? .replayed : .replayedFailure, .idempotency,
      result: result.data, result.length)
  }

  private func join(
    _ call: Handle<Call>, _ keys: KeysPart, _ ticket: UInt64, _ remaining: Int64
  ) {
    call.pointee.ticket = ticket
    if mode(.idempotency) == .observe {
      leave(call)
      observe(call, .idempotency, .joined, remaining)
      attempt(call)
      return
    }
    count(call, .joined)
    waitJoined(call, keys, remaining)
  }

  private func waitJoined(_ call: Handle<Call>, _ keys: KeysPart, _ remaining: Int64) {
    call.pointee.phase = .joined
    call.pointee.step.become(.join, .joined, .idempotency, attempt: call.pointee.attempt)
    // At least a moment, for a lease that is just about to run out.
    call.pointee.step.wait = Swift.min(Swift.max(remaining, 1), call.pointee.remaining)
    // Without a descriptor to be had the host still wakes up when the time is over.
    call.pointee.step.descriptor =
      (try? keys.cache.pointee.descriptor(of: call.pointee.ticket)) ?? -1
  }

  /// Looks what has become of the run that was joined.
  func pollJoined(_ call: Handle<Call>) {
    guard let keys = configuration.parts.keys else { return }
    let asked = call.pointee.now
    do throws(Failure) {
      let answer = try keys.poll(call)
      if waits { call.pointee.catchUp() }
      switch answer {
      case .replay(let result):
        call.pointee.ticket = 0
        replay(call, result)
      case .execute(let lease):
        call.pointee.ticket = 0
        if call.pointee.remaining == 0 {
          call.pointee.lease = lease.id
          finish(call, .deadline, .deadline)
        } else {
          execute(call, lease, since: asked, .promoted)
        }
      case .inProgress(let remaining):
        if call.pointee.remaining == 0 {
          finish(call, .deadline, .idempotency, retryAfter: remaining)
        } else {
          waitJoined(call, keys, remaining)
        }
      case .stale:
        call.pointee.ticket = 0
        finish(call, .capacity, .idempotency)
      }
    } catch {
      if isTooLate(call, error) {
        finish(call, .deadline, .idempotency)
      } else {
        finish(call, reason(of: error), .idempotency)
      }
    }
  }

  /// Gives up waiting for another's run.
  func leave(_ call: Handle<Call>) {
    guard call.pointee.ticket != 0, let keys = configuration.parts.keys else { return }
    _ = try? keys.cache.pointee.leave(call.pointee.ticket, now: call.pointee.now)
    call.pointee.ticket = 0
  }
}
