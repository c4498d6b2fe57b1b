import Testing

@testable import ReliabilityCore

private func makeBreaker(
  _ change: (inout BreakerConfiguration) -> Void = { _ in }
) throws -> Breaker {
  var configuration = BreakerConfiguration()
  configuration.openJitter = 0
  change(&configuration)
  return try Breaker(configuration, seed: 7, permitSeed: 8, now: 0)
}

private func acquire(_ breaker: borrowing Breaker, _ now: Int64) throws -> UInt64? {
  if case .admitted(let permit) = try breaker.acquire(now: now) { return permit }
  return nil
}

private func report(
  _ breaker: borrowing Breaker, _ permit: UInt64, _ outcome: CallOutcome, _ now: Int64,
  latency: Int64 = 0
) throws -> Bool {
  try breaker.report(permit, outcome, latency: latency, now: now) { 0 }
}

private final class BreakerBox: @unchecked Sendable {
  let breaker: Breaker
  init(_ breaker: consuming Breaker) { self.breaker = breaker }
}

@Suite struct BreakerTests {
  @Test(
    "The count window is the last results, whatever their number",
    arguments: [1, 5, 16, 17, 18, 100], [0, 1 << 40 - 1_000, .max - 1_000])
  func countWindow(size: Int, next: UInt64) throws {
    let yard = try Yard()
    let window = yard.window(size, next: next)
    var random = SplitMix64(seed: UInt64(size))
    var history: [(failed: Bool, slow: Bool)] = []
    for step in 0..<2_000 {
      let result = (failed: random.next() % 3 == 0, slow: random.next() % 5 == 0)
      history.append(result)
      _ = window.append(
        CallResult(failed: result.failed, slow: result.slow), era: 5, minimum: 1)
      let expected = history.suffix(size)
      let counts = window.counts(era: 5)
      #expect(counts.total == UInt64(expected.count), "step \(step)")
      #expect(counts.failures == UInt64(expected.count { $0.failed }), "step \(step)")
      #expect(counts.slow == UInt64(expected.count { $0.slow }), "step \(step)")
    }
    let fresh = window.counts(era: 6)
    #expect(fresh.total == 0, "another era starts afresh")
    let failure = CallResult(failed: true, slow: false)
    _ = window.append(failure, era: 7, minimum: 1)
    let late = window.append(failure, era: 5, minimum: 1)
    #expect(late == nil, "a result of an earlier era asks for nothing")
    #expect(window.counts(era: 7).total == 1, "and counts for nothing")
    #expect(window.counts(era: 5).total == 0)
  }

  @Test("A long run of successes hides what failed before, in every lap")
  func countWindowLaps() throws {
    let yard = try Yard()
    let window = yard.window(20)
    for lap in 0..<50_000 {
      for step in 0..<90 {
        _ = window.append(
          CallResult(failed: step == 0, slow: false), era: 1, minimum: 1)
      }
      #expect(window.counts(era: 1).failures == 0, "lap \(lap)")
    }
  }

  @Test("Marks of a lap that looks like the present one are gone by then")
  func countWindowSameLapAgain() throws {
    let yard = try Yard()
    let window = yard.window(1)
    let success = CallResult(failed: false, slow: false)
    _ = window.append(CallResult(failed: true, slow: true), era: 1, minimum: 1)
    for _ in 1..<(64 << 16) { _ = window.append(success, era: 1, minimum: 1) }
    _ = window.append(success, era: 1, minimum: 1)
    let counts = window.counts(era: 1)
    #expect(counts.failures == 0 && counts.slow == 0 && counts.total == 1)
  }

  @Test("A result whose era ends while it takes its place is none of the next")
  func countWindowLate() throws {
    let yard = try Yard()
    let window = yard.window(20)
    let failure = CallResult(failed: true, slow: false)
    let begun = window.begin(1)
    let start = try #require(begun)
    _ = window.append(failure, era: 2, minimum: 1)
    let asked = window.append(failure, start, 1, 1)
    #expect(asked == nil)
    let counts = window.counts(era: 2)
    #expect(counts.total == 1 && counts.failures == 1)
  }

  @Test("A call of a step whose place another step took meanwhile is not counted in that")
  func timeWindowLate() throws {
    let yard = try Yard()
    let window = yard.window(length: 10)
    _ = window.append(CallResult(failed: false, slow: false), era: 1, minimum: 1, 16)
    window.appendLate(era: 1, 0)
    let counts = window.counts(era: 1, 16)
    #expect(counts.total == 1)
  }

