public import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

@implementation @_cdecl("agr_version")
public func agr_version() -> UnsafePointer<CChar>! { cString("0.1.0") }

@implementation @_cdecl("agr_status_name")
public func agr_status_name(_ status: agr_status) -> UnsafePointer<CChar>! {
  switch Int(status) {
  case AGR_OK: cString("AGR_OK")
  case AGR_LIMITED: cString("AGR_LIMITED")
  case AGR_OPEN: cString("AGR_OPEN")
  case AGR_IN_PROGRESS: cString("AGR_IN_PROGRESS")
  case AGR_REPLAY: cString("AGR_REPLAY")
  case AGR_STALE: cString("AGR_STALE")
  case AGR_MISMATCH: cString("AGR_MISMATCH")
  case AGR_EXHAUSTED: cString("AGR_EXHAUSTED")
  case AGR_TIMED_OUT: cString("AGR_TIMED_OUT")
  case AGR_EMPTY: cString("AGR_EMPTY")
  case AGR_NOT_FOUND: cString("AGR_NOT_FOUND")
  case AGR_ERR_ARGUMENT: cString("AGR_ERR_ARGUMENT")
  case AGR_ERR_NO_MEMORY: cString("AGR_ERR_NO_MEMORY")
  case AGR_ERR_CAPACITY: cString("AGR_ERR_CAPACITY")
  case AGR_ERR_STORE: cString("AGR_ERR_STORE")
  case AGR_ERR_STATE: cString("AGR_ERR_STATE")
  case AGR_ERR_NEVER_FITS: cString("AGR_ERR_NEVER_FITS")
  case AGR_ERR_PARSE: cString("AGR_ERR_PARSE")
  case AGR_ERR_SYSTEM: cString("AGR_ERR_SYSTEM")
  case AGR_ERR_REGION: cString("AGR_ERR_REGION")
  case AGR_ERR_MISMATCH: cString("AGR_ERR_MISMATCH")
  default: cString("AGR_UNKNOWN")
  }
}

@implementation @_cdecl("agr_now_ns")
public func agr_now_ns() -> Int64 { Clock.read(ordered: true) }

@implementation @_cdecl("agr_clock_select")
public func agr_clock_select(
  _ source: Int32, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    guard let wanted = ClockSource(rawValue: source) else {
      throw .argument("source", "must be AGR_CLOCK_AUTO, _SYSTEM or _COUNTER")
    }
    guard Clock.select(wanted) else {
      throw Failure(
        .system, "source", "the kernel does not trust the processor's counter",
        systemError: platform_not_supported)
    }
    return AGR_OK
  }
}

@implementation @_cdecl("agr_clock_source")
public func agr_clock_source() -> Int32 { Clock.source.rawValue }

@implementation @_cdecl("agr_random")
public func agr_random() -> UInt64 { processRandom() }

@implementation @_cdecl("agr_random_next")
public func agr_random_next(
  _ state: UnsafeMutablePointer<UInt64>?, _ out_random: UnsafeMutablePointer<UInt64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let state = try required(state, "state")
    let out = try required(out_random, "out_random")
    var stream = SplitMix64(seed: state.pointee)
    out.pointee = stream.next()
    state.pointee = stream.state
    return AGR_OK
  }
}

/// A literal as a C string; literals are static and end with NUL.
func cString(_ text: StaticString) -> UnsafePointer<CChar> {
  UnsafeRawPointer(text.utf8Start).assumingMemoryBound(to: CChar.self)
}
