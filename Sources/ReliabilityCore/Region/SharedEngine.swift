/// An engine whose state can lie in a region: how its configuration is recorded there.
package protocol SharedEngine: Engine, ~Copyable {
  /// As `AGR_OBJECT_*`.
  static var kind: UInt64 { get }

  /// The configuration as words, in the order of the structure's fields.
  static func fields(_ configuration: Configuration) -> InlineArray<20, UInt64>

  /// The name of a field by its place among those words.
  static func name(ofField index: Int) -> StaticString

  /// Whether a field may change while in use, so that what holds is in the state and not in the record.
  static func mayChange(field index: Int) -> Bool

  /// The words of the fields that may change, as they hold; the others are not looked at.
  func present() -> InlineArray<20, UInt64>
}

extension SharedEngine where Self: ~Copyable {
  package static func mayChange(field index: Int) -> Bool { false }

  package func present() -> InlineArray<20, UInt64> { InlineArray(repeating: 0) }

  /// Refuses a configuration that differs from what was recorded, by its first field.
  package static func compare(
    _ wanted: InlineArray<20, UInt64>, _ there: InlineArray<20, UInt64>, changing: Bool
  ) throws(Failure) {
    for index in 0..<ObjectRecord.maximumFields where mayChange(field: index) == changing {
      guard wanted[index] == there[index] else {
        throw Failure(
          .mismatch, name(ofField: index), "the object is there with another value of this field")
      }
    }
  }
}

extension Limiter: SharedEngine {
  package static var kind: UInt64 { 1 }

  package static func fields(_ configuration: Configuration) -> InlineArray<20, UInt64> {
    var fields = Limiter.rateFields(configuration.rate)
    fields[0] = UInt64(truncatingIfNeeded: configuration.maxReservations)
    fields[4] = UInt64(bitPattern: configuration.askedInitial)
    fields[6] = UInt64(bitPattern: configuration.reservationTimeout)
    fields[7] = configuration.observe ? 1 : 0
    return fields
  }

  private static func rateFields(_ rate: TokenRate) -> InlineArray<20, UInt64> {
    var fields = InlineArray<20, UInt64>(repeating: 0)
    fields[1] = UInt64(bitPattern: rate.capacity)
    fields[2] = UInt64(bitPattern: rate.tokens)
    fields[3] = UInt64(bitPattern: rate.interval)
    fields[5] = UInt64(bitPattern: rate.maxDebt)
    return fields
  }

  package static func name(ofField index: Int) -> StaticString {
    switch index {
    case 0: "max_reservations"
    case 1: "capacity"
    case 2: "refill_tokens"
    case 3: "refill_interval_ns"
    case 4: "initial_tokens"
    case 5: "max_debt_tokens"
    case 6: "reservation_timeout_ns"
    default: "observe"
    }
  }

  package static func mayChange(field index: Int) -> Bool {
    index >= 1 && index <= 3 || index == 5
  }

  package func present() -> InlineArray<20, UInt64> { Limiter.rateFields(rate()) }
}

extension KeyedLimiter: SharedEngine {
  package static var kind: UInt64 { 2 }

  package static func fields(_ configuration: Configuration) -> InlineArray<20, UInt64> {
    var fields = KeyedLimiter.rateFields(configuration.rate)
    fields[0] = UInt64(truncatingIfNeeded: configuration.slots)
    fields[5] = UInt64(bitPattern: configuration.reservationTimeout)
    fields[6] = UInt64(truncatingIfNeeded: configuration.maxReservations)
    fields[7] = configuration.evict ? 1 : 0
    fields[8] = UInt64(truncatingIfNeeded: configuration.maxKeyBytes)
    fields[9] = configuration.observe ? 1 : 0
    fields[10] = configuration.seed
    return fields
  }

  private static func rateFields(_ rate: KeyedRate) -> InlineArray<20, UInt64> {
    var fields = InlineArray<20, UInt64>(repeating: 0)
    fields[1] = UInt64(bitPattern: rate.capacity)
    fields[2] = rate.tokens
    fields[3] = rate.interval
    fields[4] = UInt64(bitPattern: rate.debt)
    return fields
  }

  package static func name(ofField index: Int) -> StaticString {
    switch index {
    case 0: "max_keys"
    case 1: "capacity"
    case 2: "refill_tokens"
    case 3: "refill_interval_ns"
    case 4: "max_debt_tokens"
    case 5: "reservation_timeout_ns"
    case 6: "max_reservations"
    case 7: "when_full"
    case 8: "max_key_bytes"
    case 9: "observe"
    default: "seed"
    }
  }

  package static func mayChange(field index: Int) -> Bool { index >= 1 && index <= 4 }

  package func present() -> InlineArray<20, UInt64> { KeyedLimiter.rateFields(currentRate()) }
}

extension RetryBudget: SharedEngine {
  package static var kind: UInt64 { 4 }

  package static func fields(_ configuration: Configuration) -> InlineArray<20, UInt64> {
    var fields = InlineArray<20, UInt64>(repeating: 0)
    fields[0] = UInt64(configuration.minPerSecond)
    fields[1] = configuration.ratio.bitPattern
    fields[2] = UInt64(configuration.quota)
    fields[3] = UInt64(configuration.initial)
    return fields
  }

  package static func name(ofField index: Int) -> StaticString {
    switch index {
    case 0: "min_per_second"
    case 1: "ratio"
    case 2: "quota"
    default: "initial"
    }
  }
}

extension Breaker: SharedEngine {
  package static var kind: UInt64 { 3 }

  package static func fields(_ configuration: BreakerConfiguration) -> InlineArray<20, UInt64> {
    var fields = InlineArray<20, UInt64>(repeating: 0)
    fields[0] = UInt64(configuration.consecutiveFailures)
    fields[1] = UInt64(truncatingIfNeeded: configuration.window.rawValue)
    fields[2] = UInt64(configuration.windowCalls)
    fields[3] = UInt64(configuration.minimumCalls)
    fields[4] = UInt64(bitPattern: configuration.windowLength)
    fields[5] = configuration.failureRate.bitPattern
    fields[6] = configuration.slowRate.bitPattern
    fields[7] = UInt64(bitPattern: configuration.slowCall)
    fields[8] = UInt64(bitPattern: configuration.openTime)
    fields[9] = UInt64(bitPattern: configuration.openLimit)
    fields[10] = configuration.openGrowth.bitPattern
    fields[11] = configuration.openJitter.bitPattern
    fields[12] = UInt64(configuration.halfOpenPermits)
    fields[13] = UInt64(configuration.halfOpenSuccesses)
    fields[14] = UInt64(bitPattern: configuration.permitTimeout)
    fields[15] = UInt64(configuration.maxPermits)
    fields[16] = configuration.backpressureFails ? 1 : 0
    fields[17] = UInt64(truncatingIfNeeded: configuration.mode.rawValue)
    fields[18] = configuration.seed
    return fields
  }

  package static func name(ofField index: Int) -> StaticString {
    switch index {
    case 0: "consecutive_failures"
    case 1: "window"
    case 2: "window_calls"
    case 3: "minimum_calls"
    case 4: "window_ns"
    case 5: "failure_rate"
    case 6: "slow_rate"
    case 7: "slow_call_ns"
    case 8: "open_ns"
    case 9: "open_max_ns"
    case 10: "open_growth"
    case 11: "open_jitter"
    case 12: "half_open_permits"
    case 13: "half_open_successes"
    case 14: "permit_timeout_ns"
    case 15: "max_permits"
    case 16: "backpressure_fails"
    case 17: "mode"
    default: "seed"
    }
  }
}
