// What can be seen of a breaker: its state, its counters, its changes.

extension Breaker {
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
    let streak = marks.load(Breaker.streak)
    if streak &>> 32 == current.generation & 0xffff_ffff {
      snapshot.streak = streak & 0xffff_ffff
    }
    if current.state == .halfOpen {
      snapshot.halfOpenInFlight = probes.open(now: time, current: current.generation).count
    }
    snapshot.refused = tallies.total(Breaker.refused)
    snapshot.wouldRefuse = tallies.total(Breaker.wouldRefuse)
    snapshot.stale = tallies.total(Breaker.stale)
    snapshot.trips = marks.load(Breaker.trips)
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
