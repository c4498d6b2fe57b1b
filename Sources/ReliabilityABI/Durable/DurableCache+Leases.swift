import CAutoGLMReliability
import Platform
import ReliabilityCore

// The ends of a run, in the store first: what it has not got is not said to be done.

extension DurableCache {
  func complete(
    _ lease: UInt64, _ data: UnsafeRawPointer?, _ length: Int, _ state: KeyState, now: Int64,
    until limit: Int64 = Time.forever, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try IdempotencyCache.requireData(data, length)
    guard length >= 0 && length <= maxResultBytes else {
      throw Failure(.neverFits, "length", "more than max_result_bytes: it could never be kept")
    }
    let time = try cache.time(now)
    guard let number = cache.shard(of: lease), let (run, key) = try run(of: lease, now: now) else {
      return AGR_STALE
    }
    defer { platform_free(key.baseAddress) }
    let ttl = run.place == .nowhere ? 0 : cache.shared.configuration.timeToLive
    var status = AGR_OK
    var problem = agr_error()
    let isKept = try cache.end(lease, data, length, state, number, time, ttl) {
      if run.place == .store {
        status = complete(
          storeKey(key), run.fence, state, data, length, StoreWait(timeout, until: limit),
          &problem)
      }
      return status == AGR_OK
    }
    switch status {
    case AGR_OK:
      // In the store it is kept even if the lease has ended here meanwhile.
      return isKept || run.place == .store ? AGR_OK : AGR_STALE
    case AGR_STALE:
      _ = try cache.abandon(lease, now: now)
      return AGR_STALE
    default: return report(status, problem, error)
    }
  }

  private func complete(
    _ key: agr_store_key, _ fence: UInt64, _ state: KeyState, _ data: UnsafeRawPointer?,
    _ length: Int, _ wait: StoreWait, _ problem: inout agr_error
  ) -> Int {
    var key = key
    let ttl = cache.shared.configuration.timeToLive
    return ask(&problem, wait) { timeout, error in
      store.pointee.functions.complete?(
        store.pointee.driver, &key, fence, Int32(state.rawValue), data, length, ttl, timeout,
        error) ?? Int32(AGR_ERR_STORE)
    }
  }

  func fail(
    _ lease: UInt64, _ data: UnsafeRawPointer?, _ length: Int, now: Int64,
    until limit: Int64 = Time.forever, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    if cache.shared.configuration.keepsFailures {
      return try complete(lease, data, length, .failed, now: now, until: limit, error)
    }
    try IdempotencyCache.requireData(data, length)
    return try end(lease, outcomeUnknown: false, now: now, until: limit, error)
  }

  /// Ends a run without a result.
  @inline(never)
  func end(
    _ lease: UInt64, outcomeUnknown: Bool, now: Int64, until limit: Int64 = Time.forever,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    guard let (run, key) = try run(of: lease, now: now) else {
      _ = try cache.abandon(lease, now: now)
      return AGR_STALE
    }
    defer { platform_free(key.baseAddress) }
    var status = AGR_OK
    var problem = agr_error()
    if run.place == .store {
      status = giveBack(
        storeKey(key), run.fence, outcomeUnknown: outcomeUnknown,
        StoreWait(timeout, until: limit), &problem)
    }
    switch status {
    case AGR_OK:
      let ended =
        outcomeUnknown
        ? try cache.abandon(lease, now: now) : try cache.giveBack(lease, now: now)
      return ended ? AGR_OK : AGR_STALE
    case AGR_STALE:
      _ = try cache.abandon(lease, now: now)
      return AGR_STALE
    default: return report(status, problem, error)
    }
  }

  @inline(never)
  func renew(
    _ lease: UInt64, leaseTime: Int64, now: Int64, until limit: Int64 = Time.forever,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    guard leaseTime >= 0 && leaseTime <= Time.max else {
      throw .argument("lease_ns", "must be 0 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard let (run, key) = try run(of: lease, now: now) else { return AGR_STALE }
    defer { platform_free(key.baseAddress) }
    let configuration = cache.shared.configuration
    let length = leaseTime == 0 ? configuration.leaseTime : leaseTime
    var status = AGR_OK
    var problem = agr_error()
    if run.place == .store {
      var key = storeKey(key)
      status = ask(&problem, StoreWait(timeout, until: limit)) { timeout, error in
        store.pointee.functions.renew?(
          store.pointee.driver, &key, run.fence, length, configuration.timeToLive, timeout, error)
          ?? Int32(AGR_ERR_STORE)
      }
    }
    switch status {
    case AGR_OK:
      return try cache.renew(lease, leaseTime: leaseTime, now: now) ? AGR_OK : AGR_STALE
    case AGR_STALE:
      _ = try cache.abandon(lease, now: now)
      return AGR_STALE
    default: return report(status, problem, error)
    }
  }

  /// The state of a key: as it is known here, or else in the store.
  func state(
    _ key: UnsafeRawPointer?, _ length: Int, now: Int64, _ out: UnsafeMutablePointer<Int32>,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    let local = try cache.state(key, length, now: now)
    out.pointee = Int32(local.rawValue)
    if local != .absent { return AGR_OK }
    var name = agr_store_key(
      space: self.name.base, space_length: self.name.count, data: key, length: length)
    var state = agr_store_run_state()
    var problem = agr_error()
    var room = ResultRoom(most: 1 << 30)
    let status = withUnsafeMutablePointer(to: &room) { room in
      var sink = agr_store_sink(
        reserve: { context, length in
          context?.assumingMemoryBound(to: ResultRoom.self).pointee.reserve(length)
        }, context: room)
      return ask(&problem, StoreWait(timeout)) { timeout, error in
        store.pointee.functions.read?(store.pointee.driver, &name, timeout, &sink, &state, error)
          ?? Int32(AGR_ERR_STORE)
      }
    }
    room.free()
    switch status {
    case AGR_REPLAY: out.pointee = state.state
    case AGR_IN_PROGRESS: out.pointee = Int32(AGR_KEY_PROCESSING)
    case AGR_NOT_FOUND where state.outcome_unknown == 0: return AGR_NOT_FOUND
    case AGR_NOT_FOUND: out.pointee = Int32(AGR_KEY_PENDING)
    case AGR_ERR_STORE where onError != .refuse: return AGR_NOT_FOUND
    default: return report(status, problem, error)
    }
    return AGR_OK
  }

  private func report(
    _ status: Int, _ problem: agr_error, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    if status >= 0 { return store.pointee.fail(error, "answered what is no answer") }
    error?.pointee = problem
    return status
  }
}
