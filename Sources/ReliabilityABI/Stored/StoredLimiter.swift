import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// A limiter whose bucket lies in a store. In front is a bucket of this process that does not refill: it holds what was
/// taken from the store and is not spent yet, and its reservations are this process's. Only when it has not enough is
/// the store asked, for what is missing and, if tokens are leased, for some more.
struct StoredLimiter: ~Copyable {
  /// First, so that a handle of this is one of a limiter as well.
  let front: Limiter
  let store: Handle<Store>
  let name: SpaceName
  let rate: TokenRate
  private let onError: StoreFallback
  private let timeout: Int64
  private let leaseTokens: Int64
  /// A bucket of its own, for when the store fails.
  private let local: Limiter
  private let observes: Bool
  private let isLocal: Bool
  /// Where tokens are leased one thread asks, and the others wait: 0 free, 1 held, 2 held and waited for.
  private let asking = Atomic<UInt32>(0)
  /// Until when the store has no more than so many tokens, as it last said; where tokens are leased.
  private let refusedUntil = Atomic<Int64>(0)
  private let refusedTokens = Atomic<Int64>(0)
  let refused = Atomic<UInt64>(0)
  let wouldRefuse = Atomic<UInt64>(0)

  /// A store's largest bucket.
  private static let maximumTokens: Int64 = 1 << 40
  /// How long a refusal of the store stands, at the longest: others may give tokens back.
  private static let longestRefusal = 100 * Time.millisecond
  /// Other threads may spend what one has just fetched.
  private static let tries = 8

  init(
    _ configuration: Limiter.Configuration, store: Handle<Store>, name: consuming SpaceName,
    _ options: StoreOptions
  ) throws(Failure) {
    guard store.pointee.functions.take != nil else {
      throw .argument("store", "does not offer buckets")
    }
    let rate = configuration.rate
    guard rate.capacity <= StoredLimiter.maximumTokens else {
      throw .argument("capacity", "must be 1 ... 2^40 tokens in a store")
    }
    guard rate.tokens >= 1 && rate.tokens <= StoredLimiter.maximumTokens else {
      throw .argument("refill_tokens", "must be 1 ... 2^40 tokens in a store")
    }
    guard configuration.initial == rate.capacity else {
      throw .argument("initial_tokens", "must be -1 or the capacity in a store")
    }
    guard options.leaseTokens <= rate.capacity else {
      throw .argument("lease_tokens", "must be 0 ... capacity")
    }
    var held = configuration
    held.initial = 0
    held.observe = false
    held.rate = try TokenRate(
      capacity: rate.capacity, maxDebt: rate.maxDebt, tokens: 0, interval: Time.second)
    let front = try Limiter(held, seed: processRandom(), now: now())
    let local = try StoredLimiter.makeLocal(configuration, share: options.localShare)
    self.front = front
    self.local = local
    self.name = name
    self.store = store
    self.rate = rate
    onError = options.onError ?? store.pointee.onError
    isLocal = onError == .local
    timeout = options.timeout == 0 ? store.pointee.timeout : options.timeout
    leaseTokens = options.leaseTokens
    observes = configuration.observe
    retain(store)
  }

  /// A bucket of a share of the capacity, of at least one token, and of the rate.
  private static func makeLocal(
    _ configuration: Limiter.Configuration, share: Double
  ) throws(Failure) -> Limiter {
    var own = configuration
    let rate = configuration.rate
    let capacity = Swift.max(1, platform_truncate(Double(rate.capacity) * share))
    let interval = Swift.min(Time.year, platform_truncate(Double(rate.interval) / share))
    own.rate = try TokenRate(
      capacity: capacity, maxDebt: 0, tokens: rate.tokens,
      interval: Swift.max(rate.interval, interval))
    own.initial = capacity
    own.maxReservations = 0
    own.observe = false
    return try Limiter(own, seed: processRandom(), now: now())
  }

  deinit {
    if let held = try? front.available(now: now()), held > 0 { _ = giveBack(held) }
    release(store)
  }

  // MARK: - Taking

