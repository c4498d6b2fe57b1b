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
  var phase = Phase.done
  /// What the host was last told to do.
  var step = Step(.done, .none)

  var deadline: Int64
  /// The latest time seen: a call's own time does not step back.
  var now: Int64
  var waitUntil: Int64 = 0

  var attempt: UInt32 = 0
  var attemptID: UInt64 = 0
  var attemptStart: Int64 = 0
  var attemptReason = Reason.first
  /// An attempt ended without a reply: it may have had its effect.
  var mayHaveRun = false
  var isCommitted = false
  var previousDelay: Int64 = 0
  /// Retries made for each rule of the table, and for codes that none matches.
  var ruleRetries = InlineArray<65, UInt32>(repeating: 0)

  var costs = InlineArray<4, Int64>(repeating: 0)
  var reservations = InlineArray<4, UInt64>(repeating: 0)
  var permit: UInt64 = 0

  var hasKey = false
  var lease: UInt64 = 0
  var fence: UInt64 = 0
  var outcomeUnknown = false
  var ticket: UInt64 = 0
  var pin: UInt64 = 0

  var hasAnswerKey = false
  var answerKey = AnswerTable.Key(0, 0)
  /// A cached answer, which the call owns.
  var answer: UnsafeMutableRawPointer?

  var priority: Int32
  var trace: TraceID

  init(
    policy: Handle<Policy>, id: UInt64, deadline: Int64, now: Int64, priority: Int32, trace: TraceID
  ) {
    self.policy = policy
    self.id = id
    self.deadline = deadline
    self.now = now
    self.priority = priority
    self.trace = trace
  }

  /// Takes over a caller's time. A little back is a thread that was held up, and the call's time stands; more
  /// is another clock, to which the call's times are carried over.
  mutating func advance(to time: Int64) {
    let back = now &- time
    if back > Time.second {
      if deadline != Time.forever { deadline = Swift.max(0, deadline &- back) }
      waitUntil = Swift.max(0, waitUntil &- back)
      attemptStart = Swift.max(0, attemptStart &- back)
      now = time
    }
    now = Swift.max(now, time)
  }

  /// The time until the deadline.
  var remaining: Int64 { Time.subtract(deadline, now) }
}

/// What is asked for, checked and in the policy's terms. The pointers are the caller's.
struct Request {
  var priority: Int32 = 0
  var key: UnsafeRawPointer?
  var keyLength = 0
  var fingerprint: UnsafeRawPointer?
  var fingerprintLength = 0
  var answerKey: UnsafeRawPointer?
  var answerKeyLength = 0
  var costs = InlineArray<4, Int64>(repeating: 0)
  var deadline: Int64 = 0
  var trace = TraceID()
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
