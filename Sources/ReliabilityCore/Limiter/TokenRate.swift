/// A bucket's size and speed, with exact integer arithmetic.
///
/// `refilled(t) = ⌊t·tokens / interval⌋` is the number of tokens that have flowed in by time `t`. A
/// bucket needs no other clock state than how many of them are spent, which is why it cannot drift.
package struct TokenRate: BitwiseCopyable {
  package let capacity: Int64
  package let maxDebt: Int64
  /// Refill as a reduced fraction: `tokens` each `interval` ns, `tokens <= interval`.
  package let tokens: UInt64
  package let interval: UInt64
  /// `⌊2^64·tokens / interval⌋`, so that the division becomes a multiplication.
  package let reciprocal: UInt64

  package static let maximumTokens: Int64 = 1 << 50

  package init(
    capacity: Int64, maxDebt: Int64, tokens: Int64, interval: Int64
  ) throws(Failure) {
    guard capacity >= 1 && capacity <= TokenRate.maximumTokens else {
      throw .argument("capacity", "must be 1 ... 2^50 tokens")
    }
    guard tokens >= 0 && tokens <= TokenRate.maximumTokens else {
      throw .argument("refill_tokens", "must be 0 ... 2^50 tokens")
    }
    guard interval >= 1 && interval <= Time.year else {
      throw .argument("refill_interval_ns", "must be 1 ns ... 1 year")
    }
    guard tokens <= interval else {
      throw .argument("refill_interval_ns", "must be at least 1 ns for each refill token")
    }
    guard maxDebt >= -1 && maxDebt <= TokenRate.maximumTokens else {
      throw .argument("max_debt_tokens", "must be -1, or 0 ... 2^50 tokens")
    }
    let divisor = WideMath.greatestCommonDivisor(UInt64(tokens), UInt64(interval))
    self.tokens = UInt64(tokens) / divisor
    self.interval = UInt64(interval) / divisor
    // 2^64 itself, at one token a nanosecond, is rounded down as well; refilled() mends it.
    reciprocal =
      self.tokens == self.interval
      ? .max : self.interval.dividingFullWidth((high: self.tokens, low: 0)).quotient
    self.capacity = capacity
    if maxDebt >= 0 {
      self.maxDebt = maxDebt
    } else {
      let minute = WideMath.multiplyDivide(
        UInt64(Time.minute), self.tokens, by: self.interval)
      self.maxDebt = Swift.max(capacity, Int64(truncatingIfNeeded: minute ?? 0))
    }
  }

  /// From words that were taken from a valid rate.
  @inline(__always)
  init(
    capacity: Int64, maxDebt: Int64, reducedTokens: UInt64, interval: UInt64, reciprocal: UInt64
  ) {
    self.capacity = capacity
    self.maxDebt = maxDebt
    tokens = reducedTokens
    self.interval = interval
    self.reciprocal = reciprocal
  }

  /// `⌊now·tokens / interval⌋` for `now` in `0...Time.max`.
  @inline(__always)
  package func refilled(_ now: Int64) -> Int64 {
    let time = UInt64(bitPattern: now)
    // now < 2^62 makes the estimate too small by less than 1 + 1/4, so one correction is exact; the
    // remainder is below twice the interval and fits although both products may wrap.
    let estimate = time.multipliedFullWidth(by: reciprocal).high
    let remainder = time &* tokens &- estimate &* interval
    let whole = remainder >= interval ? estimate &+ 1 : estimate
    return Int64(bitPattern: whole)
  }

  /// The first time at which `refilled` reaches `level`, or `Time.forever`.
  @inline(__always)
  package func time(of level: Int64) -> Int64 {
    guard level > 0 else { return 0 }
    guard
      let time = WideMath.multiplyDivideUp(UInt64(bitPattern: level), interval, by: tokens)
    else { return Time.forever }
    return Int64(bitPattern: time)
  }
}
