import Platform

/// How long to wait before the next attempt: pure functions of the attempt, the last delay and a
/// random number. All of it is done in floating point and rounded down to nanoseconds at the end;
/// nothing overflows, whatever the attempt.
package struct Backoff: BitwiseCopyable {
  package enum Strategy: Int32, BitwiseCopyable {
    case constant = 1
    case linear, exponential, decorrelated, smoothDecorrelated, adaptive
  }

  package enum Jitter: Int32, BitwiseCopyable {
    case none = 0
    case full, equal, proportional, decorrelated
  }

  package var strategy: Strategy
  package var jitter: Jitter
  package var maxAttempts: UInt32
  package var base: Int64
  package var limit: Int64
  package var floor: Int64
  package var fastSuccess: Int64
  package var multiplier: Double
  package var jitterRatio: Double

  @inline(__always)
  package init(
    strategy: Int32, jitter: Int32, maxAttempts: UInt32, base: Int64, limit: Int64, floor: Int64,
    fastSuccess: Int64, multiplier: Double, jitterRatio: Double
  ) throws(Failure) {
    guard let shape = Strategy(rawValue: strategy) else {
      throw .argument("strategy", "must be one of AGR_BACKOFF_*")
    }
    guard let chance = Jitter(rawValue: jitter) else {
      throw .argument("jitter", "must be one of AGR_JITTER_*")
    }
    guard chance == .none || (shape != .decorrelated && shape != .smoothDecorrelated) else {
      throw .argument("jitter", "must be NONE, for this strategy is random itself")
    }
    try requireTime(limit, "max_delay_ns")
    guard base >= 0 && base <= limit else {
      throw .argument("base_delay_ns", "must be 0 ... max_delay_ns")
    }
    guard floor >= 0 && (floor <= limit || shape != .adaptive) else {
      throw .argument("min_delay_ns", "must be 0 ... max_delay_ns")
    }
    try requireTime(fastSuccess, "fast_success_ns")
    guard multiplier >= 1 && multiplier <= 1000 else {
      throw .argument("multiplier", "must be 1 ... 1000")
    }
    guard jitterRatio >= 0 && jitterRatio <= 1 else {
      throw .argument("jitter_ratio", "must be 0 ... 1")
    }
    self.strategy = shape
    self.jitter = chance
    self.maxAttempts = maxAttempts
    self.base = base
    self.limit = limit
    self.floor = floor
    self.fastSuccess = fastSuccess
    self.multiplier = multiplier
    self.jitterRatio = jitterRatio
  }

  package func isExhausted(after attempt: UInt32) -> Bool {
    maxAttempts != 0 && attempt >= maxAttempts
  }

  /// The delay after `attempt` (1, 2, ...) failed; `previous` is the one before it.
  @inline(__always)
  package func delay(after attempt: UInt32, previous: Int64, random: UInt64) -> Int64 {
    let chance = unitInterval(random)
    let top = Double(limit)
    if jitter == .decorrelated { return decorrelated(previous, chance) }
    let shape: Double
    switch strategy {
    case .constant: shape = Double(base)
    case .linear: shape = Double(base) * Double(attempt)
    case .exponential: shape = Double(base) * power(attempt &- 1)
    case .decorrelated: return decorrelated(previous, chance)
    case .smoothDecorrelated: return smooth(attempt, chance)
    case .adaptive:
      let current = previous > 0 ? Double(previous) * 2 : Double(base)
      shape = Swift.max(current, Double(floor))
    }
    let delay = Swift.min(shape, top)
    switch jitter {
    case .none, .decorrelated: return Time.clamp(delay, limit: limit)
    case .full: return Time.clamp(delay * chance, limit: limit)
    case .equal: return Time.clamp(delay / 2 + delay / 2 * chance, limit: limit)
    case .proportional:
      let factor = 1 - jitterRatio + 2 * jitterRatio * chance
      return Time.clamp(delay * factor, limit: limit)
    }
  }

  /// The base of an adaptive backoff after a call that took `latency`.
  package func adapted(_ current: Int64, _ outcome: CallOutcome, latency: Int64) -> Int64 {
    let now = current > 0 ? current : base
    let next: Int64
    switch outcome {
    case .success: next = latency < fastSuccess ? now / 2 : now
    case .neutral: next = now
    case .failure, .backpressure: next = now > limit / 2 ? limit : now &* 2
    }
    return Swift.min(Swift.max(next, floor), limit)
  }

  /// `multiplier^exponent` by repeated squaring, the same on every machine; infinite at the most.
  private func power(_ exponent: UInt32) -> Double {
    var result = 1.0
    var factor = multiplier
    var rest = exponent
    while rest != 0 {
      if rest & 1 == 1 { result *= factor }
      factor *= factor
      rest &>>= 1
    }
    // 1^∞ squares to 1 and nothing here is NaN: the multiplier is at least 1.
    return result
  }

  /// min(cap, U(base, 3·previous)): AWS architecture blog, "Exponential backoff and jitter", 2015.
  private func decorrelated(_ previous: Int64, _ chance: Double) -> Int64 {
    let low = Double(base)
    let high = Swift.max(low, 3 * Double(Swift.max(previous, base)))
    return Time.clamp(low + (high - low) * chance, limit: limit)
  }

  /// Polly's second decorrelated formula: increments of f(t) = 2^t·tanh(√(4t)), scaled by 1/1.4, at
  /// t = attempt − 1 + U(0,1). The increments are taken between t and t − 1, so that the function stays
  /// pure where Polly remembers its last f.
  private func smooth(_ attempt: UInt32, _ chance: Double) -> Int64 {
    // Beyond 2^1000 every delay is the limit; this keeps f finite.
    let t = Swift.min(Double(attempt &- 1), 1000) + chance
    let before = t >= 1 ? Backoff.rise(t - 1) : 0
    return Time.clamp((Backoff.rise(t) - before) * Double(base) / 1.4, limit: limit)
  }

  private static func rise(_ t: Double) -> Double {
    platform_exp2(t) * tanh((4 * t).squareRoot())
  }
}
