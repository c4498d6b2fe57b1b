import Platform
import ReliabilityCore

/// A policy's configuration, checked.
struct PolicyConfiguration: BitwiseCopyable {
  var parts = PolicyParts()
  var timeouts: Timeouts
  var retry: Retry?
  var maxCalls = 1024
  var maxLimiterWait: Int64 = 0
  var retryWhenOpen = false
  var fallback = FallbackMode.none
  var hasStandardAnswer = false
  var cachedEntries = 0
  var cachedBytes: UInt64 = 0
  var cachedTimeToLive: Int64 = 0
  var eventCapacity = 256
  var observe: UInt32 = 0
  var off: UInt32 = 0
  /// Of the backoff; 0: the process's stream.
  var seed: UInt64 = 0

  /// Whether a part is there at all.
  func has(_ component: Component) -> Bool {
    switch component {
    case .none: false
    case .deadline: true
    case .idempotency: parts.keys != nil
    case .retry: retry != nil
    case .budget: parts.budget != nil
    case .limiter: parts.limiterCount > 0
    case .breaker: parts.breaker != nil
    case .fallback: fallback != .none
    }
  }

  /// Refuses combinations that cannot work, with the reason.
  func validate() throws(Failure) {
    guard maxCalls >= 1 && maxCalls <= 65_536 else {
      throw .argument("max_calls", "must be 1 ... 65,536")
    }
    guard parts.budget == nil || retry != nil else {
      throw .argument("budget", "needs retry: without it nothing would be paid from it")
    }
    for index in 0..<parts.limiterCount {
      let stored = parts.limiters[index]?.stored
      let store = parts.limiters[0]?.stored?.pointee.buckets.store
      guard stored?.pointee.buckets.store == store else {
        throw .argument("limiters", "must all be in one store, or none of them")
      }
      for other in 0..<index where parts.limiters[other]?.engine == parts.limiters[index]?.engine {
        throw .argument("limiters", "must not name the same limiter twice")
      }
    }
    guard parts.canLimitersJoin else {
      throw .argument("limiters", PolicyConfiguration.spread)
    }
    try requireTimeOrForever(maxLimiterWait, "max_limiter_wait_ns")
    guard maxLimiterWait == 0 || parts.limiterCount > 0 else {
      throw .argument("max_limiter_wait_ns", "needs a limiter to wait for")
    }
    guard !retryWhenOpen || (parts.breaker != nil && retry != nil) else {
      throw .argument("retry_when_open", "needs a breaker and retry")
    }
    guard cachedEntries >= 0 && cachedEntries <= 1 << 20 else {
      throw .argument("cached_entries", "must be 0 ... 2^20")
    }
    guard cachedEntries == 0 || (cachedBytes >= 1 && cachedBytes <= 1 << 50) else {
      throw .argument("cached_bytes", "must be 1 ... 2^50")
    }
    guard cachedEntries == 0 || (cachedTimeToLive >= 1 && cachedTimeToLive <= Time.max) else {
      throw .argument("cached_ttl_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard
      eventCapacity >= 16 && eventCapacity <= 65_536
        && eventCapacity & (eventCapacity &- 1) == 0
    else { throw .argument("event_capacity", "must be a power of two, 16 ... 65,536") }
    try requireAnswer(for: fallback)
    try requireParts(observe, "observe")
    try requireParts(off, "off")
    guard observe & off == 0 else {
      throw .argument("observe", "must not name a part that is off")
    }
    guard observe & 1 &<< UInt32(Component.fallback.rawValue) == 0 else {
      throw .argument("observe", "a fallback cannot be observed: it refuses nobody")
    }
  }

  /// Why limiters in a store cannot be taken from as one.
  static let spread: StaticString =
    "are in different slots of the store's cluster: their names must share a {tag}, as a{x} and b{x}"

  /// A fallback needs what it would give.
  func requireAnswer(for mode: FallbackMode) throws(Failure) {
    guard !mode.usesCache || cachedEntries > 0 else {
      throw .argument("fallback", "CACHED needs cached_entries")
    }
    guard !mode.usesStandard || hasStandardAnswer else {
      throw .argument("fallback", "DEFAULT needs fallback_data")
    }
  }

  private func requireParts(_ mask: UInt32, _ field: StaticString) throws(Failure) {
    for bit in 0..<32 where mask & 1 &<< UInt32(bit) != 0 {
      guard let component = Component(rawValue: Int32(bit)), component != .none else {
        throw .argument(field, "names a part that does not exist")
      }
      guard component != .deadline else {
        throw .argument(field, "the deadline is always enforced")
      }
      guard has(component) else { throw .argument(field, "names a part that is not there") }
    }
  }

  /// Refuses another order than the one in which the parts work.
  func requireOrder(_ order: (Int) -> Int32, count: Int) throws(Failure) {
    guard count <= Component.count else { throw .argument("order_count", "must be 0 ... 8") }
    guard count > 0 else { return }
    var last = Component.none
    var named: UInt32 = 0
    for index in 0..<count {
      guard let component = Component(rawValue: order(index)), component != .none else {
        throw .argument("order", "names a part that does not exist")
      }
      guard has(component) else { throw .argument("order", "names a part that is not there") }
      guard component.rawValue > last.rawValue else {
        throw .argument("order", PolicyConfiguration.misplaced(component))
      }
      last = component
      named |= 1 &<< UInt32(component.rawValue)
    }
    for value in 2..<Int32(Component.count) {
      guard let component = Component(rawValue: value), has(component) else { continue }
      guard named & 1 &<< UInt32(value) != 0 else {
        throw .argument("order", "leaves out a part that is there")
      }
    }
  }

  /// Why a part cannot stand behind the one before it.
  private static func misplaced(_ component: Component) -> StaticString {
    switch component {
    case .none, .deadline: "the deadline is outermost: it covers every attempt and wait"
    case .idempotency: "idempotency is outside retry: a key is executed once, however many attempts"
    case .retry: "retry is outside limiter and breaker: each attempt asks them anew"
    case .budget: "the budget belongs to retry, outside limiter and breaker"
    case .limiter: "the limiter is outside the breaker: a wait for tokens must not hold its permit"
    case .breaker: "the breaker is inside everything but fallback: it sees single attempts"
    case .fallback: "fallback comes last, once nothing else is left"
    }
  }
}
