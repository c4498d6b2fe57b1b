/// Integer arithmetic with 128-bit intermediates. None of it traps.
package enum WideMath {
  /// `⌈a·b / divisor⌉`, or `nil` when it does not fit 62 bits or the divisor is 0.
  @inline(__always)
  package static func multiplyDivideUp(_ a: UInt64, _ b: UInt64, by divisor: UInt64) -> UInt64? {
    var (high, low) = a.multipliedFullWidth(by: b)
    let (sum, carry) = low.addingReportingOverflow(divisor &- 1)
    low = sum
    if carry { high &+= 1 }
    // The quotient fits 64 bits exactly when high < divisor; that also excludes divisor 0.
    guard high < divisor else { return nil }
    let quotient = divisor.dividingFullWidth((high: high, low: low)).quotient
    return quotient < 1 << 62 ? quotient : nil
  }

  /// `⌊a·b / divisor⌋`, or `nil` when it does not fit 62 bits or the divisor is 0.
  @inline(__always)
  package static func multiplyDivide(_ a: UInt64, _ b: UInt64, by divisor: UInt64) -> UInt64? {
    let (high, low) = a.multipliedFullWidth(by: b)
    guard high < divisor else { return nil }
    let quotient = divisor.dividingFullWidth((high: high, low: low)).quotient
    return quotient < 1 << 62 ? quotient : nil
  }

  package static func greatestCommonDivisor(_ a: UInt64, _ b: UInt64) -> UInt64 {
    var (a, b) = (a, b)
    // Euclid's algorithm ends within 93 steps on 64-bit numbers.
    while b != 0 { (a, b) = (b, a % b) }
    return a
  }
}
