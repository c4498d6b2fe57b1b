public import CAutoGLMReliability
import ReliabilityCore

@implementation @_cdecl("agr_breaker_snapshot_read")
public func agr_breaker_snapshot_read(
  _ breaker: OpaquePointer?, _ out_snapshot: UnsafeMutablePointer<agr_breaker_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_breaker_snapshot_read_at(breaker, now(), out_snapshot, error)
}

@implementation @_cdecl("agr_breaker_snapshot_read_at")
public func agr_breaker_snapshot_read_at(
  _ breaker: OpaquePointer?, _ now_ns: Int64,
  _ out_snapshot: UnsafeMutablePointer<agr_breaker_snapshot>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let breaker: Handle<Breaker> = try handle(
      breaker, .breaker, "breaker", ignoring: 1)
    let out = try checkOutput(out_snapshot, "out_snapshot")
    let snapshot = try breaker.pointee.snapshot(now: now_ns)
    writeStructure(
      agr_breaker_snapshot(
        struct_size: 0, state: snapshot.state.rawValue, mode: snapshot.mode.rawValue,
        trips_in_a_row: UInt32(truncatingIfNeeded: snapshot.tripsInARow),
        generation: snapshot.generation, state_age_ns: snapshot.stateAge,
        retry_after_ns: snapshot.retryAfter, window_total: snapshot.window.total,
        window_failures: snapshot.window.failures, window_slow: snapshot.window.slow,
        consecutive_failures: UInt32(truncatingIfNeeded: snapshot.streak),
        half_open_in_flight: UInt32(truncatingIfNeeded: snapshot.halfOpenInFlight),
        refused: snapshot.refused, would_refuse: snapshot.wouldRefuse, stale: snapshot.stale,
        trips: snapshot.trips), to: out)
    return AGR_OK
  }
}

@implementation @_cdecl("agr_breaker_next_event")
public func agr_breaker_next_event(
  _ breaker: OpaquePointer?, _ cursor: UnsafeMutablePointer<UInt64>?,
  _ out_event: UnsafeMutablePointer<agr_breaker_event>?,
  _ out_lost: UnsafeMutablePointer<UInt64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let breaker: Handle<Breaker> = try handle(
      breaker, .breaker, "breaker", ignoring: 1)
    let cursor = try required(cursor, "cursor")
    let out = try checkOutput(out_event, "out_event")
    var lost: UInt64 = 0
    let event = breaker.pointee.nextEvent(cursor: &cursor.pointee, lost: &lost)
    out_lost?.pointee = lost
    guard let event else { return AGR_EMPTY }
    writeStructure(
      agr_breaker_event(
        struct_size: 0, from_state: event.from, to_state: event.to, mode: event.mode,
        generation: event.generation, time_ns: event.time, open_for_ns: event.openFor), to: out)
    return AGR_OK
  }
}