  enum Answer {
    /// There is enough in front, after a wait.
    case granted(wait: Int64)
    case limited(retryAfter: Int64)
    /// The status of an error, which was written.
    case failed(Int)
  }

  /// Brings what a call needs to the front, which had not enough, and lets `take` have it. `maxWait`: how long
  /// it may wait for tokens that are taken before they are there.
  func fetch(
    _ tokens: Int64, maxWait: Int64, _ error: UnsafeMutablePointer<agr_error>?,
    _ take: () throws(Failure) -> Bool
  ) throws(Failure) -> Answer {
    guard tokens <= rate.capacity else {
      throw Failure(.neverFits, "tokens", "more than the capacity")
    }
    let deadline = Time.add(systemNow(), timeout)
    let isAlone = leaseTokens > 0
    if isAlone {
      if let wait = standing(tokens, maxWait) { return refuse(wait) }
      guard lock(until: deadline) else {
        return .failed(store.pointee.fail(error, "timed out waiting for another thread's answer"))
      }
    }
    defer { if isAlone { unlock() } }
    var wait: Int64 = 0
    for number in 0..<StoredLimiter.tries {
      // Another thread may have brought enough.
      if number > 0 || isAlone, try take() { return .granted(wait: wait) }
      let missing = tokens &- (try front.available(now: now()))
      if missing <= 0 { continue }
      switch try ask(missing, maxWait, deadline, error) {
      case .granted(let more): wait = Swift.max(wait, more)
      case .limited(let retryAfter):
        if isAlone { remember(tokens, retryAfter) }
        return refuse(retryAfter)
      case .failed(let status): return .failed(status)
      }
      if try take() { return .granted(wait: wait) }
    }
    return refuse(Time.millisecond)
  }

