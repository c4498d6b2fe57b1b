// How calls end, and what that does to the state.

extension Breaker {
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
      tallies.increment(Breaker.stale)
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
      if let seen = counts.append(result, era: current.generation, minimum: minimum) {
        trip = isReached(seen) || trip
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
      let old = marks.load(Breaker.streak)
      let isPresent = old &>> 32 == era &>> 32
      let length = isPresent ? old & 0xffff_ffff : 0
      let next = result.failed ? Swift.min(length &+ 1, 0xffff_ffff) : 0
      // The usual case, a success after a success, writes nothing.
      if isPresent && next == length { return next }
      if marks.exchange(Breaker.streak, old, era | next) { return next }
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
      } else if exchange(current, counted) {
        return true
      }
      current = self.current()
    }
    tallies.increment(Breaker.stale)
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
        marks.add(Breaker.trips, 1)
        return
      }
      current = self.current()
    }
  }
}
