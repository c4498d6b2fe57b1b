/// Why a step is what it is.
package enum Reason: Int32, BitwiseCopyable {
  case none = 0
  case succeeded = 1
  case replayed = 2
  case fallbackDefault = 3
  case fallbackCached = 4
  case failedPermanent = 10
  case attemptsExhausted = 11
  case budgetExhausted = 12
  case deadline = 13
  case limited = 14
  case open = 15
  case mismatch = 16
  case capacity = 17
  case committed = 18
  case cancelled = 19
  case hintTooLong = 20
  case outcomeUnknown = 21
  case neverFits = 22
  case queue = 23
  case replayedFailure = 24
  case noMemory = 25
  case leaseLost = 26
  case store = 27
  case argument = 28
  case first = 40
  case retry = 41
  case backoff = 42
  case serverHint = 43
  case waitLimiter = 44
  case waitBreaker = 45
  case joined = 46
  case promoted = 47

  package init(_ stop: Retry.StopReason) {
    switch stop {
    case .succeeded: self = .succeeded
    case .permanent: self = .failedPermanent
    case .cancelled: self = .cancelled
    case .outcomeUnknown: self = .outcomeUnknown
    case .attemptsExhausted: self = .attemptsExhausted
    case .hintTooLong: self = .hintTooLong
    }
  }

  /// The call ended with something to show for it.
  package var hasResult: Bool {
    switch self {
    case .succeeded, .replayed, .fallbackDefault, .fallbackCached: true
    default: false
    }
  }

  /// Another answer may stand in for the one that is missing: not where the caller gave up or made the
  /// mistake, and not where part of an answer was passed on already.
  package var allowsFallback: Bool {
    switch self {
    case .cancelled, .mismatch, .leaseLost, .committed, .failedPermanent, .neverFits,
      .replayedFailure, .argument:
      false
    default: !hasResult
    }
  }

  package var name: StaticString {
    switch self {
    case .none: "none"
    case .succeeded: "succeeded"
    case .replayed: "replayed"
    case .fallbackDefault: "fallback_default"
    case .fallbackCached: "fallback_cached"
    case .failedPermanent: "failed_permanent"
    case .attemptsExhausted: "attempts_exhausted"
    case .budgetExhausted: "budget_exhausted"
    case .deadline: "deadline"
    case .limited: "limited"
    case .open: "open"
    case .mismatch: "mismatch"
    case .capacity: "capacity"
    case .committed: "committed"
    case .cancelled: "cancelled"
    case .hintTooLong: "hint_too_long"
    case .outcomeUnknown: "outcome_unknown"
    case .neverFits: "never_fits"
    case .queue: "queue"
    case .replayedFailure: "replayed_failure"
    case .noMemory: "no_memory"
    case .leaseLost: "lease_lost"
    case .store: "store"
    case .argument: "argument"
    case .first: "first"
    case .retry: "retry"
    case .backoff: "backoff"
    case .serverHint: "server_hint"
    case .waitLimiter: "wait_limiter"
    case .waitBreaker: "wait_breaker"
    case .joined: "joined"
    case .promoted: "promoted"
    }
  }
}
