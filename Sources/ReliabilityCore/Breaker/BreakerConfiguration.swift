package enum BreakerState: Int32, BitwiseCopyable {
  case closed = 1
  case open, halfOpen
}

/// Whether the state is obeyed.
package enum BreakerMode: Int32, BitwiseCopyable {
  case automatic = 0
  case forcedOpen, forcedClosed, disabled, observe
}

package struct BreakerConfiguration: BitwiseCopyable {
  package enum Window: Int32, BitwiseCopyable {
    case none = 0
    case count, time
  }

  package var consecutiveFailures: UInt32
  package var window: Window
  package var windowCalls: UInt32
  package var windowLength: Int64
  package var minimumCalls: UInt32
  package var halfOpenPermits: UInt32
  package var halfOpenSuccesses: UInt32
  package var maxPermits: UInt32
  package var failureRate: Double
  package var slowRate: Double
  package var slowCall: Int64
  package var openTime: Int64
  package var openLimit: Int64
  package var openGrowth: Double
  package var openJitter: Double
  package var permitTimeout: Int64
  package var backpressureFails: Bool
  package var mode: BreakerMode
  /// Of the jitter; 0: drawn from the caller's stream.
  package var seed: UInt64

  package init() {
    consecutiveFailures = 0
    window = .count
    windowCalls = 100
    windowLength = 30 * Time.second
    minimumCalls = 20
    halfOpenPermits = 3
    halfOpenSuccesses = 0
    maxPermits = 4096
    failureRate = 0.5
    slowRate = 0
    slowCall = Time.minute
    openTime = 5 * Time.second
    openLimit = 5 * Time.minute
    openGrowth = 2
    openJitter = 0.1
    permitTimeout = 10 * Time.minute
    backpressureFails = false
    mode = .automatic
    seed = 0
  }

  package func validate() throws(Failure) {
    guard consecutiveFailures <= 1_000_000 else {
      throw .argument("consecutive_failures", "must be 0 ... 1,000,000")
    }
    guard windowCalls >= 1 && windowCalls <= 10_000 else {
      throw .argument("window_calls", "must be 1 ... 10,000")
    }
    guard windowLength >= 10 && windowLength <= Time.day else {
      throw .argument("window_ns", "must be 10 ns ... 1 day")
    }
    guard minimumCalls >= 1 && minimumCalls <= (window == .count ? windowCalls : 1_000_000) else {
      throw .argument("minimum_calls", "must be 1 ... window_calls (1,000,000 without COUNT)")
    }
    guard halfOpenPermits >= 1 && halfOpenPermits <= 64 else {
      throw .argument("half_open_permits", "must be 1 ... 64")
    }
    guard halfOpenSuccesses <= 1000 else {
      throw .argument("half_open_successes", "must be 0 ... 1000")
    }
    guard maxPermits >= 1 && maxPermits <= UInt32(PermitTable.maximumCount) else {
      throw .argument("max_permits", "must be 1 ... 1,048,576")
    }
    guard failureRate >= 0 && failureRate <= 1 else {
      throw .argument("failure_rate", "must be 0 ... 1")
    }
    guard slowRate >= 0 && slowRate <= 1 else {
      throw .argument("slow_rate", "must be 0 ... 1")
    }
    try requireTime(slowCall, "slow_call_ns")
    guard openTime >= 1 && openTime <= Time.max else {
      throw .argument("open_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard openLimit >= openTime && openLimit <= Time.max else {
      throw .argument("open_max_ns", "must be open_ns ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard openGrowth >= 1 && openGrowth <= 100 else {
      throw .argument("open_growth", "must be 1 ... 100")
    }
    guard openJitter >= 0 && openJitter <= 1 else {
      throw .argument("open_jitter", "must be 0 ... 1")
    }
    guard permitTimeout >= 1 && permitTimeout <= Time.max else {
      throw .argument("permit_timeout_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard consecutiveFailures > 0 || (window != .none && (failureRate > 0 || slowRate > 0)) else {
      throw .argument(
        "consecutive_failures", "nothing could trip it: no count in a row and no rate is on")
    }
  }

  /// The successes that close it again.
  package var successesToClose: UInt32 {
    halfOpenSuccesses == 0 ? halfOpenPermits : halfOpenSuccesses
  }

  /// How long it opens at the given trip in a row (1, 2, ...); `chance` is in [0, 1).
  package func openTime(trip: UInt64, chance: Double) -> Int64 {
    var time = Double(openTime)
    var rest = trip
    while rest > 1 && time < Double(openLimit) {
      time *= openGrowth
      rest &-= 1
    }
    return Time.clamp(time * (1 + openJitter * chance), limit: openLimit)
  }
}
