import Synchronization

/// A circuit breaker. Its state is one word that is only ever exchanged whole; every change of state is a
/// new generation, and a permit knows the generation it was given in, so that late results are
/// recognised and change nothing.
package struct Breaker: ~Copyable {
  private let timeline: Timeline
  private let word: Atomic<UInt64>
  /// By generation: until when it is open, or since when it is closed or half-open.
  private let times: AtomicWords
  private let permits: PermitTable
  /// The permits of half-open: as many as there may be probes.
  private let probes: PermitTable
  private let counts: CountWindow
  private let steps: TimeWindow
  /// Failures in a row, beside 32 bits of the generation they are of.
  private let streak: Atomic<UInt64>
  private let events: EventRing
  private let refused: Atomic<UInt64>
  private let wouldRefuse: Atomic<UInt64>
  private let stale: Atomic<UInt64>
  private let trips: Atomic<UInt64>
  private let configuration: BreakerConfiguration
  /// Of the jitter; 0: drawn from the caller's stream, which differs after a fork.
  private let seed: UInt64

  package static let eventCount = 64
  private static let timeCount: UInt64 = 4
  private static let probeFlag: UInt64 = 1 << 63

  /// `seed` is of the jitter, `permitSeed` of the permits, `now` is when it is created.
  package init(
    _ configuration: BreakerConfiguration, seed: UInt64, permitSeed: UInt64, now: Int64
  ) throws(Failure) {
    try configuration.validate()
    var seeds = SplitMix64(seed: permitSeed)
    let times = try AtomicWords(count: Int(Breaker.timeCount))
    let permits = try PermitTable(
      count: Int(configuration.maxPermits), payloadWords: 1, seed: seeds.next())
    let probes = try PermitTable(
      count: Int(configuration.halfOpenPermits), payloadWords: 1, seed: seeds.next())
    let counts = try CountWindow(
      size: configuration.window == .count ? Int(configuration.windowCalls) : 1)
    let steps = try TimeWindow(length: configuration.windowLength)
    let events = try EventRing(capacity: Breaker.eventCount, recordWords: 4)
    self.times = times
    self.permits = permits
    self.probes = probes
    self.counts = counts
    self.steps = steps
    self.events = events
    timeline = Timeline(now: 0)
    word = Atomic(
      BreakerWord(
        state: .closed, mode: configuration.mode, trips: 0, successes: 0, generation: 1
      ).raw)
    streak = Atomic(0)
    refused = Atomic(0)
    wouldRefuse = Atomic(0)
    stale = Atomic(0)
    trips = Atomic(0)
    self.configuration = configuration
    self.seed = seed
    self.times.store(1, UInt64(bitPattern: now))
  }

  package enum Admission {
    case admitted(permit: UInt64)
    case refused(retryAfter: Int64)
  }

  @inline(__always)
  private func current() -> BreakerWord { BreakerWord(raw: word.load(ordering: .acquiring)) }

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
  private func acquireGuarded(_ now: Int64, _ time: Int64) throws(Failure) -> Admission {
    while true {
      let current = current()
      if current.mode == .forcedOpen {
        refused.wrappingAdd(1, ordering: .relaxed)
        return .refused(retryAfter: Time.forever)
      }
      switch current.state {
      case .closed: return .admitted(permit: try claim(current, time))
      case .open:
        let until = self.time(of: current)
        if time < until { return try refuse(current, until &- time, time) }
        _ = move(current, current.next(.halfOpen, mode: current.mode, trips: current.trips), time, now)
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
  private func claim(_ current: BreakerWord, _ time: Int64) throws(Failure) -> UInt64 {
    guard
      let permit = permits.claim(
        PermitTable.Payload(current.generation),
        expires: Time.add(time, configuration.permitTimeout), now: time)
    else { throw Failure(.capacity, "max_permits", "that many calls are in flight") }
    return permit
  }

  private func refuse(
    _ current: BreakerWord, _ retryAfter: Int64, _ time: Int64
  ) throws(Failure) -> Admission {
    if current.mode == .observe {
      wouldRefuse.wrappingAdd(1, ordering: .relaxed)
      return .admitted(permit: try claim(current, time))
    }
    refused.wrappingAdd(1, ordering: .relaxed)
    return .refused(retryAfter: retryAfter)
  }

  // MARK: - Report

  /// Ends a permit. False: it was stale, and nothing changed.
  @inline(__always)
  package func report(
    _ permit: UInt64, _ outcome: CallOutcome, latency: Int64, now: Int64, _ random: () -> UInt64
  ) throws(Failure) -> Bool {
    try requireTime(latency, "latency_ns")
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    let isProbe = permit & Breaker.probeFlag != 0
    let payload =
      isProbe
      ? probes.complete(permit & ~Breaker.probeFlag, now: time)
      : permits.complete(permit, now: time)
    let current = current()
    guard let payload, payload.first == current.generation else {
      stale.wrappingAdd(1, ordering: .relaxed)
      return false
    }
    let failed =
      outcome == .failure || (outcome == .backpressure && configuration.backpressureFails)
    guard failed || outcome == .success else { return true }
    let result = CallResult(
      failed: failed, slow: configuration.slowRate > 0 && latency >= configuration.slowCall)
    if current.state == .closed {
      if current.mode != .disabled { record(result, current, time, now, random) }
      return true
    }
    return isProbe ? judge(result, current, time, now, random) : true
  }

  /// Counts a result of the closed state, and trips when it is one too many.
  @inline(__always)
  private func record(
    _ result: CallResult, _ current: BreakerWord, _ time: Int64, _ now: Int64,
    _ random: () -> UInt64
  ) {
    var trip = false
    if configuration.consecutiveFailures > 0 {
      trip = lengthenStreak(result, current) >= UInt64(configuration.consecutiveFailures)
    }
    let minimum = Int(configuration.minimumCalls)
    switch configuration.window {
    case .none: break
    case .count:
      if counts.append(result, era: current.generation, minimum: minimum) {
        trip = isReached(counts.counts(era: current.generation)) || trip
      }
    case .time:
      if steps.append(result, era: current.generation, minimum: minimum, time) {
        trip = isReached(steps.counts(era: current.generation, time)) || trip
      }
    }
    if trip && current.mode != .forcedClosed { open(current, time, now, random()) }
  }

  /// The failures in a row, this result among them; 0 after a success.
  @inline(__always)
  private func lengthenStreak(_ result: CallResult, _ current: BreakerWord) -> UInt64 {
    let era = current.generation &<< 32
    while true {
      let old = streak.load(ordering: .relaxed)
      let isPresent = old &>> 32 == era &>> 32
      let length = isPresent ? old & 0xffff_ffff : 0
      let next = result.failed ? Swift.min(length &+ 1, 0xffff_ffff) : 0
      // The usual case, a success after a success, writes nothing.
      if isPresent && next == length { return next }
      if streak.compareExchange(expected: old, desired: era | next, ordering: .relaxed).exchanged {
        return next
      }
    }
  }

  private func isReached(_ counts: WindowCounts) -> Bool {
    guard counts.total >= UInt64(configuration.minimumCalls) else { return false }
    let total = Double(counts.total)
    return
      (configuration.failureRate > 0
      && Double(counts.failures) >= configuration.failureRate * total)
      || (configuration.slowRate > 0 && Double(counts.slow) >= configuration.slowRate * total)
  }

  /// Judges a probe: enough successes close, one failure opens again.
  private func judge(
    _ result: CallResult, _ seen: BreakerWord, _ time: Int64, _ now: Int64,
    _ random: () -> UInt64
  ) -> Bool {
    var current = seen
    while current.generation == seen.generation {
      if result.isAlarming {
        open(current, time, now, random())
        return true
      }
      let counted = current.withSuccess()
      if counted.successes >= UInt64(configuration.successesToClose) {
        let closed = current.next(.closed, mode: current.mode, trips: current.trips)
        if move(current, closed, time, now) { return true }
      } else if word.compareExchange(
        expected: current.raw, desired: counted.raw, ordering: .acquiringAndReleasing
      ).exchanged {
        return true
      }
      current = self.current()
    }
    stale.wrappingAdd(1, ordering: .relaxed)
    return false
  }

  /// Opens, for longer with every trip in a row.
  private func open(
    _ seen: BreakerWord, _ time: Int64, _ now: Int64, _ random: UInt64
  ) {
    var current = seen
    // Probes that succeed at the same time change the word, but not the generation.
    while current.generation == seen.generation {
      var earlier = current.trips
      if current.state == .closed {
        let healthy = Swift.max(0, time &- self.time(of: current)) / configuration.openTime
        earlier = earlier &- Swift.min(earlier, UInt64(bitPattern: healthy))
      }
      let opened = current.next(.open, mode: current.mode, trips: earlier &+ 1)
      if move(current, opened, time, now, random) {
        trips.wrappingAdd(1, ordering: .relaxed)
        return
      }
      current = self.current()
    }
  }

  // MARK: - Moving between states

  private func time(of word: BreakerWord) -> Int64 {
    Int64(
      bitPattern: times.load(
        Int(truncatingIfNeeded: word.generation & (Breaker.timeCount &- 1))))
  }

  /// Exchanges the state for the next generation's. False when another thread was first.
  ///
  /// The new generation's time is written before the word, into a place of its own. It is exchanged
  /// too, against the value read while the old state held, so that a thread which was held up cannot
  /// overwrite the time of a later generation.
  private func move(
    _ from: BreakerWord, _ to: BreakerWord, _ time: Int64, _ now: Int64, _ random: UInt64 = 0
  ) -> Bool {
    let index = Int(truncatingIfNeeded: to.generation & (Breaker.timeCount &- 1))
    let before = times.loadAcquiring(index)
    guard word.load(ordering: .acquiring) == from.raw else { return false }
    var openFor: Int64 = 0
    if to.state == .open {
      let random =
        seed == 0 ? random : SplitMix64.mix(seed &+ to.generation &* SplitMix64.increment)
      openFor = configuration.openTime(trip: to.trips, chance: unitInterval(random))
    }
    let newTime = UInt64(bitPattern: Time.add(time, openFor))
    guard times.exchange(index, before, newTime),
      word.compareExchange(
        expected: from.raw, desired: to.raw, ordering: .acquiringAndReleasing
      ).exchanged
    else { return false }
    events.append { index in
      switch index {
      case 0:
        UInt64(truncatingIfNeeded: from.state.rawValue)
          | UInt64(truncatingIfNeeded: to.state.rawValue) &<< 8
          | UInt64(truncatingIfNeeded: to.mode.rawValue) &<< 16
      case 1: to.generation
      case 2: UInt64(bitPattern: now)
      default: UInt64(bitPattern: openFor)
      }
    }
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

  // MARK: - Looking

  /// The state as an acquire would find it.
  package func state(now: Int64) throws(Failure) -> BreakerState {
    try requireTime(now, "now_ns")
    let current = current()
    if current.mode == .forcedOpen { return .open }
    if current.state == .open && timeline.read(now) >= time(of: current) { return .halfOpen }
    return current.state
  }

  package struct Snapshot {
    package var state = BreakerState.closed
    package var mode = BreakerMode.automatic
    package var tripsInARow: UInt64 = 0
    package var generation: UInt64 = 0
    package var stateAge: Int64 = 0
    package var retryAfter: Int64 = 0
    package var window = WindowCounts()
    package var streak: UInt64 = 0
    package var halfOpenInFlight = 0
    package var refused: UInt64 = 0
    package var wouldRefuse: UInt64 = 0
    package var stale: UInt64 = 0
    package var trips: UInt64 = 0
  }

  package func snapshot(now: Int64) throws(Failure) -> Snapshot {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    let current = current()
    let since = self.time(of: current)
    var snapshot = Snapshot()
    snapshot.state = try state(now: now)
    snapshot.mode = current.mode
    snapshot.tripsInARow = current.trips
    snapshot.generation = current.generation
    if snapshot.state == .open {
      snapshot.retryAfter =
        current.mode == .forcedOpen ? Time.forever : Time.subtract(since, time)
    } else {
      snapshot.stateAge = Time.subtract(time, since)
    }
    switch configuration.window {
    case .none: break
    case .count: snapshot.window = counts.counts(era: current.generation)
    case .time: snapshot.window = steps.counts(era: current.generation, time)
    }
    let streak = streak.load(ordering: .relaxed)
    if streak &>> 32 == current.generation & 0xffff_ffff {
      snapshot.streak = streak & 0xffff_ffff
    }
    if current.state == .halfOpen {
      snapshot.halfOpenInFlight = probes.open(now: time, current: current.generation).count
    }
    snapshot.refused = refused.load(ordering: .relaxed)
    snapshot.wouldRefuse = wouldRefuse.load(ordering: .relaxed)
    snapshot.stale = stale.load(ordering: .relaxed)
    snapshot.trips = trips.load(ordering: .relaxed)
    return snapshot
  }

  package struct Event {
    package var from: Int32 = 0
    package var to: Int32 = 0
    package var mode: Int32 = 0
    package var generation: UInt64 = 0
    package var time: Int64 = 0
    package var openFor: Int64 = 0
  }

  /// The next change of state after `cursor`, which moves on; `nil` when there is none.
  package func nextEvent(cursor: inout UInt64, lost: inout UInt64) -> Event? {
    var event = Event()
    let found = events.next(cursor: &cursor, lost: &lost) { index, word in
      switch index {
      case 0:
        event.from = Int32(truncatingIfNeeded: word & 0xff)
        event.to = Int32(truncatingIfNeeded: word &>> 8 & 0xff)
        event.mode = Int32(truncatingIfNeeded: word &>> 16 & 0xff)
      case 1: event.generation = word
      case 2: event.time = Int64(bitPattern: word)
      default: event.openFor = Int64(bitPattern: word)
      }
    }
    return found ? event : nil
  }
}
