import CAutoGLMReliability
import Platform
import ReliabilityCore

/// An idempotency cache, of this process or in a store.
struct KeysPart: BitwiseCopyable {
  /// In a store the cache in front: tickets and results are its own.
  let cache: Handle<IdempotencyCache>
  private let durable: Handle<DurableCache>?

  init(_ pointer: OpaquePointer?) throws(Failure) {
    durable = durableHandle(pointer)
    if let durable {
      cache = DurableCache.front(durable)
    } else {
      cache = try handle(pointer, .idempotency, "idempotency")
    }
  }

  var isInStore: Bool { durable != nil }

  func letGo() {
    if let durable { release(durable) } else { release(cache) }
  }

  @inline(__always)
  func join(
    _ request: UnsafePointer<agr_request>, _ call: Handle<Call>
  ) throws(Failure) -> IdempotencyCache.BeginAnswer {
    if let durable { return try KeysPart.join(durable, request, call) }
    return try cache.pointee.join(
      request.pointee.key, request.pointee.key_length, fingerprint: request.pointee.fingerprint,
      request.pointee.fingerprint_length, now: call.pointee.now)
  }

  @inline(__always)
  func poll(_ call: Handle<Call>) throws(Failure) -> IdempotencyCache.TicketAnswer {
    if let durable { return try KeysPart.poll(durable, call) }
    return try cache.pointee.poll(call.pointee.ticket, now: call.pointee.now)
  }

  enum Renewal {
    case kept, lost
    /// Nothing is known: it lasts for as long as it did before.
    case unanswered
  }

  /// Makes the lease of a call last for so long from now.
  @inline(__always)
  func renew(_ call: Handle<Call>, leaseTime: Int64) -> Renewal {
    if let durable { return KeysPart.renew(durable, call, leaseTime) }
    let kept = try? cache.pointee.renew(
      call.pointee.lease, leaseTime: leaseTime, now: call.pointee.now)
    return kept ?? false ? .kept : .lost
  }

  enum End {
    case success, failure
    /// The run may have had its effect.
    case abandoned
    /// It has had none.
    case givenBack
  }

  /// Ends the run of a call. What cannot be kept as a success is abandoned, what cannot be kept as a failure is forgotten.
  @inline(__always)
  func end(
    _ call: Handle<Call>, _ how: End, _ data: UnsafeRawPointer? = nil, _ length: Int = 0
  ) {
    if let durable {
      KeysPart.end(durable, call, how, data, length)
      return
    }
    let lease = call.pointee.lease
    let now = call.pointee.now
    do throws(Failure) {
      switch how {
      case .success: _ = try cache.pointee.complete(lease, data, length, now: now)
      case .failure: _ = try cache.pointee.fail(lease, data, length, now: now)
      case .abandoned: _ = try cache.pointee.abandon(lease, now: now)
      case .givenBack: _ = try cache.pointee.giveBack(lease, now: now)
      }
    } catch {
      switch how {
      case .success: _ = try? cache.pointee.abandon(lease, now: now)
      default: _ = try? cache.pointee.giveBack(lease, now: now)
      }
    }
  }
}

// In a store. What it says of an error is not for the call: its reason tells the kind.
extension KeysPart {
  @inline(never)
  private static func join(
    _ durable: Handle<DurableCache>, _ request: UnsafePointer<agr_request>, _ call: Handle<Call>
  ) throws(Failure) -> IdempotencyCache.BeginAnswer {
    var answer = Answer()
    var ticket: UInt64 = 0
    let status = try durable.pointee.begin(
      request.pointee.key, request.pointee.key_length, request.pointee.fingerprint,
      request.pointee.fingerprint_length, joins: &ticket, now: call.pointee.now,
      until: call.pointee.waitLimit, IdempotencyOutputs(&answer.lease, &answer.result), nil)
    switch status {
    case AGR_OK: return .execute(answer.given)
    case AGR_REPLAY: return .replay(try answer.pinned())
    case AGR_IN_PROGRESS:
      return .inProgress(ticket: ticket, leaseRemaining: answer.lease.expires_in_ns)
    case AGR_MISMATCH: return .mismatch
    default: throw Failure(.store, "idempotency", "the store fails")
    }
  }

