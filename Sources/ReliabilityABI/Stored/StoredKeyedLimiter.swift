import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// A limiter whose keys have their buckets in a store. Of this process are only the reservations that are open, and, for
/// when the store fails, a bounded table of buckets.
struct StoredKeyedLimiter: ~Copyable {
  private let buckets: StoredBuckets
  private let ledger: ReservationLedger
  private let local: KeyedLimiter
  private let longestKey: Int
  private let observes: Bool
  private let refused = Atomic<UInt64>(0)
  private let wouldRefuse = Atomic<UInt64>(0)

  init(
    _ configuration: KeyedLimiter.Configuration, rate: TokenRate, maxKeys: UInt32,
    store: Handle<Store>, name: consuming SpaceName, _ options: StoreOptions
  ) throws(Failure) {
    let buckets = try StoredBuckets(rate, store: store, name: name, options)
    let part = try StoredBuckets.share(of: rate, options.localShare)
    let own = try KeyedLimiter.Configuration(
      rate: KeyedRate(
        capacity: part.capacity, maxDebt: 0, tokens: part.tokens, interval: part.interval),
      maxKeys: buckets.onError == .local ? maxKeys : 1, maxReservations: 0,
      reservationTimeout: configuration.reservationTimeout, evict: configuration.evict,
      maxKeyBytes: UInt32(configuration.maxKeyBytes), observe: false)
    let local = try KeyedLimiter(
      own, seed: processRandom() | 1, permitSeed: processRandom(), now: now())
    let kept = try ReservationLedger.Configuration(
      count: configuration.maxReservations, timeout: configuration.reservationTimeout)
    let ledger = try ReservationLedger.alone(
      kept, Beginning(seed: processRandom(), now: now()))
    self.buckets = buckets
    self.local = local
    self.ledger = ledger
    longestKey = configuration.maxKeyBytes
    observes = configuration.observe
  }

  deinit { ledger.freeKeys() }

  // MARK: - Taking

  /// What came of taking: a status, and with AGR_OK how many were taken from the store, to be used after a wait.
  private struct Taking {
    var status = AGR_OK
    var tokens: Int64 = 0
    var wait: Int64 = 0
  }

  private func take(
    _ key: StoredBuckets.Key, _ tokens: Int64, maxWait: Int64,
    _ retryAfter: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Taking {
    guard tokens >= 0 && tokens <= KeyedRate.maximumTokens else {
      throw .argument("tokens", "must be 0 ... 2^40")
    }
    guard tokens <= buckets.rate.capacity else {
      throw Failure(.neverFits, "tokens", "more than the capacity")
    }
    let answer = buckets.take(
      key, least: tokens, most: tokens, maxWait: maxWait, until: buckets.wait(), error)
    switch answer {
    case .granted(let taken, let wait): return Taking(tokens: taken, wait: wait)
    case .failed(let status): return Taking(status: status)
    case .limited(let time): return Taking(status: refuse(time, retryAfter))
    case .unanswered(let status):
      switch buckets.onError {
      case .refuse: return Taking(status: status)
      case .admit: break
      case .local:
        // What a share of the capacity can never hold, it admits when it is full.
        let part = Swift.min(tokens, local.currentRate().capacity)
        let tag = try local.tag(key.data, key.length)
        if case .limited(let time) = try local.tryAcquire(tag, part, now: now()) {
          return Taking(status: refuse(time, retryAfter))
        }
      }
      buckets.countFallback()
      return Taking()
    }
  }

  private func refuse(_ time: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?) -> Int {
    if observes {
      wouldRefuse.wrappingAdd(1, ordering: .relaxed)
      return AGR_OK
    }
    refused.wrappingAdd(1, ordering: .relaxed)
    retryAfter?.pointee = time
    return AGR_LIMITED
  }

  func key(_ data: UnsafeRawPointer?, _ length: Int) throws(Failure) -> StoredBuckets.Key {
    guard length >= 0 && length <= longestKey else {
      throw .argument("key_length", "must be 0 ... max_key_bytes")
    }
    guard data != nil || length == 0 else { throw .argument("key", "must not be NULL") }
    return StoredBuckets.Key(data: data, length: length)
  }

  /// Takes tokens, and sleeps until they are there.
  func acquire(
    _ key: StoredBuckets.Key, _ tokens: Int64, maxWait: Int64,
    _ retryAfter: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    let taking = try take(key, tokens, maxWait: maxWait, retryAfter, error)
    if taking.status == AGR_OK && taking.wait > 0 {
      platform_sleep_until_ns(Time.add(systemNow(), taking.wait))
    }
    return taking.status
  }

  // MARK: - Reservations

  func reserve(
    _ key: StoredBuckets.Key, _ tokens: Int64, maxWait: Int64, now time: Int64,
    _ out: UnsafeMutablePointer<agr_reservation>, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try requireTimeOrForever(maxWait, "max_wait_ns")
    try requireTime(time, "now_ns")
    let taking = try take(key, tokens, maxWait: maxWait, retryAfter, error)
    guard taking.status == AGR_OK else { return taking.status }
    do throws(Failure) {
      // What was admitted without the store is not given back to it.
      let permit = try ledger.open(taking.tokens, key.data, key.length, now: time)
      out.pointee = agr_reservation(permit: permit, tokens: tokens, wait_ns: taking.wait)
      return AGR_OK
    } catch {
      if taking.tokens > 0 { buckets.add(0 &- taking.tokens, key, buckets.wait()) }
      throw error
    }
  }

  func settle(_ permit: UInt64, actual: Int64, now time: Int64) throws(Failure) -> Bool {
    guard actual >= -1 && actual <= TokenRate.maximumTokens else {
      throw .argument("actual_tokens", "must be -1, or 0 ... 2^50 tokens")
    }
    guard let ended = ledger.close(permit, now: time) else { return false }
    defer { platform_free(ended.key.baseAddress) }
    let key = StoredBuckets.Key(
      data: UnsafeRawPointer(ended.key.baseAddress), length: ended.key.count)
    if actual >= 0 && actual != ended.tokens {
      buckets.add(actual &- ended.tokens, key, buckets.wait())
    }
    return true
  }

  // MARK: - What can be seen

  func available(
    _ key: StoredBuckets.Key, _ out: UnsafeMutablePointer<Int64>,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    buckets.level(key, out, error)
  }

  func snapshot(now time: Int64) -> agr_keyed_limiter_snapshot {
    var snapshot = agr_keyed_limiter_snapshot()
    snapshot.open_reservations = UInt32(truncatingIfNeeded: ledger.openCount(now: time))
    snapshot.refused = refused.load(ordering: .relaxed)
    snapshot.would_refuse = wouldRefuse.load(ordering: .relaxed)
    return snapshot
  }
}
