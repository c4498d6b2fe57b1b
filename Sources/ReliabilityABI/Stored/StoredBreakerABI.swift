public import CAutoGLMReliability
import ReliabilityCore

@implementation @_cdecl("agr_breaker_create_in_store")
public func agr_breaker_create_in_store(
  _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_breaker_config>?, _ options: UnsafePointer<agr_store_options>?,
  _ out_breaker: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_breaker, "out_breaker")
    out.pointee = nil
    let store = try storeHandle(store)
    let config = try readStructure(config, defaults: breakerDefaults(), "config")
    let options = try readStructure(
      options, defaults: storeOptionDefaults(), "options", optional: true)
    let engine = try Breaker(
      readBreakerConfiguration(config), seed: config.seed, permitSeed: processRandom(),
      now: now())
    let stored = try StoredBreaker(
      engine, openTime: config.open_ns, store: store, name: SpaceName(name),
      StoreOptions(options))
    out.pointee = try makeHandle(.storedBreaker, stored)
    return AGR_OK
  }
}

/// `agr_breaker_acquire` of what is no breaker of this process or of a region.
func acquireInStore(
  _ breaker: OpaquePointer?, _ now: Int64, _ permit: UnsafeMutablePointer<UInt64>?,
  _ retryAfter: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(permit, "out_permit")
    out.pointee = 0
    retryAfter?.pointee = 0
    let stored: Handle<StoredBreaker> = try handle(breaker, .storedBreaker, "breaker")
    switch try stored.pointee.acquire(now: now) {
    case .admitted(let permit):
      out.pointee = permit
      return AGR_OK
    case .refused(let time):
      retryAfter?.pointee = time
      return AGR_OPEN
    }
  }
}

/// `agr_breaker_report` of the same.
func reportInStore(
  _ breaker: OpaquePointer?, _ permit: UInt64, _ outcome: Int32, _ latency: Int64, _ now: Int64,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let stored: Handle<StoredBreaker> = try handle(breaker, .storedBreaker, "breaker")
    return try stored.pointee.report(
      permit, requireOutcome(outcome), latency: latency, now: now) ? AGR_OK : AGR_STALE
  }
}
