package enum StepKind: Int32, BitwiseCopyable {
  case attempt = 1
  case wait, join, done
}

/// What the host must do next.
package struct Step: BitwiseCopyable {
  package var kind: StepKind
  package var reason: Reason
  package var component = Component.none
  package var attemptID: UInt64 = 0
  package var attempt: UInt32 = 0
  package var wait: Int64 = 0
  package var retryAfter: Int64 = 0
  package var descriptor: Int32 = -1
  package var outcomeUnknown = false
  package var fence: UInt64 = 0
  package var result: UnsafeRawPointer?
  package var resultLength = 0

  package init(_ kind: StepKind, _ reason: Reason) {
    self.kind = kind
    self.reason = reason
  }

  /// Becomes another step, in place: a step that is put together elsewhere and copied costs more than the
  /// decision did.
  @inline(__always)
  package mutating func become(
    _ kind: StepKind, _ reason: Reason, _ component: Component, attempt: UInt32
  ) {
    self.kind = kind
    self.reason = reason
    self.component = component
    attemptID = 0
    self.attempt = attempt
    wait = 0
    retryAfter = 0
    descriptor = -1
    outcomeUnknown = false
    fence = 0
    result = nil
    resultLength = 0
  }
}

/// The clocks of an attempt, each its own.
package struct Timeouts: BitwiseCopyable {
  package var total: Int64
  package var attempt: Int64
  package var connect: Int64
  package var firstByte: Int64
  package var idle: Int64

  package init(
    total: Int64, attempt: Int64, connect: Int64, firstByte: Int64, idle: Int64
  ) throws(Failure) {
    try Timeouts.require(total, "total_timeout_ns")
    try Timeouts.require(attempt, "attempt_timeout_ns")
    try Timeouts.require(connect, "connect_timeout_ns")
    try Timeouts.require(firstByte, "first_byte_timeout_ns")
    try Timeouts.require(idle, "idle_timeout_ns")
    guard attempt == Time.forever || attempt <= total else {
      throw .argument("attempt_timeout_ns", "must not be beyond total_timeout_ns")
    }
    self.total = total
    self.attempt = attempt
    self.connect = connect
    self.firstByte = firstByte
    self.idle = idle
  }

  private static func require(_ value: Int64, _ field: StaticString) throws(Failure) {
    guard value >= 1 && (value <= Time.max || value == Time.forever) else {
      throw .argument(field, "must be 1 ... AGR_TIME_MAX_NS nanoseconds, or AGR_FOREVER")
    }
  }
}
