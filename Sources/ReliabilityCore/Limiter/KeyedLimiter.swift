/// A rate limiter with a bucket for every key, in memory that is bounded from the start.
package struct KeyedLimiter: ~Copyable, Engine {
  package struct Configuration {
    package let rate: KeyedRate
    package let slots: Int
    package let maxReservations: Int
    package let reservationTimeout: Int64
    package let evict: Bool
    package let maxKeyBytes: Int
    package let observe: Bool
    /// Of the hash.
    package var seed: UInt64 = 0

    package init(
      rate: KeyedRate, maxKeys: UInt32, maxReservations: Int, reservationTimeout: Int64,
      evict: Bool, maxKeyBytes: UInt32, observe: Bool
    ) throws(Failure) {
      guard maxKeys >= 1 && maxKeys <= 1 << 28 else {
        throw .argument("max_keys", "must be 1 ... 2^28")
      }
      try requireReservations(maxReservations, timeout: reservationTimeout)
      guard maxKeyBytes >= 1 && maxKeyBytes <= 1 << 20 else {
        throw .argument("max_key_bytes", "must be 1 ... 1,048,576")
      }
      self.rate = rate
      var slots = 16
      while slots < Int(maxKeys) &* 3 / 2 { slots &*= 2 }
      self.slots = slots
      self.maxReservations = maxReservations
      self.reservationTimeout = reservationTimeout
      self.evict = evict
      self.maxKeyBytes = Int(maxKeyBytes)
      self.observe = observe
    }
  }

  package struct Counters {
    package let refused: UInt64
    package let wouldRefuse: UInt64
    package let evicted: UInt64
    package let noPlace: UInt64
  }

  private let timeline: Timeline
  private let table: KeyTable
  private let reservations: PermitTable
  private let hash: SipHash
  private let rates: RateEpochs
  private let tallies: ThreadCounters
  private static let refused = 0
  private static let wouldRefuse = 1
  private let marks: AtomicWords
  private static let evicted = 0
  private static let noPlace = 1
  private let maxReservations: Int
  private let reservationTimeout: Int64
  private let maxKeyBytes: Int
  private let evict: Bool
  private let observe: Bool
  private let memory: Block

  private static let epochMask: UInt64 = (1 << 23) - 1

  package init(
    _ configuration: Configuration, _ ground: inout Ground, _ memory: consuming Block
  ) {
    rates = RateEpochs(&ground)
    timeline = Timeline(rates.rest)
    marks = ground.shared.words(2)
    table = KeyTable(
      count: configuration.slots, ground.shared.pairs(configuration.slots))
    tallies = ThreadCounters(&ground)
    reservations = PermitTable(
      count: configuration.maxReservations, payloadWords: 3, &ground)
    hash = SipHash(seed: configuration.seed)
    maxReservations = configuration.maxReservations
    reservationTimeout = configuration.reservationTimeout
    maxKeyBytes = configuration.maxKeyBytes
    evict = configuration.evict
    observe = configuration.observe
    self.memory = memory
  }

  package func begin(_ configuration: Configuration, _ beginning: Beginning) {
    timeline.begin(beginning.now)
    rates.begin(KeyedRate.wordCount) { configuration.rate.word($0) }
    reservations.begin(seed: beginning.seed)
  }

  package func settle(_ salt: UInt64) { reservations.settle(salt) }

  package init(
    _ configuration: Configuration, seed: UInt64, permitSeed: UInt64, now: Int64
  ) throws(Failure) {
    var configuration = configuration
    configuration.seed = seed
    self = try KeyedLimiter.alone(configuration, Beginning(seed: permitSeed, now: now))
  }

  package var slots: Int { table.count }

  /// What identifies a key from here on.
  @inline(__always)
  package func tag(_ key: UnsafeRawPointer?, _ count: Int) throws(Failure) -> UInt64 {
    guard key != nil || count == 0 else {
      throw .argument("key", "must not be NULL when key_length is not 0")
    }
    guard count >= 0 && count <= maxKeyBytes else {
      throw .argument("key_length", "must be 0 ... max_key_bytes")
    }
    return KeyTable.tag(hash.hash(key, count))
  }

  @inline(__always)
  package func tryAcquire(
    _ tag: UInt64, _ tokens: Int64, now: Int64
  ) throws(Failure) -> TakeDecision {
    switch try take(tag, tokens, maxWait: 0, now: now) {
    case .granted: .admitted
    case .limited(let retryAfter): .limited(retryAfter: retryAfter)
    }
  }

  /// Takes tokens to be used after a wait of at most `maxWait`.
  @inline(__always)
  package func take(
    _ tag: UInt64, _ tokens: Int64, maxWait: Int64, now: Int64,
    prepare: (Charge) -> Void = { _ in }
  ) throws(Failure) -> AdvanceDecision {
    try requireTime(now, "now_ns")
    try requireTimeOrForever(maxWait, "max_wait_ns")
    let rate = rate()
    guard tokens >= 0 && tokens <= KeyedRate.maximumTokens else {
      throw .argument("tokens", "must be 0 ... 2^40")
    }
    guard tokens <= rate.capacity else {
      throw Failure(.neverFits, "tokens", "more than the capacity: it could never be admitted")
    }
    let time = timeline.read(now)
    let cost = rate.cost(tokens)
    var wait: Int64 = 0
    var retryAfter: Int64 = -1
    var charge = Charge(tokens: 0, level: 0, epoch: epochMark())
    let nothing = charge
    let hasPlace = try change(tag, time) { full in
      let next = Swift.max(full, time) &+ cost
      // A bucket is empty `burst` before it is full; what reaches beyond that is debt, and waits.
      wait = Swift.max(0, next &- time &- rate.burst)
      if wait > maxWait || wait > (maxWait == 0 ? 0 : rate.debt) {
        retryAfter = Swift.max(Time.subtract(wait, maxWait), wait &- rate.debt)
        return .keep
      }
      retryAfter = -1
      charge = Charge(tokens: tokens, level: next, epoch: nothing.epoch)
      prepare(charge)
      return tokens == 0 ? .keep : .set(full: next)
    }
    if hasPlace && retryAfter < 0 { return .granted(wait: wait, charged: charge) }
    if observe {
      tallies.increment(KeyedLimiter.wouldRefuse)
      return .granted(wait: 0, charged: nothing)
    }
    guard hasPlace else {
      throw Failure(.capacity, "max_keys", "there is no place for another key")
    }
    tallies.increment(KeyedLimiter.refused)
    return .limited(retryAfter: retryAfter)
  }

  package func reserve(
    _ tag: UInt64, _ tokens: Int64, maxWait: Int64, now: Int64
  ) throws(Failure) -> ReserveDecision {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    // There before the tokens are taken, so that no refund in between misses it.
    let permit = reservations.claim(
      payload(tag, .none), expires: Time.add(time, reservationTimeout), now: time)
    let decision: AdvanceDecision
    do throws(Failure) {
      decision = try take(tag, tokens, maxWait: maxWait, now: now) { charge in
        if let permit { reservations.remember(permit, payload(tag, charge.pending)) }
      }
    } catch {
      if let permit { reservations.release(permit) }
      throw error
    }
    switch decision {
    case .limited(let retryAfter):
      if let permit { reservations.release(permit) }
      return .limited(retryAfter: retryAfter)
    case .granted(let wait, let charge):
      guard let permit else {
        try refund(tag, charge.tokens, timeline.readOnward(now), nil) { charge }
        throw Failure(.capacity, "max_reservations", "that many reservations are open")
      }
      if charge.tokens == 0 { reservations.remember(permit, payload(tag, charge)) }
      reservations.lower(word: KeyedLimiter.levelWord, of: permit, to: charge.level)
      return .granted(Reservation(permit: permit, tokens: tokens, wait: wait))
    }
  }

  private static let levelWord = 2

  /// A charge as it is remembered: tokens fit 41 bits, beside them the epoch of the rate.
  private func payload(_ tag: UInt64, _ charge: Charge) -> PermitTable.Payload {
    PermitTable.Payload(
      tag, charge.epoch &<< 41 | UInt64(bitPattern: charge.tokens),
      UInt64(bitPattern: charge.level))
  }

  private func charge(_ payload: PermitTable.Payload) -> Charge {
    Charge(
      tokens: Int64(bitPattern: payload.second & ((1 &<< 41) &- 1)),
      level: Int64(bitPattern: payload.third), epoch: payload.second &>> 41)
  }

  /// Ends a reservation; `actual` is its real cost, −1 when that is unknown. False: it was stale.
  package func settle(_ permit: UInt64, actual: Int64, now: Int64) throws(Failure) -> Bool {
    guard actual >= -1 && actual <= TokenRate.maximumTokens else {
      throw .argument("actual_tokens", "must be -1, or 0 ... 2^50 tokens")
    }
    try requireTime(now, "now_ns")
    guard let payload = reservations.end(permit, now: timeline.read(now)) else { return false }
    defer { reservations.release(permit) }
    let time = timeline.readOnward(now)
    let charge = charge(payload)
    if actual == -1 || actual == charge.tokens { return true }
    if actual < charge.tokens {
      try refund(payload.first, charge.tokens &- actual, time, permit) {
        self.charge(reservations.payload(of: permit))
      }
    } else {
      try self.charge(payload.first, actual &- charge.tokens, time)
    }
    return true
  }

  package func available(_ tag: UInt64, now: Int64) throws(Failure) -> Int64 {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    let rate = rate()
    var available = rate.capacity
    try change(tag, time) { full in
      let left = rate.burst &- Swift.max(0, full &- time)
      available = left >= 0 ? Swift.min(rate.capacity, rate.worth(left)) : -rate.worth(0 &- left)
      return .keep
    }
    return available
  }

  /// A change of rate: a key keeps the time it still has to refill.
  package func reconfigure(_ configuration: Configuration) throws(Failure) {
    guard configuration.slots == table.count else {
      throw .argument("max_keys", "cannot be changed while in use")
    }
    guard configuration.maxReservations == maxReservations else {
      throw .argument("max_reservations", "cannot be changed while in use")
    }
    guard configuration.reservationTimeout == reservationTimeout else {
      throw .argument("reservation_timeout_ns", "cannot be changed while in use")
    }
    guard configuration.evict == evict else {
      throw .argument("when_full", "cannot be changed while in use")
    }
    guard configuration.maxKeyBytes == maxKeyBytes else {
      throw .argument("max_key_bytes", "cannot be changed while in use")
    }
    guard configuration.observe == observe else {
      throw .argument("observe", "cannot be changed while in use")
    }
    let present = rates.current
    // One that was decided, and not entered yet.
    if rates.isDecided(present &+ 1) { rates.enter(present &+ 1) }
    let number = rates.current
    let isOurs = rates.decide(after: number, KeyedRate.wordCount) { configuration.rate.word($0) }
    guard isOurs else {
      throw Failure(.state, "limiter", "another reconfigure is under way")
    }
    rates.enter(number &+ 1)
  }

  package func currentRate() -> KeyedRate { rate() }

  package func busyKeys(now: Int64) -> Int {
    let time = timeline.read(now)
    var busy = 0
    table.forEach { _, full in if full > time { busy &+= 1 } }
    return busy
  }

  package func openReservations(now: Int64) -> Int {
    reservations.open(now: timeline.read(now)).count
  }

  package func counters() -> Counters {
    Counters(
      refused: tallies.total(KeyedLimiter.refused),
      wouldRefuse: tallies.total(KeyedLimiter.wouldRefuse),
      evicted: marks.load(KeyedLimiter.evicted), noPlace: marks.load(KeyedLimiter.noPlace))
  }

  /// Gives back `tokens` of a charge, by the rules of `TokenBucket.refund`.
  private func refund(
    _ tag: UInt64, _ tokens: Int64, _ time: Int64, _ permit: UInt64?, of charged: () -> Charge
  ) throws(Failure) {
    let charge = charged()
    // At the rate that it was charged at, which is known for two changes.
    let changes = (epochMark() &- charge.epoch) & KeyedLimiter.epochMask
    guard changes <= 2 else { return }
    let then = rate(of: rates.current &- changes)
    let cost = then.cost(tokens)
    guard cost > 0 && charge.level > time else { return }
    // Beyond this there is debt, and others wait.
    let empty = time &+ rate().burst
    try change(tag, time) { full in
      let level = Swift.min(charged().level, full)
      let kept = Swift.min(cost, Time.subtract(level, time))
      let back = kept &- Swift.max(0, full &- Swift.max(level, empty))
      guard back > 0 else { return .keep }
      let next = full &- back
      reservations.revise(word: KeyedLimiter.levelWord, except: permit) { other in
        other.first == tag && Int64(bitPattern: other.third) > next
          ? UInt64(bitPattern: next) : nil
      }
      return .set(full: next)
    }
  }

  /// The epoch of the rate, as far as a permit remembers it.
  private func epochMark() -> UInt64 { rates.current & KeyedLimiter.epochMask }

  private func charge(_ tag: UInt64, _ tokens: Int64, _ time: Int64) throws(Failure) {
    let rate = rate()
    let cost = rate.cost(tokens)
    try change(tag, time) { full in
      let start = Swift.max(full, time)
      let bottom = Swift.max(start, time &+ rate.burst &+ rate.debt)
      return .set(full: Swift.min(start &+ cost, bottom))
    }
  }

  /// Changes a key's bucket; says whether there is a place for it.
  @discardableResult @inline(__always)
  private func change(
    _ tag: UInt64, _ time: Int64, _ decide: (Int64) -> KeyTable.Change
  ) throws(Failure) -> Bool {
    var tookPlace = false
    let outcome = table.change(tag, time, evict: evict, evicted: &tookPlace, decide)
    if tookPlace { marks.add(KeyedLimiter.evicted, 1) }
    guard case .noPlace = outcome else { return true }
    marks.add(KeyedLimiter.noPlace, 1)
    return false
  }

  @inline(__always)
  private func rate() -> KeyedRate { rate(of: rates.current) }

  @inline(__always)
  private func rate(of epoch: UInt64) -> KeyedRate {
    let start = rates.start(of: epoch)
    return KeyedRate { rates.word(start, $0) }
  }
}
