/// The parts of a policy, in their order, outermost first.
package enum Component: Int32, BitwiseCopyable {
  case none = 0
  case deadline, idempotency, retry, budget, limiter, breaker, fallback

  package static let count = 8

  /// As it appears in events; ends with NUL like every literal.
  package var name: StaticString {
    switch self {
    case .none: "none"
    case .deadline: "deadline"
    case .idempotency: "idempotency"
    case .retry: "retry"
    case .budget: "budget"
    case .limiter: "limiter"
    case .breaker: "breaker"
    case .fallback: "fallback"
    }
  }
}

/// How far a part is obeyed.
package enum PartMode: Int32, BitwiseCopyable {
  case enforce = 0
  case observe, off
}

/// What a call that was refused or has failed gets instead.
package enum FallbackMode: Int32, BitwiseCopyable {
  case none = 0
  case standard, cached, cachedOrStandard, queue

  package var usesCache: Bool { self == .cached || self == .cachedOrStandard }
  package var usesStandard: Bool { self == .standard || self == .cachedOrStandard }
}
