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
  let buckets: StoredBuckets
  private let leaseTokens: Int64
  /// A bucket of its own, for when the store fails.
  private let local: Limiter
  private let observes: Bool
  /// Where tokens are leased one thread asks, and the others wait: 0 free, 1 held, 2 held and waited for.
  private let asking = Atomic<UInt32>(0)
  /// Until when the store has no more than so many tokens, as it last said; where tokens are leased.
  private let refusedUntil = Atomic<Int64>(0)
  private let refusedTokens = Atomic<Int64>(0)
  let refused = Atomic<UInt64>(0)
  let wouldRefuse = Atomic<UInt64>(0)

  /// How long a refusal of the store stands, at the longest: others may give tokens back.
  private static let longestRefusal = 100 * Time.millisecond
  /// Other threads may spend what one has just fetched.
  private static let tries = 8

  init(
    _ configuration: Limiter.Configuration, store: Handle<Store>, name: consuming SpaceName,
    _ options: StoreOptions
  ) throws(Failure) {
    let rate = configuration.rate
    let buckets = try StoredBuckets(rate, store: store, name: name, options)
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
    self.buckets = buckets
    leaseTokens = options.leaseTokens
    observes = configuration.observe
  }

  private static func makeLocal(
    _ configuration: Limiter.Configuration, share: Double
  ) throws(Failure) -> Limiter {
    var own = configuration
    let part = try StoredBuckets.share(of: configuration.rate, share)
    own.rate = try TokenRate(
      capacity: part.capacity, maxDebt: 0, tokens: part.tokens, interval: part.interval)
    own.initial = part.capacity
    own.maxReservations = 0
    own.observe = false
    return try Limiter(own, seed: processRandom(), now: now())
  }

  deinit {
    if let held = try? front.available(now: now()), held > 0 {
      buckets.add(0 &- held, StoredBuckets.Key())
    }
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
    guard tokens <= buckets.rate.capacity else {
      throw Failure(.neverFits, "tokens", "more than the capacity")
    }
    let deadline = Time.add(systemNow(), buckets.timeout)
    let isAlone = leaseTokens > 0
    if isAlone {
      if let wait = standing(tokens, maxWait) { return refuse(wait) }
      guard lock(until: deadline) else { return try goOnWithout(tokens, error, take) }
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
    let capacity = buckets.rate.capacity
    guard missing <= capacity else {
      // Debts are paid first, by nothing but time.
      return .limited(retryAfter: buckets.refillTime(missing &- capacity))
    }
    let room = capacity &- (try front.available(now: now()))
    let answer = buckets.take(
      StoredBuckets.Key(), least: missing,
      most: Swift.max(missing, Swift.min(missing &+ leaseTokens, room)), maxWait: maxWait,
      until: deadline, error)
    switch answer {
    case .granted(let taken, let wait):
      try front.deposit(taken, now: now())
      return .granted(wait: wait)
    case .limited(let retryAfter): return .limited(retryAfter: retryAfter)
    case .unanswered(let status): return try manage(missing, status)
    case .failed(let status): return .failed(status)
    }
  }

  /// What is done without the store.
  @inline(never)
  func manage(_ missing: Int64, _ status: Int) throws(Failure) -> Answer {
    switch buckets.onError {
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
    buckets.countFallback()
    try front.deposit(missing, now: now())
    return .granted(wait: 0)
  }

  /// What is done when another thread had no answer for as long as this one may wait.
  private func goOnWithout(
    _ tokens: Int64, _ error: UnsafeMutablePointer<agr_error>?,
    _ take: () throws(Failure) -> Bool
  ) throws(Failure) -> Answer {
    let status = buckets.store.pointee.fail(
      error, "timed out waiting for another thread's answer")
    for _ in 0..<StoredLimiter.tries {
      let missing = tokens &- (try front.available(now: now()))
      if missing > 0 {
        switch try manage(missing, status) {
        case .granted: break
        case .limited(let retryAfter): return refuse(retryAfter)
        case let failed: return failed
        }
      }
      if try take() { return .granted(wait: 0) }
    }
    return refuse(Time.millisecond)
  }

  func refuse(_ retryAfter: Int64) -> Answer {
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
  @inline(never)
  func returnSurplus() {
    guard let held = try? front.available(now: now()), held > leaseTokens,
      case .admitted? = try? front.tryAcquire(held &- leaseTokens, now: now())
    else { return }
    buckets.add(leaseTokens &- held, StoredBuckets.Key())
  }

  /// What the store has, and what is in front.
  func available(
    _ out: UnsafeMutablePointer<Int64>, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    let status = buckets.level(StoredBuckets.Key(), out, error)
    if status == AGR_OK { out.pointee = out.pointee &+ (try front.available(now: now())) }
    return status
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
