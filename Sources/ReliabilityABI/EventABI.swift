public import CAutoGLMReliability
import Platform
import ReliabilityCore

@implementation @_cdecl("agr_policy_next_event")
public func agr_policy_next_event(
  _ policy: OpaquePointer?, _ cursor: UnsafeMutablePointer<UInt64>?,
  _ out_event: UnsafeMutablePointer<agr_event>?, _ out_lost: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let policy = try policyHandle(policy)
    let cursor = try required(cursor, "cursor")
    let out = try checkOutput(out_event, "out_event")
    var lost: UInt64 = 0
    var event = CallEvent()
    let found = policy.pointee.events.next(cursor: &cursor.pointee, lost: &lost) {
      event.set($0, $1)
    }
    out_lost?.pointee = lost
    guard found else { return AGR_EMPTY }
    writeStructure(cEvent(event), to: out)
    return AGR_OK
  }
}

private func cEvent(_ event: CallEvent) -> agr_event {
  var value = agr_event()
  value.kind = event.kind
  value.reason = event.reason
  value.component = event.component
  value.domain = event.domain
  value.code = event.code
  value.error_class = event.errorClass
  value.attempt = event.attempt
  value.observed = event.observed ? 1 : 0
  value.priority = event.priority
  value.call_id = event.call
  value.time_ns = event.time
  value.backoff_ns = event.backoff
  value.latency_ns = event.latency
  value.retry_after_ns = event.retryAfter
  withUnsafeMutableBytes(of: &value.trace_id) { bytes in
    for index in 0..<TraceID.maximumLength {
      bytes.storeBytes(of: event.trace.byte(index), toByteOffset: index, as: UInt8.self)
    }
  }
  return value
}

private func readEvent(_ pointer: UnsafePointer<agr_event>?) throws(Failure) -> CallEvent {
  let source = try readStructure(pointer, defaults: agr_event(), "event")
  var event = CallEvent()
  event.kind = source.kind
  event.reason = source.reason
  event.component = source.component
  event.domain = source.domain
  event.code = source.code
  event.errorClass = source.error_class
  event.attempt = source.attempt
  event.observed = source.observed != 0
  event.priority = source.priority
  event.call = source.call_id
  event.time = source.time_ns
  event.backoff = source.backoff_ns
  event.latency = source.latency_ns
  event.retryAfter = source.retry_after_ns
  withUnsafeBytes(of: source.trace_id) { bytes in
    if let base = bytes.baseAddress {
      event.trace.set(base, strnlen(base, TraceID.maximumLength))
    }
  }
  return event
}

@implementation @_cdecl("agr_event_json")
public func agr_event_json(
  _ event: UnsafePointer<agr_event>?, _ buffer: UnsafeMutablePointer<CChar>?, _ capacity: Int,
  _ out_length: UnsafeMutablePointer<Int>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_length, "out_length")
    out.pointee = 0
    guard capacity >= 0 else { throw .argument("capacity", "is more than there can be") }
    guard buffer != nil || capacity == 0 else {
      throw .argument("buffer", "must not be NULL when capacity is not 0")
    }
    let event = try readEvent(event)
    // One byte is kept for the NUL.
    let length = EventJSON.write(event, to: buffer, capacity: max(0, capacity &- 1))
    out.pointee = length
    guard let buffer, capacity > 0 else {
      if buffer == nil { return AGR_OK }
      throw Failure(.capacity, "capacity", "is smaller than the text with its NUL")
    }
    buffer[min(length, capacity &- 1)] = 0
    guard length < capacity else {
      throw Failure(.capacity, "capacity", "is smaller than the text with its NUL")
    }
    return AGR_OK
  }
}

@implementation @_cdecl("agr_reason_name")
public func agr_reason_name(_ reason: Int32) -> UnsafePointer<CChar>! {
  cString(Reason(rawValue: reason)?.name ?? "unknown")
}

@implementation @_cdecl("agr_component_name")
public func agr_component_name(_ component: Int32) -> UnsafePointer<CChar>! {
  cString(Component(rawValue: component)?.name ?? "unknown")
}
