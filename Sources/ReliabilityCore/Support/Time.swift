import Platform

/// Nanoseconds, as everywhere in the library. Timestamps and finite durations lie in
/// `0...Time.max`, so that the sum of any two fits an `Int64`.
package enum Time {
  /// 2^62 − 1 ns, 146 years.
  package static let max: Int64 = (1 << 62) - 1
  /// "No limit", "never clears".
  package static let forever: Int64 = .max

  package static let millisecond: Int64 = 1_000_000
  package static let second: Int64 = 1_000_000_000
  package static let minute: Int64 = 60 * second
  package static let hour: Int64 = 60 * minute
  package static let day: Int64 = 24 * hour
  package static let year: Int64 = 365 * day

  @inline(__always)
  package static func isValid(_ nanoseconds: Int64) -> Bool {
    nanoseconds >= 0 && nanoseconds <= max
  }

  /// `a + b`, at most `max`. Both are valid, or `forever`, which stays itself.
  @inline(__always)
  package static func add(_ a: Int64, _ b: Int64) -> Int64 {
    if a == forever || b == forever { return forever }
    let sum = a &+ b
    return sum < 0 || sum > max ? max : sum
  }

  /// `a − b`, at least 0; `forever` stays itself.
  @inline(__always)
  package static func subtract(_ a: Int64, _ b: Int64) -> Int64 {
    if a == forever { return forever }
    return a > b ? a &- b : 0
  }

  /// Rounds a number of nanoseconds into `0...limit`; NaN gives 0.
  @inline(__always)
  package static func clamp(_ nanoseconds: Double, limit: Int64) -> Int64 {
    guard nanoseconds > 0 else { return 0 }
    guard nanoseconds < Double(limit) else { return limit }
    // Below 2^62 here. Swift's own conversion would look again, and trap.
    return platform_truncate(nanoseconds)
  }
}

/// Refuses a time outside `0...Time.max`.
@inline(__always)
package func requireTime(_ nanoseconds: Int64, _ field: StaticString) throws(Failure) {
  guard Time.isValid(nanoseconds) else {
    throw .argument(field, "must be 0 ... AGR_TIME_MAX_NS nanoseconds")
  }
}

/// Refuses a limit that is neither a time nor `Time.forever`.
@inline(__always)
package func requireTimeOrForever(_ nanoseconds: Int64, _ field: StaticString) throws(Failure) {
  guard Time.isValid(nanoseconds) || nanoseconds == Time.forever else {
    throw .argument(field, "must be 0 ... AGR_TIME_MAX_NS nanoseconds, or AGR_FOREVER")
  }
}
