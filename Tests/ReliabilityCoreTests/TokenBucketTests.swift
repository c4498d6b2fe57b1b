import Testing

@testable import ReliabilityCore

private func makeLimiter(
  capacity: Int64, tokens: Int64, interval: Int64, maxDebt: Int64 = -1, observe: Bool = false
) throws -> Limiter {
  try Limiter(
    Limiter.Configuration(
      rate: TokenRate(capacity: capacity, maxDebt: maxDebt, tokens: tokens, interval: interval),
      initial: -1, maxReservations: 64, reservationTimeout: Time.hour, observe: observe),
    seed: 1, now: 0)
}

private func admits(_ limiter: borrowing Limiter, _ tokens: Int64, _ now: Int64) throws -> Bool {
  if case .admitted = try limiter.tryAcquire(tokens, now: now) { return true }
  return false
}

@Suite struct TokenBucketTests {
  @Test("The fraction of a time is exact at both ends and in between")
  func fractionIsExact() {
    var random = SplitMix64(seed: 11)
    for _ in 0..<20_000 {
      let denominator = 1 + random.next() % UInt64(Time.year)
      let numerator = random.next() % (denominator + 1)
      let time = Int64(random.next() % UInt64(Time.max))
      let ratio = TimeRatio(numerator, denominator)
      let product = UInt64(time).multipliedFullWidth(by: numerator)
      let expected = denominator.dividingFullWidth(product).quotient
      #expect(ratio.applied(to: time) == Int64(expected), "\(numerator)/\(denominator) at \(time)")
    }
    #expect(TimeRatio(1, 1).applied(to: Time.max) == Time.max)
    #expect(TimeRatio(0, 7).applied(to: Time.max) == 0)
  }

  @Test("The time of a level is the first at which it is reached")
  func timeOfLevel() {
    var random = SplitMix64(seed: 12)
    for _ in 0..<20_000 {
      let denominator = 1 + random.next() % 1_000_000_000
      let ratio = TimeRatio(1 + random.next() % denominator, denominator)
      let level = Int64(1 + random.next() % 1_000_000_000)
      let time = ratio.time(of: level)
      #expect(ratio.applied(to: time) >= level)
      #expect(ratio.applied(to: time - 1) < level)
    }
  }

  @Test(
    "A thousand million operations do not drift: the level is that of the exact fraction",
    arguments: [(Int64(7), Int64(1_000_000_000)), (333, 1_000_003), (60_000, 60_000_000_007)])
  func doesNotDrift(tokens: Int64, interval: Int64) throws {
    let limiter = try makeLimiter(capacity: 50, tokens: tokens, interval: interval)
    // Far apart in time, which is what drift comes from; each step empties the bucket.
    var now: Int64 = 0
    var taken: Int64 = 0
    while try admits(limiter, 1, now) { taken += 1 }
    for step in 1...2_000 {
      now = Int64(step) * (interval / tokens) * 500_001 / 500_000
      while try admits(limiter, 1, now) { taken += 1 }
    }
    let flowed = Int64(
      UInt64(interval).dividingFullWidth(UInt64(now).multipliedFullWidth(by: UInt64(tokens)))
        .quotient)
    #expect(taken == 50 + flowed)
  }

