public import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// A limiter in a store, if the handle is one.
@inline(__always)
func storedLimiter(_ pointer: OpaquePointer?) -> Handle<StoredLimiter>? {
  handleIfKind(pointer, .storedLimiter)
}

/// The same of an engine that has been checked.
@inline(__always)
func stored(_ engine: Handle<Limiter>) -> Handle<StoredLimiter>? {
  guard isOfKind(engine, .storedLimiter) else { return nil }
  return UnsafeMutableRawPointer(engine).assumingMemoryBound(to: StoredLimiter.self)
}

@implementation @_cdecl("agr_limiter_create_in_store")
public func agr_limiter_create_in_store(
  _ store: OpaquePointer?, _ name: UnsafePointer<CChar>?,
  _ config: UnsafePointer<agr_limiter_config>?,
  _ options: UnsafePointer<agr_store_options>?,
  _ out_limiter: UnsafeMutablePointer<OpaquePointer?>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let out = try required(out_limiter, "out_limiter")
    out.pointee = nil
    let store = try storeHandle(store)
    let configuration = try readLimiterConfiguration(config)
    let options = try readStructure(
      options, defaults: storeOptionDefaults(), "options", optional: true)
    let engine = try StoredLimiter(
      configuration, store: store, name: SpaceName(name), StoreOptions(options))
    out.pointee = try makeHandle(.storedLimiter, engine)
    return AGR_OK
  }
}

/// `agr_limiter_try_acquire` of what is no limiter of this process or of a region.
func tryAcquireInStore(
  _ limiter: OpaquePointer?, _ tokens: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    let stored: Handle<StoredLimiter> = try handle(limiter, .storedLimiter, "limiter")
    retryAfter?.pointee = 0
    return try stored.pointee.tryAcquire(tokens, maxWait: 0, retryAfter, error)
  }
}

extension StoredLimiter {
  /// Takes tokens, and sleeps until they are there.
  func acquire(
    _ tokens: Int64, timeout: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try requireTimeOrForever(timeout, "timeout_ns")
    return try tryAcquire(tokens, maxWait: timeout, retryAfter, error)
  }

  @inline(never)
  fileprivate func tryAcquire(
    _ tokens: Int64, maxWait: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    switch try take(tokens, maxWait: maxWait, error) {
    case .granted(_, let wait):
      if wait > 0 { platform_sleep_until_ns(Time.add(systemNow(), wait)) }
      return AGR_OK
    case .failed(let status): return status
    case .limited(let time):
      if isObserved { return AGR_OK }
      retryAfter?.pointee = time
      return AGR_LIMITED
    }
  }

  @inline(never)
  func reserve(
    _ tokens: Int64, maxWait: Int64, now time: Int64, until limit: Int64 = Time.forever,
    _ out: UnsafeMutablePointer<agr_reservation>, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try requireTimeOrForever(maxWait, "max_wait_ns")
    try requireTime(time, "now_ns")
    var paid: Int64 = 0
    var wait: Int64 = 0
    switch try take(tokens, maxWait: maxWait, until: limit, error) {
    case .granted(let taken, let needed): (paid, wait) = (taken, needed)
    case .failed(let status): return status
    case .limited(let retry):
      if !isObserved {
        retryAfter?.pointee = retry
        return AGR_LIMITED
      }
    }
    out.pointee = agr_reservation(
      permit: try keep(paid, now: time, until: limit), tokens: tokens, wait_ns: wait)
    return AGR_OK
  }

  /// A permit for what was taken.
  func keep(
    _ paid: Int64, now time: Int64, until limit: Int64 = Time.forever
  ) throws(Failure) -> UInt64 {
    do throws(Failure) {
      return try ledger.open(paid, nil, 0, now: time)
    } catch {
      try giveBack(paid, until: limit)
      throw error
    }
  }

  func counters() -> Limiter.Counters {
    let own = front.counters()
    return Limiter.Counters(
      refused: refused.load(ordering: .relaxed), wouldRefuse: wouldRefuse.load(ordering: .relaxed),
      forgiven: own.forgiven)
  }
}
