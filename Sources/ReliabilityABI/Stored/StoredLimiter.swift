import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// A limiter whose bucket lies in a store. In front is a bucket of this process that does not refill: it holds what was
/// taken from the store and is not spent yet. Only when it has not enough is the store asked, for what is missing and, if
/// tokens are leased, for some more. Tokens that are taken before they are there never lie in front, where others
/// would spend them. Reservations are this process's.
struct StoredLimiter: ~Copyable {
  /// First, so that a handle of this is one of a limiter as well.
  let front: Limiter
  let buckets: StoredBuckets
  private let leaseTokens: Int64
  /// A bucket of its own, for when the store fails.
  private let local: Limiter
  let ledger: ReservationLedger
  private let observes: Bool
  /// Where tokens are leased one thread asks, and the others wait: 0 free, 1 held, 2 held and waited for.
  private let asking = Atomic<UInt32>(0)
  /// Until when that thread is to have its answer.
  private let askingUntil = Atomic<Int64>(.max)
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
    held.maxReservations = 0
    held.observe = false
    held.rate = try TokenRate(
      capacity: rate.capacity, maxDebt: rate.maxDebt, tokens: 0, interval: Time.second)
    let front = try Limiter(held, seed: processRandom(), now: now())
    let local = try StoredLimiter.makeLocal(configuration, share: options.localShare)
    let kept = try ReservationLedger.Configuration(
      count: configuration.maxReservations, timeout: configuration.reservationTimeout)
    ledger = try ReservationLedger.alone(kept, Beginning(seed: processRandom(), now: now()))
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
      buckets.add(0 &- held, StoredBuckets.Key(), buckets.wait())
    }
  }

  // MARK: - Taking

  enum Answer {
    /// `paid` were taken of the shared bucket, to be used after a wait; 0 when it was admitted without.
    case granted(paid: Int64, wait: Int64)
    case limited(retryAfter: Int64)
    /// The status of an error, which was written.
    case failed(Int)
  }

  /// Takes tokens, if need be and within `maxWait` before they are there. `limit`, on the system's clock, is when the
  /// caller's own time is over.
  @inline(never)
  func take(
    _ tokens: Int64, maxWait: Int64, until limit: Int64 = Time.forever,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Answer {
    if try spend(tokens) { return .granted(paid: tokens, wait: 0) }
    guard tokens <= buckets.rate.capacity else {
      throw Failure(.neverFits, "tokens", "more than the capacity")
    }
    let wait = buckets.wait(until: limit)
    switch try fetch(tokens, maxWait, wait, error) {
    case .granted(let taken, _): return .granted(paid: taken, wait: 0)
    case .unanswered(let status): return try goOnWithout(tokens, status)
    case .failed(let status): return .failed(status)
    case .limited(let retryAfter):
      guard maxWait > 0, retryAfter <= maxWait else { return refuse(retryAfter) }
      switch buckets.takeAhead(StoredBuckets.Key(), tokens, maxWait, wait, error) {
      case .granted(let taken, let wait): return .granted(paid: taken, wait: wait)
      case .limited(let retryAfter): return refuse(retryAfter)
      case .unanswered(let status): return try goOnWithout(tokens, status)
      case .failed(let status): return .failed(status)
      }
    }
  }

  /// Spends what is in front, if it is enough.
  @inline(never)
  func spend(_ tokens: Int64) throws(Failure) -> Bool {
    if case .admitted = try front.tryAcquire(tokens, now: now()) { return true }
    return false
  }

  /// Brings what is missing to the front, which had not enough, and spends it.
  private func fetch(
    _ tokens: Int64, _ maxWait: Int64, _ limit: StoreWait,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> StoredBuckets.Answer {
    let isAlone = leaseTokens > 0
    if isAlone {
      if let wait = standing(tokens, maxWait) { return .limited(retryAfter: wait) }
      guard lock(limit) else {
        return .unanswered(
          buckets.store.pointee.fail(error, "timed out waiting for another thread's answer"))
      }
    }
    defer { if isAlone { unlock() } }
    for number in 0..<StoredLimiter.tries {
      // Another thread may have brought enough.
      if number > 0 || isAlone, try spend(tokens) { return .granted(taken: tokens, wait: 0) }
      let missing = tokens &- (try front.available(now: now()))
      if missing <= 0 { continue }
      let answer = try ask(missing, limit, error)
      guard case .granted(let taken, _) = answer else {
        if isAlone, case .limited(let retryAfter) = answer { remember(tokens, retryAfter) }
        return answer
      }
      try front.deposit(taken, now: now())
      if try spend(tokens) { return .granted(taken: tokens, wait: 0) }
    }
    return .limited(retryAfter: Time.millisecond)
  }

  /// Asks the store for what is missing.
  private func ask(
    _ missing: Int64, _ wait: StoreWait, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> StoredBuckets.Answer {
    let capacity = buckets.rate.capacity
    guard missing <= capacity else {
      // Debts are paid first, by nothing but time.
      return .limited(retryAfter: buckets.refillTime(missing &- capacity))
    }
    let room = capacity &- (try front.available(now: now()))
    return buckets.take(
      StoredBuckets.Key(), least: missing,
      most: Swift.max(missing, Swift.min(missing &+ leaseTokens, room)), maxWait: 0,
      until: wait, error)
  }

  /// What is done without the store, whose error was written.
  @inline(never)
  func goOnWithout(_ tokens: Int64, _ status: Int) throws(Failure) -> Answer {
    switch buckets.onError {
    case .refuse: return .failed(status)
    case .admit: break
    case .local:
      // What a share of the capacity can never hold, it admits when it is full.
      let limit = local.rate().capacity
      if case .limited(let retryAfter) = try local.tryAcquire(
        Swift.min(tokens, limit), now: now())
      {
        return refuse(retryAfter)
      }
    }
    buckets.countFallback()
    return .granted(paid: 0, wait: 0)
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

  // MARK: - Reservations

  /// Ends a reservation by its real cost; what comes back goes to the store, but for what may be leased, and what
  /// cannot is lost.
  func settle(
    _ permit: UInt64, actual: Int64, now time: Int64, until limit: Int64 = Time.forever
  ) throws(Failure) -> Bool {
    guard actual >= -1 && actual <= TokenRate.maximumTokens else {
      throw .argument("actual_tokens", "must be -1, or 0 ... 2^50 tokens")
    }
    try requireTime(time, "now_ns")
    guard let ended = ledger.close(permit, now: time) else { return false }
    if actual > ended.tokens {
      front.charge(actual &- ended.tokens, now: now())
    } else if actual >= 0 {
      try giveBack(ended.tokens &- actual, until: limit)
    }
    return true
  }

  func giveBack(_ tokens: Int64, until limit: Int64 = Time.forever) throws(Failure) {
    if tokens <= 0 { return }
    if leaseTokens == 0, try front.available(now: now()) >= 0 {
      buckets.add(0 &- tokens, StoredBuckets.Key(), buckets.wait(until: limit))
      return
    }
    // Debts are paid first.
    try front.deposit(tokens, now: now())
    let held = try front.available(now: now())
    guard held > leaseTokens, try spend(held &- leaseTokens) else { return }
    buckets.add(leaseTokens &- held, StoredBuckets.Key(), buckets.wait(until: limit))
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

  private func lock(_ wait: StoreWait) -> Bool {
    if !asking.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
      while asking.exchange(2, ordering: .acquiring) != 0 {
        let result = withUnsafePointer(to: asking) { platform_futex_wait($0, 2, wait.deadline) }
        guard result == ETIMEDOUT else { continue }
        // Whoever asks has no more time than this thread had, unless this one's was cut; or it is gone: a fork has
        // left it behind.
        if !wait.isCut
          || systemNow() > Time.add(askingUntil.load(ordering: .relaxed), StoreWait.telling)
        {
          unlock()
        }
        return false
      }
    }
    askingUntil.store(wait.deadline, ordering: .relaxed)
    return true
  }

  private func unlock() {
    askingUntil.store(.max, ordering: .relaxed)
    if asking.exchange(0, ordering: .releasing) == 2 {
      withUnsafePointer(to: asking) { platform_futex_wake($0, 1) }
    }
  }
}
