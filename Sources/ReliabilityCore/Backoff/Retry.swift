/// When to try again: a backoff, and how far a server is followed. The rule that an error falls under
/// is found by whoever holds the table.
package struct Retry: BitwiseCopyable {
  package var backoff: Backoff
  package var temporaryDelay: Int64
  package var maxServerDelay: Int64
  package var serverDelaySpread: Int64
  package var retryUnknown: Bool

  package init(
    backoff: Backoff, temporaryDelay: Int64, maxServerDelay: Int64, serverDelaySpread: Int64,
    retryUnknown: Bool
  ) throws(Failure) {
    try requireTime(temporaryDelay, "temporary_delay_ns")
    try requireTime(maxServerDelay, "max_server_delay_ns")
    try requireTime(serverDelaySpread, "server_delay_spread_ns")
    self.backoff = backoff
    self.temporaryDelay = temporaryDelay
    self.maxServerDelay = maxServerDelay
    self.serverDelaySpread = serverDelaySpread
    self.retryUnknown = retryUnknown
  }

  /// An attempt that failed, and what is known of it.
  package struct Failed {
    package var attempt: UInt32
    /// Retries made for the same reason already.
    package var reasonRetries: UInt32
    package var rule: RetryRule
    /// The upstream would recognise a repeated request.
    package var hasKey: Bool
    package var previousDelay: Int64
    /// What the server asked for: `noHint`, a time, or `Time.forever` for never.
    package var serverDelay: Int64
    package var random: UInt64

    package static let noHint: Int64 = -1

    package init(
      attempt: UInt32, reasonRetries: UInt32, rule: RetryRule, hasKey: Bool, previousDelay: Int64,
      serverDelay: Int64, random: UInt64
    ) {
      self.attempt = attempt
      self.reasonRetries = reasonRetries
      self.rule = rule
      self.hasKey = hasKey
      self.previousDelay = previousDelay
      self.serverDelay = serverDelay
      self.random = random
    }
  }

  package enum Verdict {
    case retry(delay: Int64)
    case stop(StopReason)
  }

  package enum StopReason {
    case succeeded, permanent, cancelled, outcomeUnknown, attemptsExhausted, hintTooLong
  }

  package func decide(_ failed: Failed) -> Verdict {
    switch failed.rule.errorClass {
    case .success: return .stop(.succeeded)
    case .permanent: return .stop(.permanent)
    case .cancelled: return .stop(.cancelled)
    case .unknown where !failed.hasKey && !retryUnknown: return .stop(.outcomeUnknown)
    case .unknown, .transient, .temporary: break
    }
    if failed.serverDelay > maxServerDelay { return .stop(.hintTooLong) }
    if backoff.isExhausted(after: failed.attempt)
      || (failed.rule.maxRetries != RetryRule.unlimited
        && failed.reasonRetries >= failed.rule.maxRetries)
    {
      return .stop(.attemptsExhausted)
    }
    let own = ownDelay(failed)
    guard failed.serverDelay >= 0 else { return .retry(delay: own) }
    // Never before the time that the server named; spread out behind it, so that all who were
    // told the same do not come back at once.
    let reach = Swift.min(own, serverDelaySpread)
    let spread = Double(reach) * unitInterval(SplitMix64.mix(failed.random))
    return .retry(delay: Time.add(failed.serverDelay, Time.clamp(spread, limit: reach)))
  }

  private func ownDelay(_ failed: Failed) -> Int64 {
    let first = failed.rule.firstDelay
    if failed.rule.errorClass == .temporary {
      return first == RetryRule.byDefault ? temporaryDelay : first
    }
    guard first != RetryRule.byDefault else {
      return backoff.delay(
        after: failed.attempt, previous: failed.previousDelay, random: failed.random)
    }
    var own = backoff
    own.base = Swift.min(first, own.limit)
    // This reason's own retries count, so that its first delay is the one of its rule.
    let nth = failed.reasonRetries == .max ? .max : failed.reasonRetries &+ 1
    return own.delay(after: nth, previous: failed.previousDelay, random: failed.random)
  }
}