  @Test("One result, and no other, is the one with which there are enough")
  func countWindowMinimum() throws {
    let yard = try Yard()
    let window = yard.window(20)
    let success = CallResult(failed: false, slow: false)
    let asked = (1...200).filter { _ in window.append(success, era: 3, minimum: 7) != nil }
    #expect(asked == [7])
  }

  @Test("The time window counts what is young enough, and not more than a tenth beyond")
  func timeWindow() throws {
    let yard = try Yard()
    let window = yard.window(length: 1_000)
    var random = SplitMix64(seed: 77)
    var history: [(time: Int64, failed: Bool)] = []
    var now: Int64 = 0
    for _ in 0..<5_000 {
      now += Int64(random.next() % 40)
      let failed = random.next() % 2 == 0
      history.append((now, failed))
      _ = window.append(CallResult(failed: failed, slow: false), era: 1, minimum: 1, now)
      let counts = window.counts(era: 1, now)
      let least = history.reversed().prefix { $0.time > now - 1_000 }
      let most = history.reversed().prefix { $0.time > now - 1_100 }
      #expect(counts.total >= UInt64(least.count) && counts.total <= UInt64(most.count))
      #expect(counts.failures >= UInt64(least.count { $0.failed }))
      #expect(counts.failures <= UInt64(most.count { $0.failed }))
    }
  }

  @Test("What an idle window still has of the past never looks new, however long ago")
  func timeWindowAfterAMillionSteps() throws {
    let yard = try Yard()
    let window = yard.window(length: 10)
    _ = window.append(CallResult(failed: true, slow: false), era: 1, minimum: 1, 0)
    for shift in Int64(4)..<36 {
      let counts = window.counts(era: 1, 1 << shift)
      #expect(counts.total == 0, "2^\(shift) steps later")
    }
    for era in UInt64(2)..<100_000 {
      let counts = window.counts(era: era, 0)
      #expect(counts.total == 0, "era \(era)")
    }
  }

  @Test(
    "A clock that goes to and fro between steps of one place counts no more failures than calls")
  func timeWindowToAndFro() throws {
    let yard = try Yard()
    let window = yard.window(length: 10)
    for now in [0, 0, 16, 0, 16] as [Int64] {
      let failed = now == 0
      _ = window.append(CallResult(failed: failed, slow: failed), era: 1, minimum: 1, now)
      for time in [0, 5, 16, 20] as [Int64] {
        let counts = window.counts(era: 1, time)
        #expect(counts.failures <= counts.total && counts.slow <= counts.total)
      }
    }
  }

  @Test("Open times grow with each trip in a row, up to the limit, and jitter only lengthens")
  func openTimes() {
    var configuration = BreakerConfiguration()
    configuration.openTime = 100
    configuration.openLimit = 1_000
    configuration.openJitter = 0.5
    #expect(configuration.openTime(trip: 1, chance: 0) == 100)
    #expect(configuration.openTime(trip: 2, chance: 0) == 200)
    #expect(configuration.openTime(trip: 3, chance: 0.5) == 500)
    #expect(configuration.openTime(trip: 255, chance: 0.99) == 1_000)
  }

  @Test("Random histories: no stale result moves it, half-open never has more than its probes")
  func histories() throws {
    for seed in UInt64(1)...30 {
      var random = SplitMix64(seed: seed)
      let breaker = try makeBreaker {
        $0.window = seed % 2 == 0 ? .count : .time
        $0.windowCalls = 10
        $0.windowLength = 500
        $0.minimumCalls = 5
        $0.halfOpenPermits = 3
        $0.openTime = 100
        $0.openLimit = 400
        $0.permitTimeout = 300
        $0.maxPermits = 64
      }
      var now: Int64 = 0
      var held: [(permit: UInt64, generation: UInt64, expires: Int64, probe: Bool)] = []
      for step in 0..<3_000 {
        now += Int64(random.next() % 30)
        let before = try breaker.snapshot(now: now)
        if random.next() % 2 == 0 && held.count < 60 {
          guard let permit = try acquire(breaker, now) else {
            #expect(before.state != .closed, "seed \(seed), step \(step)")
            continue
          }
          let after = try breaker.snapshot(now: now)
          held.append((permit, after.generation, now + 300, after.state == .halfOpen))
          let probes = held.count {
            $0.probe && $0.generation == after.generation && $0.expires > now
          }
          #expect(probes <= 3, "seed \(seed), step \(step)")
        } else if !held.isEmpty {
          let one = held.remove(at: Int(random.next() % UInt64(held.count)))
          let failed = random.next() % 3 == 0
          let accepted = try report(breaker, one.permit, failed ? .failure : .success, now)
          let good = one.generation == before.generation && one.expires > now
          #expect(accepted == good, "seed \(seed), step \(step)")
          let repeated = try report(breaker, one.permit, .failure, now)
          #expect(!repeated, "seed \(seed), step \(step)")
          if !good {
            let after = try breaker.snapshot(now: now)
            #expect(after.generation == before.generation)
            #expect(after.window.total == before.window.total)
          }
        }
      }
      let sane = breaker.snapshotIsSane(now)
      #expect(sane)
    }
  }

