/// A bucket's size and speed, with exact integer arithmetic.
///
/// Tokens are counted in units small enough that about one of them flows in each nanosecond; a bucket
/// then needs no other clock state than how many of all the units since time 0 are spent, which is why
/// it cannot drift. Where a token takes a whole number of nanoseconds the units are nanoseconds, and
/// nothing is rounded at all; else what is rounded is what flows in in 2 ns.
package struct TokenRate: BitwiseCopyable {
  package let capacity: Int64
  package let maxDebt: Int64
  /// As configured, but reduced: `tokens` each `interval` ns.
  package let tokens: Int64
  package let interval: Int64

  /// What a token is in units; capacity and debt in units fit 60 bits.
  let unitsPerToken: Int64
  /// The units that flow in.
  let flow: TimeRatio

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
    let reduced = TimeRatio(UInt64(tokens), UInt64(interval))
    self.capacity = capacity
    self.maxDebt =
      maxDebt >= 0 ? maxDebt : Swift.max(capacity, reduced.applied(to: Time.minute))
    self.tokens = Int64(bitPattern: reduced.numerator)
    self.interval = Int64(bitPattern: reduced.denominator)
    let finest = self.tokens == 0 ? 1 : self.interval / self.tokens
    let room = (1 << 60) / Swift.max(capacity, self.maxDebt)
    unitsPerToken = Swift.max(1, Swift.min(finest, room))
    flow = TimeRatio(
      reduced.numerator &* UInt64(bitPattern: unitsPerToken), reduced.denominator)
  }

  static let wordCount = 8

  /// From the words of a valid rate.
  @inline(__always)
  init(words: (Int) -> UInt64) {
    unitsPerToken = Int64(bitPattern: words(0))
    capacity = Int64(bitPattern: words(1))
    flow = TimeRatio(
      numerator: words(2), denominator: words(3), reciprocal: words(4))
    maxDebt = Int64(bitPattern: words(5))
    tokens = Int64(bitPattern: words(6))
    interval = Int64(bitPattern: words(7))
  }

  func word(_ index: Int) -> UInt64 {
    switch index {
    case 0: UInt64(bitPattern: unitsPerToken)
    case 1: UInt64(bitPattern: capacity)
    case 2: flow.numerator
    case 3: flow.denominator
    case 4: flow.reciprocal
    case 5: UInt64(bitPattern: maxDebt)
    case 6: UInt64(bitPattern: tokens)
    default: UInt64(bitPattern: interval)
    }
  }

  /// Tokens, up to the capacity or the greatest debt, in units.
  @inline(__always)
  func units(_ tokens: Int64) -> Int64 { tokens &* unitsPerToken }

  /// Units as whole tokens, rounded down; a debt is rounded up.
  func tokens(_ units: Int64) -> Int64 {
    // Of a rate from memory that was overwritten, too.
    let size = Swift.max(1, unitsPerToken)
    return units >= 0 ? units / size : 0 &- ((0 &- units &+ size &- 1) / size)
  }
}
