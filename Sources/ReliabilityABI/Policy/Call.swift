import ReliabilityCore

/// One guarded call: all that is remembered between two steps. Used by one thread at a time.
struct Call: BitwiseCopyable {
  enum Phase: BitwiseCopyable {
    case attempting
    /// Waiting for the time that was said; the case tells what comes then.
    case waitingForLimiter, waitingForBackoff, waitingForBreaker
    case joined
    case done
  }

  var policy: Handle<Policy>
  var id: UInt64
  var phase: Phase
  /// What the host was last told to do.
  var step: Step

  var deadline: Int64
  /// The latest time seen: a call's own time does not step back.
  var now: Int64
  var waitUntil: Int64
  /// Of a policy that waits for stores: how far the system's clock is ahead of the call's time, and until when on
  /// it this step may wait for what ends a call, its deadline aside.
  var lead: Int64
  var graceUntil: Int64

  var attempt: UInt32
  var attemptID: UInt64
  var attemptStart: Int64
  var attemptReason: Reason
  /// An attempt ended without a reply: it may have had its effect.
  var mayHaveRun: Bool
  var isCommitted: Bool
  var previousDelay: Int64
  /// The retries counted at this place are this call's.
  var hasRetried: Bool

  var costs: InlineArray<4, Int64>
  var reservations: InlineArray<4, UInt64>
  var permit: UInt64

  var hasKey: Bool
  var lease: UInt64
  /// Until when it lasts, if nobody renews it.
  var leaseUntil: Int64
  /// In a wait that it does not cover: when its renewal, which was not answered, is asked for again.
  var renewAt: Int64
  var fence: UInt64
  var outcomeUnknown: Bool
  var ticket: UInt64
  var pin: UInt64

  var hasAnswerKey: Bool
  var answerKey: AnswerTable.Key
  /// A cached answer, which the call owns.
  var answer: UnsafeMutableRawPointer?

  var priority: Int32
  var trace: TraceID

  /// Becomes a new call, in place. What a request says is set by whoever has it.
  @inline(__always)
  mutating func reset(_ policy: Handle<Policy>, id: UInt64, now: Int64) {
    self.policy = policy
    self.id = id
    self.now = now
    phase = .done
    waitUntil = 0
    lead = 0
    graceUntil = 0
    attempt = 0
    attemptID = 0
    attemptStart = 0
    attemptReason = .first
    mayHaveRun = false
    isCommitted = false
    previousDelay = 0
    hasRetried = false
    for index in 0..<4 { reservations[index] = 0 }
    permit = 0
    hasKey = false
    lease = 0
    leaseUntil = 0
    renewAt = 0
    fence = 0
    outcomeUnknown = false
    ticket = 0
    pin = 0
    hasAnswerKey = false
    answer = nil
  }

  /// Takes over a caller's time. A little back is a thread that was held up, and the call's time stands; more
  /// is another clock, to which the call's times are carried over.
  mutating func advance(to time: Int64) {
    let back = now &- time
    if back > Time.second {
      if deadline != Time.forever { deadline = Swift.max(0, deadline &- back) }
      waitUntil = Swift.max(0, waitUntil &- back)
      attemptStart = Swift.max(0, attemptStart &- back)
      leaseUntil = Swift.max(0, leaseUntil &- back)
      renewAt = Swift.max(0, renewAt &- back)
      now = time
    }
    now = Swift.max(now, time)
  }

  /// The time until the deadline.
  var remaining: Int64 { Time.subtract(deadline, now) }

  // MARK: - Waiting for a store

  /// Begins a step: from here on the call's time goes with the system's.
  @inline(never)
  mutating func enter() {
    let time = systemNow()
    lead = time &- now
    graceUntil = Time.add(time, StoreWait.telling)
  }

  /// Begins what ends a call late in a step.
  @inline(never)
  mutating func allowGrace() { graceUntil = Time.add(systemNow(), StoreWait.telling) }

  /// The time that a store has taken is the call's.
  @inline(never)
  mutating func catchUp() { now = Swift.max(now, Swift.min(systemNow() &- lead, Time.max)) }

  /// Until when the call's next stage may wait, on the system's clock.
  var waitLimit: Int64 { deadline == Time.forever ? deadline : deadline &+ lead }

  /// The same for what ends it: a deadline that is over, or nearly, leaves it a moment.
  var endLimit: Int64 { Swift.max(waitLimit, graceUntil) }
}

/// How an attempt went, checked and in the policy's terms. `result` is the caller's.
struct AttemptOutcome {
  var rule: RetryRule
  /// Which rule it is, for counting its retries.
  var ruleIndex: Int
  var code: Int32
  var serverDelay: Int64
  var latency: Int64
  var costs: InlineArray<4, Int64>
  var result: UnsafeRawPointer?
  var resultLength: Int
}