  /// Asks the store for what is missing, and puts it in front.
  private func ask(
    _ missing: Int64, _ maxWait: Int64, _ deadline: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Answer {
    let room = rate.capacity &- (try front.available(now: now()))
    var bucket = self.bucket()
    bucket.tokens = Swift.max(missing, Swift.min(missing &+ leaseTokens, room))
    bucket.least = missing
    guard missing <= rate.capacity else {
      // Debts are paid first, by nothing but time.
      return .limited(retryAfter: refillTime(missing &- rate.capacity))
    }
    switch call(&bucket, deadline, error) {
    case AGR_OK:
      try front.deposit(bucket.taken, now: now())
      return .granted(wait: 0)
    case AGR_LIMITED:
      let retryAfter = Swift.max(1, bucket.retry_after_ns)
      guard maxWait > 0, retryAfter <= maxWait else { return .limited(retryAfter: retryAfter) }
      return try askAhead(missing, maxWait, deadline, error)
    case let status where status == AGR_ERR_STORE: return try manage(missing, status)
    case let status: return .failed(status)
    }
  }

  /// Takes tokens before they are there.
  private func askAhead(
    _ missing: Int64, _ maxWait: Int64, _ deadline: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Answer {
    var bucket = self.bucket()
    bucket.tokens = missing
    bucket.least = missing
    bucket.flags = UInt32(AGR_STORE_MAY_OWE)
    let status = call(&bucket, deadline, error)
    guard status == AGR_OK else {
      return status == AGR_ERR_STORE ? try manage(missing, status) : .failed(status)
    }
    let owed = Swift.max(0, 0 &- bucket.level)
    let wait = refillTime(owed)
    guard wait <= maxWait, owed <= rate.maxDebt else {
      _ = giveBack(missing)
      return .limited(retryAfter: Swift.max(1, Time.subtract(wait, maxWait)))
    }
    try front.deposit(missing, now: now())
    return .granted(wait: wait)
  }

  /// What is done without the store.
  private func manage(_ missing: Int64, _ status: Int) throws(Failure) -> Answer {
    switch onError {
    case .refuse: return .failed(status)
    case .admit: break
    case .local:
      // What a share of the capacity can never hold, it admits when it is full.
      let limit = local.rate().capacity
      if case .limited(let retryAfter) = try local.tryAcquire(
        Swift.min(missing, limit), now: now())
      {
        return .limited(retryAfter: retryAfter)
      }
    }
    store.pointee.fallbacks.wrappingAdd(1, ordering: .relaxed)
    try front.deposit(missing, now: now())
    return .granted(wait: 0)
  }

  private func refuse(_ retryAfter: Int64) -> Answer {
    if observes {
      wouldRefuse.wrappingAdd(1, ordering: .relaxed)
    } else {
      refused.wrappingAdd(1, ordering: .relaxed)
    }
    return .limited(retryAfter: retryAfter)
  }

  /// Whether a refusal is only counted.
  var isObserved: Bool { observes }

  // MARK: - Giving back

  /// After tokens have come back: what is more than may be leased returns to the store. What cannot is lost.
  func returnSurplus() {
    guard let held = try? front.available(now: now()), held > leaseTokens,
      case .admitted? = try? front.tryAcquire(held &- leaseTokens, now: now())
    else { return }
    _ = giveBack(held &- leaseTokens)
  }

  private func giveBack(_ tokens: Int64) -> Int {
    var bucket = self.bucket()
    bucket.tokens = 0 &- tokens
    return call(&bucket, Time.add(systemNow(), timeout), nil)
  }

  // MARK: - The store

  /// What the store has, and what is in front.
  func available(
    _ out: UnsafeMutablePointer<Int64>, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    var bucket = self.bucket()
    let status = call(&bucket, Time.add(systemNow(), timeout), error)
    guard status == AGR_OK else { return status }
    out.pointee = bucket.level &+ (try front.available(now: now()))
    return AGR_OK
  }

  /// The bucket, taking nothing.
  private func bucket() -> agr_store_bucket {
    var bucket = agr_store_bucket()
    bucket.key = agr_store_key(
      space: name.base, space_length: name.count, data: nil, length: 0)
    bucket.capacity = rate.capacity
    bucket.refill_tokens = rate.tokens
    bucket.interval_ns = rate.interval
    return bucket
  }

  private func call(
    _ bucket: inout agr_store_bucket, _ deadline: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var index: UInt32 = 0
    let left = Swift.max(1, Swift.min(timeout, deadline &- systemNow()))
    return store.pointee.call(error) { error in
      store.pointee.functions.take?(store.pointee.driver, &bucket, 1, left, &index, error)
        ?? Int32(AGR_ERR_STORE)
    }
  }

  /// How long it takes until so many tokens flowed in.
  private func refillTime(_ tokens: Int64) -> Int64 {
    let time = Double(tokens) * Double(rate.interval) / Double(rate.tokens)
    return time < Double(Time.max) ? platform_truncate(time) &+ 1 : Time.forever
  }

  // MARK: - One who asks, where tokens are leased

  /// How long a refusal that concerns this many tokens stands still.
  private func standing(_ tokens: Int64, _ maxWait: Int64) -> Int64? {
    let left = refusedUntil.load(ordering: .relaxed) &- systemNow()
    guard left > 0, left > maxWait, tokens >= refusedTokens.load(ordering: .relaxed) else {
      return nil
    }
    return left
  }

  private func remember(_ tokens: Int64, _ retryAfter: Int64) {
    let time = Swift.min(retryAfter, StoredLimiter.longestRefusal)
    refusedTokens.store(tokens, ordering: .relaxed)
    refusedUntil.store(Time.add(systemNow(), time), ordering: .relaxed)
  }

  private func lock(until deadline: Int64) -> Bool {
    if asking.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
      return true
    }
    while asking.exchange(2, ordering: .acquiring) != 0 {
      let result = withUnsafePointer(to: asking) { platform_futex_wait($0, 2, deadline) }
      guard result == ETIMEDOUT else { continue }
      // Whoever asks has no more time than this thread had, or is gone: a fork has left it behind.
      unlock()
      return false
    }
    return true
  }

  private func unlock() {
    if asking.exchange(0, ordering: .releasing) == 2 {
      withUnsafePointer(to: asking) { platform_futex_wake($0, 1) }
    }
  }
}
