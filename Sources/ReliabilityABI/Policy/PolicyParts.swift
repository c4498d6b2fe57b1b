import CAutoGLMReliability
import Platform
import ReliabilityCore

/// The parts of a policy, wherever they lie. A policy retains each of them, and releases it when it goes. A part
/// in a store waits for it within a step.
struct PolicyParts: BitwiseCopyable {
  var keys: KeysPart?
  var breaker: BreakerPart?
  var budget: Handle<RetryBudget>?
  /// Either all of them are in one store, or none is.
  var limiters = InlineArray<4, LimiterPart?>(repeating: nil)
  var limiterCount = 0

  func retainAll() {
    if let keys { retain(keys.cache) }
    if let breaker { retain(breaker.engine) }
    if let budget { retain(budget) }
    for index in 0..<limiterCount { if let limiter = limiters[index] { retain(limiter.engine) } }
  }

  func releaseAll() {
    keys?.letGo()
    breaker?.letGo()
    if let budget { release(budget) }
    for index in 0..<limiterCount { limiters[index]?.letGo() }
  }

  var areLimitersStored: Bool { limiters[0]?.stored != nil }

  /// Whether a step may wait for a store.
  var areAnyStored: Bool {
    areLimitersStored || keys?.isInStore ?? false || breaker?.isInStore ?? false
  }

  /// Whether limiters that are in one store can be taken from as one, as far as its driver knows.
  var canLimitersJoin: Bool {
    guard limiterCount > 1, let first = limiters[0]?.stored else { return true }
    let store = first.pointee.buckets.store
    guard let joins = store.pointee.functions.joins else { return true }
    // The first with each of the others: what they need is one place for all.
    for index in 1..<4 where index < limiterCount {
      guard let other = limiters[unchecked: index]?.stored else { continue }
      var pair = (first.pointee.buckets.emptyKey, other.pointee.buckets.emptyKey)
      let answer = withUnsafeBytes(of: &pair) { raw in
        joins(
          store.pointee.driver, raw.baseAddress?.assumingMemoryBound(to: agr_store_key.self), 2)
      }
      if answer == AGR_MISMATCH { return false }
    }
    return true
  }
}

/// A limiter, of this process, of a region or in a store.
struct LimiterPart: BitwiseCopyable {
  /// In a store the bucket in front.
  let engine: Handle<Limiter>
  let stored: Handle<StoredLimiter>?

  init(_ pointer: OpaquePointer?) throws(Failure) {
    stored = storedLimiter(pointer)
    if let stored {
      engine = UnsafeMutableRawPointer(stored).assumingMemoryBound(to: Limiter.self)
    } else {
      engine = try handle(pointer, .limiter, "limiters")
    }
  }

  func letGo() {
    if let stored { release(stored) } else { release(engine) }
  }

  /// Ends a reservation of a call; `actual` as `agr_limiter_settle` has it.
  @inline(__always)
  func settle(_ permit: UInt64, actual: Int64, _ call: Handle<Call>) {
    if let stored {
      LimiterPart.settle(stored, permit, actual, call)
    } else {
      _ = try? engine.pointee.settle(permit, actual: actual, now: call.pointee.now)
    }
  }

  @inline(__always)
  func cancel(_ permit: UInt64, _ call: Handle<Call>) {
    if let stored {
      LimiterPart.settle(stored, permit, 0, call)
    } else {
      _ = try? engine.pointee.cancel(permit, now: call.pointee.now)
    }
  }

  @inline(never)
  private static func settle(
    _ stored: Handle<StoredLimiter>, _ permit: UInt64, _ actual: Int64, _ call: Handle<Call>
  ) {
    _ = try? stored.pointee.settle(
      permit, actual: actual, now: call.pointee.now, until: call.pointee.endLimit)
  }
}

/// A breaker, whose state is this process's, a region's, or shared through a store.
struct BreakerPart: BitwiseCopyable {
  let engine: Handle<Breaker>
  private let stored: Handle<StoredBreaker>?

  init(_ pointer: OpaquePointer?) throws(Failure) {
    stored = handleIfKind(pointer, .storedBreaker)
    if let stored {
      engine = UnsafeMutableRawPointer(stored).assumingMemoryBound(to: Breaker.self)
    } else {
      engine = try handle(pointer, .breaker, "breaker")
    }
  }

  func letGo() {
    if let stored { release(stored) } else { release(engine) }
  }

  var isInStore: Bool { stored != nil }

  @inline(__always)
  func acquire(_ call: Handle<Call>) throws(Failure) -> Breaker.Admission {
    if let stored { return try BreakerPart.acquire(stored, call) }
    return try engine.pointee.acquire(now: call.pointee.now)
  }

  @inline(never)
  private static func acquire(
    _ stored: Handle<StoredBreaker>, _ call: Handle<Call>
  ) throws(Failure) -> Breaker.Admission {
    try stored.pointee.acquire(now: call.pointee.now, until: call.pointee.waitLimit)
  }

  /// A permit that expired meanwhile is stale: the breaker has counted without it.
  @inline(__always)
  func report(_ permit: UInt64, _ outcome: CallOutcome, latency: Int64, _ call: Handle<Call>) {
    if let stored {
      BreakerPart.report(stored, permit, outcome, latency, call)
    } else {
      _ = try? engine.pointee.report(
        permit, outcome, latency: latency, now: call.pointee.now, processRandom)
    }
  }

  @inline(never)
  private static func report(
    _ stored: Handle<StoredBreaker>, _ permit: UInt64, _ outcome: CallOutcome, _ latency: Int64,
    _ call: Handle<Call>
  ) {
    _ = try? stored.pointee.report(
      permit, outcome, latency: latency, now: call.pointee.now, until: call.pointee.endLimit)
  }
}