  @Test("Probes of an earlier half-open do not take places of the next")
  func oldProbes() throws {
    let breaker = try makeBreaker {
      $0.window = .none
      $0.consecutiveFailures = 1
      $0.halfOpenPermits = 2
      $0.openTime = 10
      $0.openGrowth = 1
    }
    let first = try #require(try acquire(breaker, 0))
    _ = try report(breaker, first, .failure, 0)
    let lost = try acquire(breaker, 10)
    let failing = try #require(try acquire(breaker, 10))
    _ = try report(breaker, failing, .failure, 10)
    let one = try acquire(breaker, 20)
    let two = try acquire(breaker, 20)
    let three = try acquire(breaker, 20)
    #expect(lost != nil && one != nil && two != nil && three == nil)
  }

  @Test("Threads: with permits that race, half-open never has more probes than it may")
  func probesUnderLoad() async throws {
    for _ in 0..<50 {
      let box = BreakerBox(
        try makeBreaker {
          $0.window = .none
          $0.consecutiveFailures = 1
          $0.halfOpenPermits = 2
          $0.openTime = 10
        })
      let first = try #require(try acquire(box.breaker, 0))
      _ = try report(box.breaker, first, .failure, 0)
      let admitted = await withTaskGroup(of: Int.self) { group in
        for _ in 0..<4 {
          group.addTask {
            (0..<50).count { _ in (try? acquire(box.breaker, 20)) ?? nil != nil }
          }
        }
        return await group.reduce(0, +)
      }
      #expect(admitted == 2)
    }
  }

  @Test("Threads: every failure is counted, and it trips once")
  func tripsOnce() async throws {
    for _ in 0..<20 {
      let box = BreakerBox(
        try makeBreaker {
          $0.windowCalls = 1_000
          $0.minimumCalls = 400
          $0.failureRate = 1
        })
      var permits: [UInt64] = []
      for _ in 0..<400 { permits.append(try #require(try acquire(box.breaker, 0))) }
      let all = permits
      await withTaskGroup(of: Void.self) { group in
        for worker in 0..<4 {
          group.addTask {
            for permit in all[(worker * 100)..<(worker * 100 + 100)] {
              _ = try? report(box.breaker, permit, .failure, 0)
            }
          }
        }
      }
      let snapshot = try box.breaker.snapshot(now: 0)
      #expect(snapshot.state == .open)
      #expect(snapshot.trips == 1)
    }
  }

  @Test("Events tell each change once, in order, and how many were lost")
  func events() throws {
    let breaker = try makeBreaker()
    var cursor: UInt64 = 0
    var lost: UInt64 = 0
    let none = breaker.nextEvent(cursor: &cursor, lost: &lost)
    #expect(none == nil)
    try breaker.force(.forcedOpen, now: 5)
    try breaker.force(.automatic, now: 9)
    let one = breaker.nextEvent(cursor: &cursor, lost: &lost)
    let two = breaker.nextEvent(cursor: &cursor, lost: &lost)
    let three = breaker.nextEvent(cursor: &cursor, lost: &lost)
    #expect(one?.mode == BreakerMode.forcedOpen.rawValue && one?.time == 5)
    #expect(two?.mode == BreakerMode.automatic.rawValue && two?.time == 9)
    #expect(three == nil)
    #expect(lost == 0)
    for step in 0..<100 {
      try breaker.force(step % 2 == 0 ? .forcedOpen : .automatic, now: 10)
    }
    let next = breaker.nextEvent(cursor: &cursor, lost: &lost)
    #expect(next != nil)
    #expect(lost == 100 - UInt64(Breaker.eventCount))
  }
}

extension Breaker {
  /// What must hold of every snapshot.
  fileprivate borrowing func snapshotIsSane(_ now: Int64) -> Bool {
    guard let snapshot = try? snapshot(now: now) else { return false }
    return snapshot.window.failures <= snapshot.window.total
      && snapshot.window.slow <= snapshot.window.total && snapshot.halfOpenInFlight <= 3
      && snapshot.retryAfter >= 0 && snapshot.stateAge >= 0
  }
}
