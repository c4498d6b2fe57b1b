public import CAutoGLMReliability
import ReliabilityCore

// Asking for a key, and for what has become of a run that was joined: whatever answers with a lease
// or a result.

/// Where such a function answers, zero before anything is done.
struct IdempotencyOutputs {
  let lease: UnsafeMutablePointer<agr_lease>
  let result: UnsafeMutablePointer<agr_result>

  init(
    _ lease: UnsafeMutablePointer<agr_lease>?, _ result: UnsafeMutablePointer<agr_result>?
  ) throws(Failure) {
    lease?.pointee = agr_lease()
    result?.pointee = agr_result()
    self.lease = try required(lease, "out_lease")
    self.result = try required(result, "out_result")
  }

  func execute(_ lease: IdempotencyLease) -> Int {
    self.lease.pointee = agr_lease(
      id: lease.id, fence: lease.fence, expires_in_ns: lease.expiresIn,
      outcome_unknown: lease.outcomeUnknown ? 1 : 0, reserved: 0)
    return AGR_OK
  }

  func replay(_ pinned: PinnedResult) -> Int {
    result.pointee = agr_result(
      data: pinned.data, length: pinned.length, pin: pinned.pin,
      state: Int32(pinned.state.rawValue), reserved: 0)
    return AGR_REPLAY
  }

  func inProgress(_ remaining: Int64, _ answer: Int) -> Int {
    lease.pointee.expires_in_ns = remaining
    return answer
  }

  /// What a ticket's answer is in C; `unanswered` for none yet.
  func write(_ answer: IdempotencyCache.TicketAnswer, unanswered: Int) -> Int {
    switch answer {
    case .execute(let lease): execute(lease)
    case .replay(let pinned): replay(pinned)
    case .inProgress(let remaining): inProgress(remaining, unanswered)
    case .stale: AGR_STALE
    }
  }
}

@implementation @_cdecl("agr_idempotency_begin")
public func agr_idempotency_begin(
  _ cache: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ fingerprint: UnsafeRawPointer?, _ fingerprint_length: Int,
  _ out_lease: UnsafeMutablePointer<agr_lease>?, _ out_result: UnsafeMutablePointer<agr_result>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_begin_at(
    cache, key, key_length, fingerprint, fingerprint_length, now(), out_lease, out_result, error)
}

@implementation @_cdecl("agr_idempotency_begin_at")
public func agr_idempotency_begin_at(
  _ handle: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ fingerprint: UnsafeRawPointer?, _ fingerprint_length: Int, _ now_ns: Int64,
  _ out_lease: UnsafeMutablePointer<agr_lease>?, _ out_result: UnsafeMutablePointer<agr_result>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(handle)
    let out = try IdempotencyOutputs(out_lease, out_result)
    if let durable = durableHandle(handle) {
      return try durable.pointee.begin(
        key, key_length, fingerprint, fingerprint_length, joins: nil, now: now_ns, out, error)
    }
    switch try cache.pointee.begin(
      key, key_length, fingerprint: fingerprint, fingerprint_length, now: now_ns)
    {
    case .execute(let lease): return out.execute(lease)
    case .replay(let pinned): return out.replay(pinned)
    case .inProgress(_, let remaining): return out.inProgress(remaining, AGR_IN_PROGRESS)
    case .mismatch: return AGR_MISMATCH
    }
  }
}

@implementation @_cdecl("agr_idempotency_join")
public func agr_idempotency_join(
  _ cache: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ fingerprint: UnsafeRawPointer?, _ fingerprint_length: Int,
  _ out_ticket: UnsafeMutablePointer<UInt64>?, _ out_lease: UnsafeMutablePointer<agr_lease>?,
  _ out_result: UnsafeMutablePointer<agr_result>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_join_at(
    cache, key, key_length, fingerprint, fingerprint_length, now(), out_ticket, out_lease,
    out_result, error)
}