  @Test("No window admits more than its capacity and what flows in")
  func neverTooMuch() throws {
    for seed in UInt64(1)...20 {
      var random = SplitMix64(seed: seed)
      let capacity = Int64(1 + random.next() % 20)
      let tokens = Int64(1 + random.next() % 50)
      let interval = tokens * Int64(1 + random.next() % 1_000_000)
      let limiter = try makeLimiter(capacity: capacity, tokens: tokens, interval: interval)
      var now: Int64 = 0
      var admitted: [(time: Int64, tokens: Int64)] = []
      for _ in 0..<2_000 {
        now += Int64(random.next() % UInt64(2 * interval / tokens))
        let want = Int64(random.next() % UInt64(capacity + 1))
        if try admits(limiter, want, now) { admitted.append((now, want)) }
      }
      for first in stride(from: 0, to: admitted.count, by: 7) {
        var sum: Int64 = 0
        for last in first..<min(first + 60, admitted.count) {
          sum += admitted[last].tokens
          let length = admitted[last].time - admitted[first].time
          #expect(
            (sum - capacity) * interval <= length * tokens,
            "seed \(seed), window \(first)...\(last)")
        }
      }
    }
  }

  @Test("A refusal is told when it clears, to the nanosecond")
  func retryAfterIsExact() throws {
    var random = SplitMix64(seed: 5)
    for _ in 0..<2_000 {
      let tokens = Int64(1 + random.next() % 1_000)
      let interval = tokens * 10 + Int64(random.next() % 1_000_000_000)
      let limiter = try makeLimiter(capacity: 100, tokens: tokens, interval: interval)
      let start = Int64(random.next() % UInt64(Time.year))
      let first = try admits(limiter, 100, start)
      #expect(first)
      let want = Int64(1 + random.next() % 100)
      guard case .limited(let wait) = try limiter.tryAcquire(want, now: start) else {
        Issue.record("admitted from an empty bucket")
        continue
      }
      let early = try admits(limiter, want, start + wait - 1)
      let late = try admits(limiter, want, start + wait)
      #expect(!early)
      #expect(late)
    }
  }

  @Test("Threads that change the rate and threads that take lose and gain no token")
  func movesUnderLoad() async throws {
    let capacity: Int64 = 1_000_000
    let box = LimiterBox(try makeLimiter(capacity: capacity, tokens: 1, interval: Time.second))
    let taken = await withTaskGroup(of: Int64.self) { group in
      for _ in 0..<3 {
        group.addTask {
          var sum: Int64 = 0
          for _ in 0..<100_000 where (try? admits(box.limiter, 1, 0)) == true { sum += 1 }
          return sum
        }
      }
      group.addTask {
        for step in 0..<100_000 {
          // The capacity stays, so that what is there must be what was not taken.
          let configuration = try? Limiter.Configuration(
            rate: TokenRate(
              capacity: capacity, maxDebt: Int64(step % 7), tokens: 1, interval: Time.second),
            initial: -1, maxReservations: 64, reservationTimeout: Time.hour, observe: false)
          if let configuration { try? box.limiter.reconfigure(configuration, now: 0) }
        }
        return 0
      }
      return await group.reduce(0, +)
    }
    let left = try box.limiter.available(now: 0)
    #expect(taken == 300_000)
    #expect(left == capacity - taken)
  }

  @Test("What a settlement charges beyond the greatest debt is forgiven, and counted")
  func forgives() throws {
    let limiter = try makeLimiter(capacity: 10, tokens: 1, interval: Time.second, maxDebt: 5)
    guard case .granted(let reservation) = try limiter.reserve(10, maxWait: 0, now: 0) else {
      Issue.record("refused")
      return
    }
    let settled = try limiter.settle(reservation.permit, actual: 100, now: 0)
    let left = try limiter.available(now: 0)
    #expect(settled && left == -5)
    #expect(limiter.counters().forgiven == 85)
    let smaller = try Limiter.Configuration(
      rate: TokenRate(capacity: 10, maxDebt: 2, tokens: 1, interval: Time.second), initial: -1,
      maxReservations: 64, reservationTimeout: Time.hour, observe: false)
    try limiter.reconfigure(smaller, now: 0)
    let after = try limiter.available(now: 0)
    #expect(after == -2, "debts stay, up to the new limit")
  }

  @Test("Debt that a change of rate forgave does not come back with its reservation")
  func forgivenDebt() throws {
    let limiter = try makeLimiter(capacity: 10, tokens: 1, interval: Time.second, maxDebt: 100)
    let all = try admits(limiter, 10, 0)
    guard case .granted(let ahead) = try limiter.reserve(8, maxWait: Time.forever, now: 0) else {
      Issue.record("refused")
      return
    }
    let rate = try TokenRate(capacity: 10, maxDebt: 2, tokens: 1, interval: Time.second)
    try limiter.reconfigure(
      Limiter.Configuration(
        rate: rate, initial: -1, maxReservations: 64, reservationTimeout: Time.hour,
        observe: false), now: 0)
    let cancelled = try limiter.settle(ahead.permit, actual: 0, now: 0)
    let left = try limiter.available(now: 0)
    #expect(all && cancelled)
    #expect(left == 0, "of the debt of 8, 6 were forgiven and 2 are given back")
  }

  @Test("What came back of one reservation is not missing when the next comes back")
  func twoBack() throws {
    let limiter = try makeLimiter(capacity: 10, tokens: 1, interval: Time.second)
    guard case .granted(let one) = try limiter.reserve(5, maxWait: 0, now: 0),
      case .granted(let two) = try limiter.reserve(5, maxWait: 0, now: 0)
    else {
      Issue.record("refused")
      return
    }
    let first = try limiter.settle(one.permit, actual: 0, now: 0)
    let taken = try admits(limiter, 4, 4 * Time.second)
    let second = try limiter.settle(two.permit, actual: 0, now: 4 * Time.second)
    let left = try limiter.available(now: 4 * Time.second)
    #expect(first && taken && second)
    #expect(left == 6, "without the two it was full before the 4 were taken")
  }

  @Test("A thread that is late gives back no more than is left at the latest time")
  func lateRefund() throws {
    let limiter = try makeLimiter(capacity: 10, tokens: 10, interval: Time.second)
    guard case .granted(let old) = try limiter.reserve(1, maxWait: 0, now: 0) else {
      Issue.record("refused")
      return
    }
    let taken = try admits(limiter, 5, Time.second / 2)
    let cancelled = try limiter.settle(old.permit, actual: 0, now: 0)
    let left = try limiter.available(now: Time.second / 2)
    #expect(taken && cancelled)
    #expect(left == 5, "the bucket was full again without it")
  }

  @Test("A reservation for which there is no place takes nothing")
  func noPlace() throws {
    let limiter = try makeLimiter(capacity: 100, tokens: 1, interval: Time.second)
    for _ in 0..<64 { _ = try limiter.reserve(1, maxWait: 0, now: 0) }
    #expect(throws: Failure.self) { _ = try limiter.reserve(1, maxWait: 0, now: 0) }
    let left = try limiter.available(now: 0)
    #expect(left == 36)
  }

  @Test("Rates that cannot be are refused")
  func refusesRates() {
    for (capacity, debt, tokens, interval) in [
      (0, 0, 1, 1), (1, -2, 1, 1), (1, 0, -1, 1), (1, 0, 2, 1), (1, 0, 1, 0),
      (1, 0, 1, Time.year + 1), (TokenRate.maximumTokens + 1, 0, 1, 1),
    ] as [(Int64, Int64, Int64, Int64)] {
      #expect(throws: Failure.self) {
        _ = try TokenRate(capacity: capacity, maxDebt: debt, tokens: tokens, interval: interval)
      }
    }
  }

  @Test("An observed limiter admits everything and counts what it would refuse")
  func observes() throws {
    let limiter = try makeLimiter(capacity: 1, tokens: 1, interval: Time.second, observe: true)
    for _ in 0..<5 {
      let admitted = try admits(limiter, 1, 0)
      #expect(admitted)
    }
    #expect(limiter.counters().wouldRefuse == 4)
    guard case .granted(let reservation) = try limiter.reserve(1, maxWait: 0, now: 0) else {
      Issue.record("an observed reservation was refused")
      return
    }
    let cancelled = try limiter.cancel(reservation.permit, now: 0)
    let left = try limiter.available(now: 0)
    #expect(cancelled)
    #expect(left == 0)
  }

  @Test("A refill that would take for ever, and sizes at their limits, neither trap nor admit")
  func limits() throws {
    let huge = try makeLimiter(
      capacity: TokenRate.maximumTokens, tokens: 1, interval: Time.year,
      maxDebt: TokenRate.maximumTokens)
    let all = try admits(huge, TokenRate.maximumTokens, Time.max)
    let more = try admits(huge, 1, Time.max)
    #expect(all)
    #expect(!more)
    let fast = try makeLimiter(capacity: 1, tokens: 1, interval: 1)
    for now in [0, 1, 2, Time.max - 1, Time.max] as [Int64] {
      let one = try admits(fast, 1, now)
      #expect(one, "at \(now)")
    }
  }
}

/// A limiter that tasks can share: it is safe to, and lives as long as the box.
private final class LimiterBox: @unchecked Sendable {
  let limiter: Limiter
  init(_ limiter: consuming Limiter) { self.limiter = limiter }
}
