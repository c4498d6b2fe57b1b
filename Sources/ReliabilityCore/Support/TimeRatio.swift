/// A fraction of time, `⌊t·numerator / denominator⌋`, exact and without a division.
package struct TimeRatio: BitwiseCopyable {
  /// Reduced; the numerator is not above the denominator.
  package let numerator: UInt64
  package let denominator: UInt64
  /// `⌊2^64·numerator / denominator⌋`.
  package let reciprocal: UInt64

  /// `numerator <= denominator`, `1 <= denominator < 2^62`.
  package init(_ numerator: UInt64, _ denominator: UInt64) {
    let divisor = WideMath.greatestCommonDivisor(numerator, denominator)
    self.numerator = numerator / divisor
    self.denominator = denominator / divisor
    // For the fraction 1 it would be 2^64; applied() does without it.
    reciprocal =
      self.numerator >= self.denominator
      ? .max : self.denominator.dividingFullWidth((high: self.numerator, low: 0)).quotient
  }

  /// From the parts of one that was made before.
  @inline(__always)
  package init(numerator: UInt64, denominator: UInt64, reciprocal: UInt64) {
    self.numerator = numerator
    self.denominator = denominator
    self.reciprocal = reciprocal
  }

  /// `⌊time·numerator / denominator⌋` for a time in `0...Time.max`.
  @inline(__always)
  package func applied(to time: Int64) -> Int64 {
    // The usual case, a token that takes whole nanoseconds: a branch is quicker than two products.
    if numerator == denominator { return time }
    let time = UInt64(bitPattern: time)
    // time < 2^62 makes the estimate too small by less than 1 + 1/4, so that one correction is exact;
    // the remainder is below twice the denominator and fits although both products may wrap.
    let estimate = time.multipliedFullWidth(by: reciprocal).high
    let remainder = time &* numerator &- estimate &* denominator
    return Int64(bitPattern: remainder >= denominator ? estimate &+ 1 : estimate)
  }

  /// The first time at which the fraction reaches `level`, or `Time.forever`.
  @inline(__always)
  package func time(of level: Int64) -> Int64 {
    guard level > 0 else { return 0 }
    if numerator == denominator { return Swift.min(level, Time.max) }
    guard
      let time = WideMath.multiplyDivideUp(
        UInt64(bitPattern: level), denominator, by: numerator)
    else { return Time.forever }
    return Int64(bitPattern: time)
  }
}
