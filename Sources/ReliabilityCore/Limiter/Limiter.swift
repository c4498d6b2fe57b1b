/// A rate limiter: a token bucket, the reservations that are open, and what was refused.
package struct Limiter: ~Copyable, Engine {
  package struct Configuration {
    package var rate: TokenRate
    package var initial: Int64
    /// -1: full.
    package var askedInitial: Int64
    package var maxReservations: Int
    package var reservationTimeout: Int64
    package var observe: Bool

    package init(
      rate: TokenRate, initial: Int64, maxReservations: Int, reservationTimeout: Int64,
      observe: Bool
    ) throws(Failure) {
      guard initial >= -1 && initial <= rate.capacity else {
        throw .argument("initial_tokens", "must be -1, or 0 ... capacity")
      }
      try requireReservations(maxReservations, timeout: reservationTimeout)
      self.rate = rate
      self.initial = initial == -1 ? rate.capacity : initial
      askedInitial = initial
      self.maxReservations = maxReservations
      self.reservationTimeout = reservationTimeout
      self.observe = observe
    }
  }

  package struct Counters {
    package let refused: UInt64
    package let wouldRefuse: UInt64
    package let forgiven: UInt64

    package init(refused: UInt64, wouldRefuse: UInt64, forgiven: UInt64) {
      self.refused = refused
      self.wouldRefuse = wouldRefuse
      self.forgiven = forgiven
    }
  }

  private let timeline: Timeline
  private let bucket: TokenBucket
  private let reservations: PermitTable
  private let tallies: ThreadCounters
  private static let refused = 0
  private static let wouldRefuse = 1
  /// Behind the words of the bucket and of the timeline, which are seldom written either.
  private let marks: AtomicWords
  private static let forgiven = 0
  private let reservationTimeout: Int64
  private let observe: Bool
  private let maxReservations: Int
  private let memory: Block

  package init(
    _ configuration: Configuration, _ ground: inout Ground, _ memory: consuming Block
  ) {
    bucket = TokenBucket(&ground)
    timeline = Timeline(bucket.rest)
    marks = bucket.rest.from(Timeline.wordCount)
    tallies = ThreadCounters(&ground)
    reservations = PermitTable(
      count: configuration.maxReservations, payloadWords: 3, &ground)
    reservationTimeout = configuration.reservationTimeout
    observe = configuration.observe
    maxReservations = configuration.maxReservations
    self.memory = memory
  }

  package func begin(_ configuration: Configuration, _ beginning: Beginning) {
    timeline.begin(beginning.now)
    bucket.begin(configuration.rate, initial: configuration.initial, now: beginning.now)
    reservations.begin(seed: beginning.seed)
  }

  package func settle(_ salt: UInt64) { reservations.settle(salt) }

  package init(_ configuration: Configuration, seed: UInt64, now: Int64) throws(Failure) {
    try requireTime(now, "now_ns")
    self = try Limiter.alone(configuration, Beginning(seed: seed, now: now))
  }

  @inline(__always)
  package func tryAcquire(_ tokens: Int64, now: Int64) throws(Failure) -> TakeDecision {
    try Limiter.require(tokens, now)
    let time = timeline.read(now)
    let decision = try bucket.take(tokens, time)
    guard case .limited = decision else { return decision }
    return isObeyed() ? decision : .admitted
  }

  /// Counts a refusal; false when it is only observed.
  private func isObeyed() -> Bool {
    if observe {
      tallies.increment(Limiter.wouldRefuse)
    } else {
      tallies.increment(Limiter.refused)
    }
    return !observe
  }

  /// Takes tokens to be used after a wait of at most `maxWait`.
  package func acquireAhead(
    _ tokens: Int64, maxWait: Int64, now: Int64, prepare: (Charge) -> Void = { _ in }
  ) throws(Failure) -> AdvanceDecision {
    try Limiter.require(tokens, now)
    try requireTimeOrForever(maxWait, "max_wait_ns")
    let decision = try bucket.takeAhead(tokens, maxWait: maxWait, timeline.read(now), prepare)
    guard case .limited = decision else { return decision }
    if isObeyed() { return decision }
    return .granted(wait: 0, charged: .none)
  }

  /// `acquireAhead`, with a permit by which the tokens can come back. It is there before they are taken, so that
  /// no refund in between misses it.
  package func reserve(
    _ tokens: Int64, maxWait: Int64, now: Int64
  ) throws(Failure) -> ReserveDecision {
    try Limiter.require(tokens, now)
    let time = timeline.read(now)
    let expires = Time.add(time, reservationTimeout)
    let permit = reservations.claim(Charge.none.payload, expires: expires, now: time)
    let decision: AdvanceDecision
    do throws(Failure) {
      decision = try acquireAhead(tokens, maxWait: maxWait, now: now) { charge in
        if let permit { reservations.remember(permit, charge.pending.payload) }
      }
    } catch {
      if let permit { reservations.release(permit) }
      throw error
    }
    switch decision {
    case .limited(let retryAfter):
      if let permit { reservations.release(permit) }
      return .limited(retryAfter: retryAfter)
    case .granted(let wait, let charged):
      guard let permit else {
        giveBack(charged, now: now)
        throw Limiter.tooManyReservations
      }
      if charged.tokens == 0 { reservations.remember(permit, charged.payload) }
      reservations.lower(word: Charge.levelWord, of: permit, to: charged.level)
      return .granted(Reservation(permit: permit, tokens: tokens, wait: wait))
    }
  }

  private static let tooManyReservations = Failure(
    .capacity, "max_reservations", "that many reservations are open")

  /// Ends a reservation; `actual` is its real cost, −1 when that is unknown. False: it was stale.
  package func settle(_ permit: UInt64, actual: Int64, now: Int64) throws(Failure) -> Bool {
    guard actual >= -1 && actual <= TokenRate.maximumTokens else {
      throw .argument("actual_tokens", "must be -1, or 0 ... 2^50 tokens")
    }
    try requireTime(now, "now_ns")
    guard let payload = reservations.end(permit, now: timeline.read(now)) else { return false }
    defer { reservations.release(permit) }
    let time = timeline.readOnward(now)
    let charge = Charge(payload)
    if actual == -1 || actual == charge.tokens { return true }
    if actual < charge.tokens {
      bucket.refund(charge.tokens &- actual, time, reservations, permit) {
        Charge(reservations.payload(of: permit))
      }
    } else {
      takeDown(actual &- charge.tokens, time)
    }
    return true
  }

  /// Takes tokens whether they are there or not, as far as debt may go.
  package func charge(_ tokens: Int64, now: Int64) { takeDown(tokens, timeline.read(now)) }

  private func takeDown(_ tokens: Int64, _ time: Int64) {
    let lost = bucket.charge(tokens, time)
    if lost > 0 { marks.add(Limiter.forgiven, UInt64(bitPattern: lost)) }
  }

  package func cancel(_ permit: UInt64, now: Int64) throws(Failure) -> Bool {
    try settle(permit, actual: 0, now: now)
  }

  /// Gives a charge back at once: there was no permit, or another bucket of the same demand refused.
  package func giveBack(_ charge: Charge, now: Int64) {
    bucket.refund(charge.tokens, timeline.readOnward(now), reservations, nil) { charge }
  }

  /// Adds tokens from elsewhere than the refill; never above the capacity.
  package func deposit(_ tokens: Int64, now: Int64) throws(Failure) {
    try Limiter.require(tokens, now)
    bucket.give(tokens, timeline.read(now))
  }

  package func available(now: Int64) throws(Failure) -> Int64 {
    try requireTime(now, "now_ns")
    return bucket.available(timeline.read(now))
  }

  package func reconfigure(_ configuration: Configuration, now: Int64) throws(Failure) {
    try requireTime(now, "now_ns")
    guard configuration.maxReservations == maxReservations else {
      throw .argument("max_reservations", "cannot be changed while in use")
    }
    guard configuration.reservationTimeout == reservationTimeout else {
      throw .argument("reservation_timeout_ns", "cannot be changed while in use")
    }
    guard configuration.observe == observe else {
      throw .argument("observe", "cannot be changed while in use")
    }
    try bucket.move(to: configuration.rate, timeline.read(now))
  }

  package func rate() -> TokenRate { bucket.currentRate() }

  package func openReservations(now: Int64) -> Int {
    reservations.open(now: timeline.read(now)).count
  }

  package func counters() -> Counters {
    Counters(
      refused: tallies.total(Limiter.refused),
      wouldRefuse: tallies.total(Limiter.wouldRefuse),
      forgiven: marks.load(Limiter.forgiven))
  }

  @inline(__always)
  private static func require(_ tokens: Int64, _ now: Int64) throws(Failure) {
    guard tokens >= 0 && tokens <= TokenRate.maximumTokens else {
      throw .argument("tokens", "must be 0 ... 2^50")
    }
    try requireTime(now, "now_ns")
  }
}