  @inline(never)
  private static func poll(
    _ durable: Handle<DurableCache>, _ call: Handle<Call>
  ) throws(Failure) -> IdempotencyCache.TicketAnswer {
    var answer = Answer()
    let status = try durable.pointee.poll(
      call.pointee.ticket, now: call.pointee.now,
      // Whoever comes when the deadline is over asks once all the same.
      until: call.pointee.remaining > 0 ? call.pointee.waitLimit : call.pointee.endLimit,
      IdempotencyOutputs(&answer.lease, &answer.result), nil)
    switch status {
    case AGR_OK: return .execute(answer.given)
    case AGR_REPLAY: return .replay(try answer.pinned())
    case AGR_IN_PROGRESS: return .inProgress(leaseRemaining: answer.lease.expires_in_ns)
    case AGR_STALE: return .stale
    case AGR_MISMATCH: throw Failure(.mismatch, "idempotency", "the key is another request's")
    default: throw Failure(.store, "idempotency", "the store fails")
    }
  }

  private struct Answer {
    var lease = agr_lease()
    var result = agr_result()

    var given: IdempotencyLease {
      IdempotencyLease(
        id: lease.id, fence: lease.fence, expiresIn: lease.expires_in_ns,
        outcomeUnknown: lease.outcome_unknown != 0)
    }

    func pinned() throws(Failure) -> PinnedResult {
      guard let data = result.data,
        let state = KeyState(rawValue: UInt8(truncatingIfNeeded: result.state))
      else {
        throw Failure(.store, "idempotency", "a result that is none")
      }
      return PinnedResult(data: data, length: result.length, pin: result.pin, state: state)
    }
  }

  @inline(never)
  private static func renew(
    _ durable: Handle<DurableCache>, _ call: Handle<Call>, _ leaseTime: Int64
  ) -> Renewal {
    let status = try? durable.pointee.renew(
      call.pointee.lease, leaseTime: leaseTime, now: call.pointee.now,
      until: call.pointee.waitLimit, nil)
    switch status {
    case AGR_OK: return .kept
    case AGR_STALE: return .lost
    default: return .unanswered
    }
  }

  @inline(never)
  private static func end(
    _ durable: Handle<DurableCache>, _ call: Handle<Call>, _ how: End, _ data: UnsafeRawPointer?,
    _ length: Int
  ) {
    let lease = call.pointee.lease
    let now = call.pointee.now
    let limit = call.pointee.endLimit
    var status: Int?
    switch how {
    case .success:
      status = try? durable.pointee.complete(
        lease, data, length, .success, now: now, until: limit, nil)
    case .failure:
      status = try? durable.pointee.fail(lease, data, length, now: now, until: limit, nil)
    case .abandoned:
      status = try? durable.pointee.end(
        lease, outcomeUnknown: true, now: now, until: limit, nil)
    case .givenBack:
      status = try? durable.pointee.end(
        lease, outcomeUnknown: false, now: now, until: limit, nil)
    }
    if let status, status >= 0 { return }
    // The store keeps it as a run that was lost, until its lease ends; here others may ask at once.
    switch how {
    case .success:
      let ended = try? durable.pointee.end(
        lease, outcomeUnknown: true, now: now, until: limit, nil)
      if ended == AGR_OK { return }
      _ = try? durable.pointee.cache.abandon(lease, now: now)
    case .abandoned: _ = try? durable.pointee.cache.abandon(lease, now: now)
    case .failure, .givenBack: _ = try? durable.pointee.cache.giveBack(lease, now: now)
    }
  }
}
