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
    if try stored.pointee.spend(tokens) { return AGR_OK }
    return try stored.pointee.take(tokens, maxWait: 0, retryAfter, error)
  }
}

extension StoredLimiter {
  /// Takes tokens, and sleeps until they are there.
  func acquire(
    _ tokens: Int64, timeout: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try spend(tokens) ? AGR_OK : try take(tokens, maxWait: timeout, retryAfter, error)
  }

  /// Spends what is in front, if it is enough.
  @inline(never)
  func spend(_ tokens: Int64) throws(Failure) -> Bool {
    if case .admitted = try front.tryAcquire(tokens, now: now()) { return true }
    return false
  }

  /// Takes tokens, of which the front had not enough, and sleeps until they are there.
  @inline(never)
  func take(
    _ tokens: Int64, maxWait: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    let answer = try fetch(tokens, maxWait: maxWait, error) { () throws(Failure) in
      try spend(tokens)
    }
    switch answer {
    case .granted(let wait):
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
    _ tokens: Int64, maxWait: Int64, now time: Int64,
    _ out: UnsafeMutablePointer<agr_reservation>, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try requireTimeOrForever(maxWait, "max_wait_ns")
    var made = Reservation.none
    if try take(tokens, time, &made) {
      out.pointee = agr_reservation(permit: made.permit, tokens: tokens, wait_ns: 0)
      return AGR_OK
    }
    let answer = try fetch(tokens, maxWait: maxWait, error) { () throws(Failure) in
      try take(tokens, time, &made)
    }
    switch answer {
    case .granted(let wait):
      out.pointee = agr_reservation(permit: made.permit, tokens: tokens, wait_ns: wait)
      return AGR_OK
    case .failed(let status): return status
    case .limited(let retry):
      if isObserved {
        try front.deposit(tokens, now: time)
        if try take(tokens, time, &made) {
          out.pointee = agr_reservation(permit: made.permit, tokens: tokens, wait_ns: 0)
          return AGR_OK
        }
      }
      retryAfter?.pointee = retry
      return AGR_LIMITED
    }
  }

  /// Reserves in front, if there is enough.
  @inline(never)
  private func take(
    _ tokens: Int64, _ time: Int64, _ made: inout Reservation
  ) throws(Failure) -> Bool {
    guard case .granted(let reservation) = try front.reserve(tokens, maxWait: 0, now: time) else {
      return false
    }
    made = reservation
    return true
  }

  /// Reserves what it puts in front; 0 when others were faster.
  func hold(_ tokens: Int64, _ time: Int64) throws(Failure) -> UInt64 {
    var made = Reservation.none
    try front.deposit(tokens, now: time)
    return try take(tokens, time, &made) ? made.permit : 0
  }

  func counters() -> Limiter.Counters {
    let own = front.counters()
    return Limiter.Counters(
      refused: refused.load(ordering: .relaxed), wouldRefuse: wouldRefuse.load(ordering: .relaxed),
      forgiven: own.forgiven)
  }
}
