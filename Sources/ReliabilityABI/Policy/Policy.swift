import Platform
import ReliabilityCore
import Synchronization

/// The composition: it decides what a call does next, and never acts itself.
///
/// A call goes through `begin`, then `advance` for each outcome and each wait that ended, until its step
/// is done. The stages of an attempt are in `Policy+Attempt`, what follows from an outcome in
/// `Policy+Outcome`, and the ends in `Policy+Finish`.
struct Policy: ~Copyable {
  let configuration: PolicyConfiguration
  /// Whether a step may wait for a store.
  let waits: Bool
  let rules: Slab<RetryRule>
  let ruleCount: Int
  let pool: CallPool
  let events: EventRing
  private let eventMemory: Block
  let answers: AnswerCache
  let standardAnswer: UnsafeMutableRawPointer?
  let standardAnswerLength: Int
  /// Two bits a part: its mode.
  let modes: Atomic<UInt32>
  let fallback: Atomic<Int32>
  let draws: Atomic<UInt64>

  enum Counter: Int {
    case calls = 0
    case attempts, retries, succeeded, replayed, joined, fallbacks, failed
    case refusedLimiter, refusedBreaker, refusedBudget, refusedDeadline, refusedOther
    case abandoned, observed, backoff
  }

  /// Copies the rules and the standard answer, and retains the parts.
  init(
    _ configuration: PolicyConfiguration, rules source: (Int) throws(Failure) -> RetryRule,
    ruleCount: Int, standardAnswer answer: UnsafeRawPointer?, _ length: Int
  ) throws(Failure) {
    let rules = try Slab<RetryRule>(count: Swift.max(1, ruleCount))
    for index in 0..<ruleCount { rules[index] = try source(index) }
    let pool = try CallPool(limit: configuration.maxCalls)
    let eventMemory = try Block(
      words: EventRing.wordCount(
        capacity: configuration.eventCapacity, recordWords: CallEvent.wordCount))
    let answers = try AnswerCache(configuration)
    var copy: UnsafeMutableRawPointer?
    if let answer {
      guard let memory = platform_allocate(Swift.max(1, length)) else { throw .noMemory }
      memcpy(memory, answer, length)
      copy = memory
    }
    self.configuration = configuration
    waits = configuration.parts.areAnyStored
    self.rules = rules
    self.ruleCount = ruleCount
    self.pool = pool
    events = EventRing(
      capacity: configuration.eventCapacity, recordWords: CallEvent.wordCount, eventMemory.words)
    self.eventMemory = eventMemory
    self.answers = answers
    standardAnswer = copy
    standardAnswerLength = length
    var modes: UInt32 = 0
    for bit in 0..<UInt32(Component.count) {
      if configuration.observe & 1 &<< bit != 0 { modes |= 1 &<< (bit &* 2) }
      if configuration.off & 1 &<< bit != 0 { modes |= 2 &<< (bit &* 2) }
    }
    self.modes = Atomic(modes)
    fallback = Atomic(configuration.fallback.rawValue)
    draws = Atomic(0)
    configuration.parts.retainAll()
  }

  deinit {
    configuration.parts.releaseAll()
    platform_free(standardAnswer)
  }

  // MARK: - Modes

  @inline(__always)
  func mode(_ component: Component) -> PartMode {
    let bits = modes.load(ordering: .relaxed) &>> UInt32(component.rawValue &* 2) & 3
    return bits == 0 ? .enforce : bits == 1 ? .observe : .off
  }

  func setMode(_ component: Component, _ mode: PartMode) throws(Failure) {
    guard component != .none else {
      throw .argument("component", "must be AGR_COMPONENT_DEADLINE ... FALLBACK")
    }
    guard configuration.has(component) || component == .fallback else {
      throw .argument("component", "the policy has no such part")
    }
    guard component != .deadline || mode == .enforce else {
      throw .argument("mode", "the deadline is always enforced")
    }
    guard component != .fallback || mode != .observe else {
      throw .argument("mode", "a fallback cannot be observed: it refuses nobody")
    }
    let shift = UInt32(component.rawValue &* 2)
    while true {
      let old = modes.load(ordering: .relaxed)
      let new = old & ~(3 &<< shift) | UInt32(bitPattern: mode.rawValue) &<< shift
      if modes.compareExchange(expected: old, desired: new, ordering: .relaxed).exchanged { return }
    }
  }

  func setFallback(_ mode: FallbackMode) throws(Failure) {
    try configuration.requireAnswer(for: mode)
    fallback.store(mode.rawValue, ordering: .relaxed)
  }

  // MARK: - Counting

  @inline(__always)
  func count(_ call: Handle<Call>, _ counter: Counter, _ amount: UInt64 = 1) {
    CallPool.count(call, counter.rawValue, amount)
  }

  /// A record of what happened to a call.
  @inline(__always)
  func note(_ call: Handle<Call>, _ kind: CallEvent.Kind, _ change: (inout CallEvent) -> Void) {
    var event = CallEvent()
    event.kind = kind.rawValue
    event.call = call.pointee.id
    event.attempt = call.pointee.attempt
    event.priority = call.pointee.priority
    event.time = call.pointee.now
    event.trace = call.pointee.trace
    change(&event)
    events.append(event.words)
  }

  /// 64 random bits for a backoff.
  func random() -> UInt64 {
    guard configuration.seed != 0 else { return processRandom() }
    let draw = draws.wrappingAdd(1, ordering: .relaxed).newValue
    return SplitMix64.mix(configuration.seed &+ draw &* SplitMix64.increment)
  }
}
