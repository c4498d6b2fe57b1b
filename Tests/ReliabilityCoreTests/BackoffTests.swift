import Testing

@testable import ReliabilityCore

private func makeBackoff(
  _ strategy: Backoff.Strategy, _ jitter: Backoff.Jitter = .none, attempts: UInt32 = 0,
  base: Int64 = 100 * Time.millisecond, limit: Int64 = 20 * Time.second,
  floor: Int64 = 10 * Time.millisecond
) throws -> Backoff {
  try Backoff(
    strategy: strategy.rawValue, jitter: jitter.rawValue, maxAttempts: attempts, base: base,
    limit: limit, floor: floor, fastSuccess: 100 * Time.millisecond,
    multiplier: 2, jitterRatio: 0.5)
}

@Suite struct BackoffTests {
  @Test("Whatever the attempt and the chance, a delay lies in 0 ... the limit")
  func delaysAreBounded() throws {
    var random = SplitMix64(seed: 3)
    let attempts: [UInt32] = [1, 2, 3, 10, 63, 64, 65, 1023, 1024, 1025, 1 << 31, .max]
    for strategy in [
      Backoff.Strategy.constant, .linear, .exponential, .decorrelated, .smoothDecorrelated,
      .adaptive,
    ] {
      for limit in [0, 1, Time.second, Time.max] as [Int64] {
        let backoff = try makeBackoff(strategy, base: Swift.min(limit, 7), limit: limit, floor: 0)
        for attempt in attempts {
          for previous in [0, 1, Time.max] as [Int64] {
            for chance in [0, random.next(), UInt64.max] {
              let delay = backoff.delay(after: attempt, previous: previous, random: chance)
              #expect(delay >= 0 && delay <= limit, "\(strategy) \(attempt) \(previous)")
            }
          }
        }
      }
    }
  }

  @Test("Full jitter is uniform: its mean is half, and both halves are hit alike")
  func fullJitterIsUniform() throws {
    let backoff = try makeBackoff(.constant, .full, base: Time.second)
    var random = SplitMix64(seed: 9)
    var sum = 0.0
    var low = 0
    let count = 100_000
    for _ in 0..<count {
      let delay = backoff.delay(after: 1, previous: 0, random: random.next())
      sum += Double(delay)
      if delay < Time.second / 2 { low += 1 }
    }
    #expect(abs(sum / Double(count) - 0.5e9) < 5e6)
    #expect(abs(low - count / 2) < 1_000)
  }

  @Test("An adaptive delay halves after a quick success and doubles after a failure")
  func adapts() throws {
    let backoff = try makeBackoff(.adaptive, base: Time.second, limit: 5 * Time.second)
    let quick = 99 * Time.millisecond
    #expect(backoff.adapted(0, .success, latency: quick) == Time.second / 2)
    #expect(
      backoff.adapted(15 * Time.millisecond, .success, latency: quick) == 10 * Time.millisecond)
    #expect(backoff.adapted(Time.second, .success, latency: Time.second) == Time.second)
    #expect(backoff.adapted(Time.second, .neutral, latency: quick) == Time.second)
    #expect(backoff.adapted(Time.second, .failure, latency: quick) == 2 * Time.second)
    #expect(backoff.adapted(4 * Time.second, .backpressure, latency: 0) == 5 * Time.second)
    #expect(backoff.adapted(Time.max, .failure, latency: 0) == 5 * Time.second)
  }
}

@Suite struct RetryTests {
  private func retry(attempts: UInt32 = 5) throws -> Retry {
    try Retry(
      backoff: makeBackoff(.exponential, attempts: attempts), temporaryDelay: Time.second,
      maxServerDelay: 2 * Time.minute, serverDelaySpread: 5 * Time.second, retryUnknown: false)
  }

  private func failed(
    _ rule: RetryRule, attempt: UInt32 = 1, reasonRetries: UInt32 = 0, hasKey: Bool = false,
    hint: Int64 = -1, random: UInt64 = 0
  ) -> Retry.Failed {
    Retry.Failed(
      attempt: attempt, reasonRetries: reasonRetries, rule: rule, hasKey: hasKey,
      previousDelay: 0, serverDelay: hint, random: random)
  }

  private func delay(_ verdict: Retry.Verdict) -> Int64? {
    if case .retry(let delay) = verdict { return delay }
    return nil
  }

  private func stop(_ verdict: Retry.Verdict) -> Retry.StopReason? {
    if case .stop(let reason) = verdict { return reason }
    return nil
  }

  @Test("A rule's own count and first delay hold")
  func rulesHold() throws {
    let retry = try retry()
    let overloaded = try #require(RetryRule.standard(for: .http, 503))
    #expect(delay(retry.decide(failed(overloaded))) == 2 * Time.second)
    #expect(delay(retry.decide(failed(overloaded, reasonRetries: 1))) == 2 * Time.second)
    #expect(stop(retry.decide(failed(overloaded, reasonRetries: 2))) == .attemptsExhausted)
    let unauthorised = try #require(RetryRule.standard(for: .http, 401))
    #expect(delay(retry.decide(failed(unauthorised))) == 0)
    #expect(stop(retry.decide(failed(unauthorised, reasonRetries: 1))) == .attemptsExhausted)
  }

  @Test("A billed call whose outcome is unknown is repeated only under a key")
  func unknownNeedsAKey() throws {
    let retry = try retry()
    let rule = RetryRule(.errno, 1, 1, .unknown)
    #expect(stop(retry.decide(failed(rule))) == .outcomeUnknown)
    #expect(delay(retry.decide(failed(rule, hasKey: true))) != nil)
  }

  @Test("A server's time is never undercut, and one beyond the cap ends the call")
  func hints() throws {
    let retry = try retry()
    var random = SplitMix64(seed: 4)
    let rule = RetryRule(.http, 429, 429, .temporary)
    for _ in 0..<10_000 {
      let hint = Int64(random.next() % UInt64(2 * Time.minute))
      let wait = try #require(
        delay(retry.decide(failed(rule, hint: hint, random: random.next()))))
      #expect(wait >= hint && wait <= hint + Time.second)
    }
    #expect(stop(retry.decide(failed(rule, hint: 2 * Time.minute + 1))) == .hintTooLong)
    #expect(stop(retry.decide(failed(rule, hint: Time.forever))) == .hintTooLong)
  }

  @Test("A success, a caller's mistake and a cancellation are never retried")
  func neverRetried() throws {
    let retry = try retry()
    #expect(stop(retry.decide(failed(RetryRule(.http, 200, 200, .success)))) == .succeeded)
    #expect(stop(retry.decide(failed(RetryRule(.http, 400, 400, .permanent)))) == .permanent)
    #expect(stop(retry.decide(failed(RetryRule(.none, 0, 0, .cancelled)))) == .cancelled)
  }

  @Test("A budget lets a share of the traffic be retried, and stays within its quota")
  func budget() throws {
    let budget = try RetryBudget(
      RetryBudget.Configuration(minPerSecond: 0, ratio: 0.2, quota: 10, initial: 0), now: 0)
    var retries = 0
    for _ in 0..<1_000 {
      try budget.deposit(requests: 1, now: 0)
      if case .admitted = try budget.withdraw(1, now: 0) { retries += 1 }
      let balance = try budget.balance(now: 0)
      #expect(balance >= 0 && balance <= 10_000)
    }
    #expect(retries == 200)
    try budget.deposit(requests: .max, now: 0)
    let balance = try budget.balance(now: 0)
    #expect(balance == 10_000)
  }
}
