/// A circuit breaker. Its state is one word that is only ever exchanged whole; every change of state is a
/// new generation, and a permit knows the generation it was given in, so that late results are
/// recognised and change nothing.
package struct Breaker: ~Copyable, Engine {
  let timeline: Timeline
  /// The word, behind those of the timeline: seldom written, like them.
  private let head: AtomicWords
  private static let word = 0
  /// By generation: until when it is open, or since when it is closed or half-open.
  let times: AtomicWords
  let permits: PermitTable
  /// The permits of half-open: as many as there may be probes.
  let probes: PermitTable
  let counts: CountWindow
  let steps: TimeWindow
  /// What failures and trips write.
  let marks: AtomicWords
  /// Failures in a row, beside 32 bits of the generation they are of.
  static let streak = 0
  static let trips = 1
  let events: EventRing
  let tallies: ThreadCounters
  let configuration: BreakerConfiguration
  /// Of the jitter; 0: drawn from the caller's stream, which differs after a fork.
  let seed: UInt64
  private let memory: Block

  package static let eventCount = 64
  private static let eventWords = 4
  static let timeCount: UInt64 = 4
  /// What is counted.
  static let refused = 0
  static let wouldRefuse = 1
  static let stale = 2
  static let probeFlag: UInt64 = 1 << 63

  package init(
    _ configuration: BreakerConfiguration, _ ground: inout Ground, _ memory: consuming Block
  ) {
    let first = ground.shared.words(8)
    timeline = Timeline(first)
    head = first.from(Timeline.wordCount)
    marks = ground.shared.words(2)
    times = ground.shared.words(Int(Breaker.timeCount) &* 4)
    counts = CountWindow(
      size: configuration.window == .count ? Int(configuration.windowCalls) : 1, &ground)
    steps = TimeWindow(length: configuration.windowLength, &ground)
    tallies = ThreadCounters(&ground)
    events = EventRing(
      capacity: Breaker.eventCount, recordWords: Breaker.eventWords,
      ground.shared.words(
        EventRing.wordCount(capacity: Breaker.eventCount, recordWords: Breaker.eventWords)))
    probes = PermitTable(
      count: Int(configuration.halfOpenPermits), payloadWords: 1, &ground)
    permits = PermitTable(count: Int(configuration.maxPermits), payloadWords: 1, &ground)
    self.configuration = configuration
    seed = configuration.seed
    self.memory = memory
  }

  package func begin(_ configuration: BreakerConfiguration, _ beginning: Beginning) {
    var seeds = SplitMix64(seed: beginning.seed)
    permits.begin(seed: seeds.next())
    probes.begin(seed: seeds.next())
    times.begin(4 &+ Int(BreakerState.closed.rawValue), UInt64(bitPattern: beginning.now))
    let word = BreakerWord(
      state: .closed, mode: configuration.mode, trips: 0, successes: 0, generation: 1)
    head.begin(Breaker.word, word.raw)
  }

  package func settle(_ salt: UInt64) {
    permits.settle(salt)
    probes.settle(salt)
  }

  /// `seed` is of the jitter, `permitSeed` of the permits, `now` is when it is created.
  package init(
    _ configuration: BreakerConfiguration, seed: UInt64, permitSeed: UInt64, now: Int64
  ) throws(Failure) {
    try configuration.validate()
    var configuration = configuration
    configuration.seed = seed
    self = try Breaker.alone(configuration, Beginning(seed: permitSeed, now: now))
  }

  package enum Admission {
    case admitted(permit: UInt64)
    case refused(retryAfter: Int64)
  }

  @inline(__always)
  func current() -> BreakerWord { BreakerWord(raw: head.loadAcquiring(Breaker.word)) }

  /// Replaces the word; says whether it did.
  @inline(__always)
  func exchange(_ old: BreakerWord, _ new: BreakerWord) -> Bool {
    head.exchange(Breaker.word, old.raw, new.raw)
  }

  // MARK: - Acquire

  @inline(__always)
  package func acquire(now: Int64) throws(Failure) -> Admission {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    let current = current()
    if current.state == .closed && current.mode != .forcedOpen {
      return .admitted(permit: try claim(current, time))
    }
    return try acquireGuarded(now, time)
  }

  /// Acquires while it is not simply closed.
  func acquireGuarded(_ now: Int64, _ time: Int64) throws(Failure) -> Admission {
    while true {
      let current = current()
      if current.mode == .forcedOpen {
        tallies.increment(Breaker.refused)
        return .refused(retryAfter: Time.forever)
      }
      switch current.state {
      case .closed: return .admitted(permit: try claim(current, time))
      case .open:
        let until = self.time(of: current)
        if time < until { return try refuse(current, until &- time, time) }
        _ = move(
          current, current.next(.halfOpen, mode: current.mode, trips: current.trips), time, now)
      case .halfOpen:
        guard
          let probe = probes.claim(
            PermitTable.Payload(current.generation),
            expires: Time.add(time, configuration.permitTimeout), now: time,
            current: current.generation)
        else {
          // A probe may end at any time; at the latest its permit expires.
          let soonest = probes.open(now: time, current: current.generation).soonest
          let latest = Swift.min(Time.subtract(soonest, time), configuration.openTime)
          return try refuse(current, latest, time)
        }
        // The state may have moved on between the look and the claim.
        if self.current().generation == current.generation {
          return .admitted(permit: probe | Breaker.probeFlag)
        }
        _ = probes.complete(probe, now: time)
      }
    }
  }

  @inline(__always)
  func claim(_ current: BreakerWord, _ time: Int64) throws(Failure) -> UInt64 {
    guard
      let permit = permits.claim(
        PermitTable.Payload(current.generation),
        expires: Time.add(time, configuration.permitTimeout), now: time)
    else { throw Failure(.capacity, "max_permits", "that many calls are in flight") }
    return permit
  }

  func refuse(
    _ current: BreakerWord, _ retryAfter: Int64, _ time: Int64
  ) throws(Failure) -> Admission {
    if current.mode == .observe {
      tallies.increment(Breaker.wouldRefuse)
      return .admitted(permit: try claim(current, time))
    }
    tallies.increment(Breaker.refused)
    return .refused(retryAfter: retryAfter)
  }

  // MARK: - Moving between states

  func time(of word: BreakerWord) -> Int64 {
    Int64(bitPattern: times.load(timeIndex(of: word)))
  }

  /// By generation and state: two threads that move to different states write different places.
  private func timeIndex(of word: BreakerWord) -> Int {
    Int(truncatingIfNeeded: (word.generation & (Breaker.timeCount &- 1)) &* 4)
      &+ Int(truncatingIfNeeded: word.state.rawValue)
  }

  /// Exchanges the state for the next generation's. False when another thread was first.
  ///
  /// The new generation's time is written before the word, into a place of its own. It is exchanged
  /// too, against the value read while the old state held, so that a thread which was held up cannot
  /// overwrite the time of a later generation.
  func move(
    _ from: BreakerWord, _ to: BreakerWord, _ time: Int64, _ now: Int64, _ random: UInt64 = 0,
    openFor given: Int64? = nil
  ) -> Bool {
    let index = timeIndex(of: to)
    let before = times.loadAcquiring(index)
    guard current().raw == from.raw else { return false }
    var openFor: Int64 = 0
    if to.state == .open, let given {
      openFor = given
    } else if to.state == .open {
      let random =
        seed == 0 ? random : SplitMix64.mix(seed &+ to.generation &* SplitMix64.increment)
      openFor = configuration.openTime(trip: to.trips, chance: unitInterval(random))
    }
    let newTime = UInt64(bitPattern: Time.add(time, openFor))
    guard times.exchange(index, before, newTime), exchange(from, to) else { return false }
    let states =
      UInt64(truncatingIfNeeded: from.state.rawValue)
      | UInt64(truncatingIfNeeded: to.state.rawValue) &<< 8
      | UInt64(truncatingIfNeeded: to.mode.rawValue) &<< 16
    let record: InlineArray<4, UInt64> = [
      states, to.generation, UInt64(bitPattern: now), UInt64(bitPattern: openFor),
    ]
    events.append(record)
    return true
  }

  /// Sets the mode; another than the present one starts afresh.
  package func force(_ mode: BreakerMode, now: Int64) throws(Failure) {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    while true {
      let current = current()
      if current.mode == mode { return }
      if move(current, current.next(.closed, mode: mode, trips: 0), time, now) { return }
    }
  }
}