@implementation @_cdecl("agr_idempotency_join_at")
public func agr_idempotency_join_at(
  _ handle: OpaquePointer?, _ key: UnsafeRawPointer?, _ key_length: Int,
  _ fingerprint: UnsafeRawPointer?, _ fingerprint_length: Int, _ now_ns: Int64,
  _ out_ticket: UnsafeMutablePointer<UInt64>?, _ out_lease: UnsafeMutablePointer<agr_lease>?,
  _ out_result: UnsafeMutablePointer<agr_result>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(handle)
    let outTicket = try required(out_ticket, "out_ticket")
    outTicket.pointee = 0
    let out = try IdempotencyOutputs(out_lease, out_result)
    if let durable = durableHandle(handle) {
      return try durable.pointee.begin(
        key, key_length, fingerprint, fingerprint_length, joins: outTicket, now: now_ns, out,
        error)
    }
    switch try cache.pointee.join(
      key, key_length, fingerprint: fingerprint, fingerprint_length, now: now_ns)
    {
    case .execute(let lease): return out.execute(lease)
    case .replay(let pinned): return out.replay(pinned)
    case .inProgress(let ticket, let remaining):
      outTicket.pointee = ticket
      return out.inProgress(remaining, AGR_IN_PROGRESS)
    case .mismatch: return AGR_MISMATCH
    }
  }
}

@implementation @_cdecl("agr_idempotency_poll")
public func agr_idempotency_poll(
  _ cache: OpaquePointer?, _ ticket: UInt64, _ out_lease: UnsafeMutablePointer<agr_lease>?,
  _ out_result: UnsafeMutablePointer<agr_result>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_poll_at(cache, ticket, now(), out_lease, out_result, error)
}

@implementation @_cdecl("agr_idempotency_poll_at")
public func agr_idempotency_poll_at(
  _ handle: OpaquePointer?, _ ticket: UInt64, _ now_ns: Int64,
  _ out_lease: UnsafeMutablePointer<agr_lease>?, _ out_result: UnsafeMutablePointer<agr_result>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(handle)
    let out = try IdempotencyOutputs(out_lease, out_result)
    if let durable = durableHandle(handle) {
      return try durable.pointee.poll(ticket, now: now_ns, out, error)
    }
    return out.write(
      try cache.pointee.poll(ticket, now: now_ns), unanswered: AGR_IN_PROGRESS)
  }
}

@implementation @_cdecl("agr_idempotency_wait")
public func agr_idempotency_wait(
  _ handle: OpaquePointer?, _ ticket: UInt64, _ timeout_ns: Int64,
  _ out_lease: UnsafeMutablePointer<agr_lease>?, _ out_result: UnsafeMutablePointer<agr_result>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(handle)
    let out = try IdempotencyOutputs(out_lease, out_result)
    if let durable = durableHandle(handle) {
      return try durable.pointee.wait(ticket, timeout: timeout_ns, out, error)
    }
    return out.write(
      try cache.pointee.wait(ticket, timeout: timeout_ns), unanswered: AGR_TIMED_OUT)
  }
}

@implementation @_cdecl("agr_idempotency_ticket_fd")
public func agr_idempotency_ticket_fd(
  _ cache: OpaquePointer?, _ ticket: UInt64, _ out_fd: UnsafeMutablePointer<Int32>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(cache)
    let out = try required(out_fd, "out_fd")
    out.pointee = -1
    guard let descriptor = try cache.pointee.descriptor(of: ticket) else { return AGR_STALE }
    out.pointee = descriptor
    return AGR_OK
  }
}

@implementation @_cdecl("agr_idempotency_leave")
public func agr_idempotency_leave(
  _ cache: OpaquePointer?, _ ticket: UInt64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_leave_at(cache, ticket, now(), error)
}

@implementation @_cdecl("agr_idempotency_leave_at")
public func agr_idempotency_leave_at(
  _ cache: OpaquePointer?, _ ticket: UInt64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let cache = try idempotencyHandle(cache)
    return try cache.pointee.leave(ticket, now: now_ns) ? AGR_OK : AGR_STALE
  }
}
