import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// A breaker whose state is shared through a store. Each process counts its own calls, as any breaker does; when one of
/// them opens or closes it tells the others, who look from time to time. Half-open, one process has the probes.
struct StoredBreaker: ~Copyable {
  /// First, so that a handle of this is one of a breaker as well.
  let engine: Breaker
  private let store: Handle<Store>
  private let name: SpaceName
  private let timeout: Int64
  private let syncTime: Int64
  private let openTime: Int64
  private let owner: (UInt64, UInt64)
  /// The shared generation as this process last saw it; 0: the store has none.
  private let known = Atomic<UInt64>(0)
  /// The generation of the engine that the store knows of.
  private let published: Atomic<UInt64>
  private let nextSync = Atomic<Int64>(0)
  /// When a change that a caller had not the time to tell is told again.
  private let nextPublish = Atomic<Int64>(0)
  /// Until when this process has the probes.
  private let probesUntil = Atomic<Int64>(0)

  /// A state that nobody has changed for so long is forgotten.
  private static let memory = Time.day

  init(
    _ engine: consuming Breaker, openTime: Int64, store: Handle<Store>,
    name: consuming SpaceName, _ options: StoreOptions
  ) throws(Failure) {
    guard store.pointee.functions.breaker_read != nil else {
      throw .argument("store", "does not offer breaker state")
    }
    published = Atomic(engine.generation())
    self.engine = engine
    self.store = store
    self.name = name
    self.openTime = openTime
    timeout = options.timeout == 0 ? store.pointee.timeout : options.timeout
    syncTime = options.syncTime
    owner = (processRandom() | 1, processRandom())
    retain(store)
  }

  deinit { release(store) }

  // MARK: - Calls

  /// `limit`, on the system's clock, is when the caller's time is over.
  func acquire(
    now: Int64, until limit: Int64 = Time.forever
  ) throws(Failure) -> Breaker.Admission {
    try requireTime(now, "now_ns")
    try syncWhenDue(now, limit)
    // Once more when the state was not what was thought.
    for _ in 0..<2 {
      guard try engine.state(now: now) == .halfOpen, try engine.standing(now: now).isAutomatic,
        probesUntil.load(ordering: .relaxed) <= systemNow(), known.load(ordering: .relaxed) != 0
      else { break }
      var retryAfter: Int64 = 0
      let status = claimProbes(&retryAfter, limit)
      if status == AGR_OPEN {
        return .refused(retryAfter: Swift.max(1, Swift.min(retryAfter, openTime)))
      }
      // Without the store this process goes by itself.
      if status != AGR_STALE { break }
      try sync(now, limit)
    }
    let admission = try engine.acquire(now: now)
    try publish(now, limit)
    return admission
  }

  func report(
    _ permit: UInt64, _ outcome: CallOutcome, latency: Int64, now: Int64,
    until limit: Int64 = Time.forever
  ) throws(Failure) -> Bool {
    let isCounted = try engine.report(
      permit, outcome, latency: latency, now: now, processRandom)
    try publish(now, limit)
    return isCounted
  }

  // MARK: - The store

  /// One thread looks at the shared state when it is time to.
  private func syncWhenDue(_ now: Int64, _ limit: Int64) throws(Failure) {
    let time = systemNow()
    let due = nextSync.load(ordering: .relaxed)
    guard time >= due,
      nextSync.compareExchange(
        expected: due, desired: Time.add(time, syncTime), ordering: .relaxed
      ).exchanged
    else { return }
    try sync(now, limit)
  }

  private func sync(_ now: Int64, _ limit: Int64) throws(Failure) {
    var key = key()
    var shared = agr_store_breaker()
    let status = store.pointee.call(nil, StoreWait(timeout, until: limit)) { timeout, error in
      store.pointee.functions.breaker_read?(
        store.pointee.driver, &key, timeout, &shared, error) ?? Int32(AGR_ERR_STORE)
    }
    if status == AGR_OK { try follow(shared, now) }
  }

  /// Takes over what others have found, if it is news.
  private func follow(_ shared: agr_store_breaker, _ now: Int64) throws(Failure) {
    guard known.exchange(shared.generation, ordering: .relaxed) != shared.generation else {
      return
    }
    probesUntil.store(0, ordering: .relaxed)
    // A store that has lost its data knows nothing: what is known here stays.
    guard shared.generation != 0 else { return }
    try engine.follow(
      opens: shared.state != Int32(AGR_BREAKER_CLOSED),
      openFor: Swift.max(0, Swift.min(shared.open_ns, Time.max)), trips: UInt64(shared.trips),
      now: now)
    published.store(engine.generation(), ordering: .relaxed)
  }

  /// Tells the others when the engine has changed by itself.
  @inline(__always)
  private func publish(_ now: Int64, _ limit: Int64) throws(Failure) {
    let seen = published.load(ordering: .relaxed)
    if engine.generation() != seen { try publish(now, limit, instead: seen) }
  }

  private func publish(_ now: Int64, _ limit: Int64, instead seen: UInt64) throws(Failure) {
    guard systemNow() >= nextPublish.load(ordering: .relaxed) else { return }
    let standing = try engine.standing(now: now)
    guard
      published.compareExchange(
        expected: seen, desired: standing.generation, ordering: .relaxed
      ).exchanged, standing.isAutomatic, standing.state != .halfOpen
    else { return }
    var key = key()
    var desired = agr_store_breaker()
    desired.generation = known.load(ordering: .relaxed)
    desired.state = Int32(standing.state == .open ? AGR_BREAKER_OPEN : AGR_BREAKER_CLOSED)
    desired.trips = UInt32(truncatingIfNeeded: standing.trips)
    desired.open_ns = standing.openFor
    var shared = agr_store_breaker()
    let wait = StoreWait(timeout, until: limit)
    let status = store.pointee.call(nil, wait) { timeout, error in
      store.pointee.functions.breaker_set?(
        store.pointee.driver, &key, &desired,
        Time.add(standing.openFor, StoredBreaker.memory), timeout, &shared, error)
        ?? Int32(AGR_ERR_STORE)
    }
    if status == AGR_OK {
      known.store(shared.generation, ordering: .relaxed)
      probesUntil.store(0, ordering: .relaxed)
    } else if status == AGR_STALE {
      try follow(shared, now)
    } else if wait.isCut {
      // The caller had not the time for it: another tells, but not each of them for as long as the store hangs.
      nextPublish.store(Time.add(systemNow(), syncTime), ordering: .relaxed)
      _ = published.compareExchange(
        expected: standing.generation, desired: seen, ordering: .relaxed)
    }
  }

  private func claimProbes(_ retryAfter: inout Int64, _ limit: Int64) -> Int {
    var key = key()
    let start = systemNow()
    let status = withUnsafeBytes(of: owner) { owner in
      store.pointee.call(nil, StoreWait(timeout, until: limit)) { timeout, error in
        store.pointee.functions.probe?(
          store.pointee.driver, &key, known.load(ordering: .relaxed),
          owner.baseAddress?.assumingMemoryBound(to: UInt64.self), openTime, timeout, &retryAfter,
          error) ?? Int32(AGR_ERR_STORE)
      }
    }
    if status == AGR_OK { probesUntil.store(Time.add(start, openTime), ordering: .relaxed) }
    return status
  }

  private func key() -> agr_store_key {
    agr_store_key(space: name.base, space_length: name.count, data: nil, length: 0)
  }
}
