public import CAutoGLMReliability
import ReliabilityCore

// The ends of a lease, and its extension.

@implementation @_cdecl("agr_idempotency_complete")
public func agr_idempotency_complete(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ data: UnsafeRawPointer?, _ length: Int,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_complete_at(cache, lease_id, data, length, now(), error)
}

@implementation @_cdecl("agr_idempotency_complete_at")
public func agr_idempotency_complete_at(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ data: UnsafeRawPointer?, _ length: Int,
  _ now_ns: Int64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    if let durable = durableHandle(cache) {
      return try durable.pointee.complete(lease_id, data, length, .success, now: now_ns, error)
    }
    let cache = try idempotencyHandle(cache)
    return try cache.pointee.complete(lease_id, data, length, now: now_ns)
      ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_idempotency_fail")
public func agr_idempotency_fail(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ data: UnsafeRawPointer?, _ length: Int,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_fail_at(cache, lease_id, data, length, now(), error)
}

@implementation @_cdecl("agr_idempotency_fail_at")
public func agr_idempotency_fail_at(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ data: UnsafeRawPointer?, _ length: Int,
  _ now_ns: Int64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    if let durable = durableHandle(cache) {
      return try durable.pointee.fail(lease_id, data, length, now: now_ns, error)
    }
    let cache = try idempotencyHandle(cache)
    return try cache.pointee.fail(lease_id, data, length, now: now_ns)
      ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_idempotency_abandon")
public func agr_idempotency_abandon(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_abandon_at(cache, lease_id, now(), error)
}

@implementation @_cdecl("agr_idempotency_abandon_at")
public func agr_idempotency_abandon_at(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    if let durable = durableHandle(cache) {
      return try durable.pointee.end(lease_id, outcomeUnknown: true, now: now_ns, error)
    }
    let cache = try idempotencyHandle(cache)
    return try cache.pointee.abandon(lease_id, now: now_ns) ? AGR_OK : AGR_STALE
  }
}

@implementation @_cdecl("agr_idempotency_renew")
public func agr_idempotency_renew(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ lease_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_idempotency_renew_at(cache, lease_id, lease_ns, now(), error)
}

@implementation @_cdecl("agr_idempotency_renew_at")
public func agr_idempotency_renew_at(
  _ cache: OpaquePointer?, _ lease_id: UInt64, _ lease_ns: Int64, _ now_ns: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    if let durable = durableHandle(cache) {
      return try durable.pointee.renew(lease_id, leaseTime: lease_ns, now: now_ns, error)
    }
    let cache = try idempotencyHandle(cache)
    return try cache.pointee.renew(lease_id, leaseTime: lease_ns, now: now_ns)
      ? AGR_OK : AGR_STALE
  }
}
