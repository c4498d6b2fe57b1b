/// The rate of every key's bucket, in time instead of tokens: what `n` tokens cost in nanoseconds of
/// refill. A key then needs only the time at which its bucket is full again (GCRA's theoretical
/// arrival time, ITU-T I.371), and a change of rate need not touch the keys.
package struct KeyedRate: BitwiseCopyable {
  package let capacity: Int64
  package let tokens: UInt64
  package let interval: UInt64
  /// How long an empty bucket takes to fill.
  package let burst: Int64
  /// How long the greatest debt takes to be paid.
  package let debt: Int64

  package static let maximumTokens: Int64 = 1 << 40

  package init(
    capacity: Int64, maxDebt: Int64, tokens: Int64, interval: Int64
  ) throws(Failure) {
    guard capacity >= 1 && capacity <= KeyedRate.maximumTokens else {
      throw .argument("capacity", "must be 1 ... 2^40 tokens")
    }
    guard tokens >= 1 && tokens <= KeyedRate.maximumTokens else {
      throw .argument("refill_tokens", "must be 1 ... 2^40 tokens")
    }
    // The rules for the rest, and the reduced fraction, are those of a single bucket.
    let rate = try TokenRate(
      capacity: capacity, maxDebt: maxDebt, tokens: tokens, interval: interval)
    self.capacity = capacity
    let flow = TimeRatio(UInt64(bitPattern: rate.tokens), UInt64(bitPattern: rate.interval))
    self.tokens = flow.numerator
    self.interval = flow.denominator
    burst = flow.time(of: capacity)
    guard burst <= 10 * Time.year else {
      throw .argument("refill_tokens", "an empty bucket must fill within 10 years")
    }
    debt = Swift.min(flow.time(of: rate.maxDebt), 100 * Time.year / 4)
  }

  init(words: (Int) -> UInt64) {
    capacity = Int64(bitPattern: words(0))
    tokens = words(1)
    interval = words(2)
    burst = Int64(bitPattern: words(3))
    debt = Int64(bitPattern: words(4))
  }

  static let wordCount = 5

  func word(_ index: Int) -> UInt64 {
    switch index {
    case 0: UInt64(bitPattern: capacity)
    case 1: tokens
    case 2: interval
    case 3: UInt64(bitPattern: burst)
    default: UInt64(bitPattern: debt)
    }
  }

  /// What tokens cost, rounded up; at most 100 years.
  @inline(__always)
  func cost(_ count: Int64) -> Int64 {
    let time = WideMath.multiplyDivideUp(UInt64(bitPattern: count), interval, by: tokens)
    return Swift.min(Int64(bitPattern: time ?? UInt64(bitPattern: Time.max)), 100 * Time.year)
  }

  /// How many tokens a length of time is worth, rounded down.
  func worth(_ time: Int64) -> Int64 {
    let count = WideMath.multiplyDivide(UInt64(bitPattern: time), tokens, by: interval)
    return Int64(bitPattern: count ?? UInt64(bitPattern: Time.max))
  }
}
