import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// A store as objects use it: the driver's functions, and the breaker in front of them.
///
/// Every call of the driver goes through `call`, which counts it, refuses it while the store is known
/// to be failing, and makes what the driver says of an error whole.
struct Store: ~Copyable {
  let functions: agr_store_api
  let driver: UnsafeMutableRawPointer?
  let name: StoreName
  let onError: StoreFallback
  let timeout: Int64
  let breaker: Breaker
  let calls = Atomic<UInt64>(0)
  let failures = Atomic<UInt64>(0)
  let refused = Atomic<UInt64>(0)
  let fallbacks = Atomic<UInt64>(0)
  /// Whether the driver goes with the store: not before the caller has the handle.
  let ownsDriver = Atomic<Bool>(false)
  /// Whether the breaker ever refuses.
  private let isGuarded: Bool

  init(
    _ functions: agr_store_api, driver: UnsafeMutableRawPointer?, name: StoreName,
    _ configuration: StoreConfiguration
  ) throws(Failure) {
    self.functions = functions
    self.driver = driver
    self.name = name
    onError = configuration.onError
    timeout = configuration.timeout
    isGuarded = configuration.maxFailures > 0
    breaker = try Breaker(
      configuration.breaker(), seed: processRandom(), permitSeed: processRandom(), now: now())
  }

  deinit {
    if ownsDriver.load(ordering: .relaxed) { functions.destroy?(driver) }
  }

  /// Calls the driver: its status, one of the header's, with an error in `error`. `body` is told how long it may take.
  func call(
    _ error: UnsafeMutablePointer<agr_error>?, _ wait: StoreWait,
    _ body: (Int64, UnsafeMutablePointer<agr_error>) -> agr_status
  ) -> Int {
    guard let answer = try? breaker.acquire(now: now()) else {
      refused.wrappingAdd(1, ordering: .relaxed)
      return fail(error, "max_calls are under way")
    }
    guard case .admitted(let permit) = answer else {
      refused.wrappingAdd(1, ordering: .relaxed)
      return fail(error, "has failed, and is asked again in a moment")
    }
    let status = callUnguarded(error) { body(wait.left, $0) }
    let outcome: CallOutcome
    switch status {
    case 0...: outcome = .success
    case AGR_ERR_STORE where !wait.isHurried: outcome = .failure
    default: outcome = .neutral
    }
    // What is stale was reported while the breaker had moved on, and changes nothing.
    _ = try? breaker.report(permit, outcome, latency: 0, now: now(), processRandom)
    return status
  }

  /// A sign of life, whatever the breaker says, which it then follows.
  func ping(_ timeout: Int64, _ error: UnsafeMutablePointer<agr_error>?) -> Int {
    let status = callUnguarded(error) {
      functions.ping?(driver, timeout, $0) ?? Int32(AGR_ERR_STORE)
    }
    guard status >= 0 else { return status }
    if isGuarded, let state = try? breaker.state(now: now()), state != .closed {
      try? breaker.force(.disabled, now: now())
      try? breaker.force(.automatic, now: now())
    }
    return AGR_OK
  }

  private func callUnguarded(
    _ error: UnsafeMutablePointer<agr_error>?,
    _ body: (UnsafeMutablePointer<agr_error>) -> agr_status
  ) -> Int {
    calls.wrappingAdd(1, ordering: .relaxed)
    var own = agr_error()
    var status = Int(body(&own))
    if status >= 0 && status <= AGR_NOT_FOUND { return status }
    switch status {
    case AGR_ERR_ARGUMENT, AGR_ERR_NO_MEMORY, AGR_ERR_CAPACITY, AGR_ERR_NEVER_FITS: break
    default: status = AGR_ERR_STORE
    }
    if status == AGR_ERR_STORE { failures.wrappingAdd(1, ordering: .relaxed) }
    own.status = ReliabilityABI.status(status)
    own.system_errno = 0
    name.complete(&own)
    error?.pointee = own
    return status
  }

  /// An answer that is out of place: the driver is at fault.
  func fail(_ error: UnsafeMutablePointer<agr_error>?, _ message: StaticString) -> Int {
    var own = agr_error()
    own.status = status(AGR_ERR_STORE)
    withUnsafeMutableBytes(of: &own.message) { copyText(message, $0) }
    name.complete(&own)
    error?.pointee = own
    return AGR_ERR_STORE
  }
}

/// What an object does when its store fails.
enum StoreFallback: Int32 {
  case refuse = 1
  case admit, local
}

struct StoreConfiguration {
  var onError: StoreFallback
  var timeout: Int64
  var maxFailures: UInt32
  var maxCalls: UInt32
  var openTime: Int64
  var openLimit: Int64

  init(_ config: agr_store_config) throws(Failure) {
    guard let onError = StoreFallback(rawValue: config.on_error) else {
      throw .argument("on_error", "must be AGR_STORE_REFUSE, ADMIT or LOCAL")
    }
    guard config.timeout_ns >= 1 && config.timeout_ns <= Time.max else {
      throw .argument("timeout_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard config.max_failures <= 1_000_000 else {
      throw .argument("max_failures", "must be 0 ... 1,000,000")
    }
    guard config.max_calls >= 1 && config.max_calls <= 1 << 20 else {
      throw .argument("max_calls", "must be 1 ... 1,048,576")
    }
    guard config.open_ns >= 1 && config.open_ns <= Time.max else {
      throw .argument("open_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard config.open_max_ns >= config.open_ns && config.open_max_ns <= Time.max else {
      throw .argument("open_max_ns", "must be open_ns ... AGR_TIME_MAX_NS nanoseconds")
    }
    self.onError = onError
    timeout = config.timeout_ns
    maxFailures = config.max_failures
    maxCalls = config.max_calls
    openTime = config.open_ns
    openLimit = config.open_max_ns
  }

  /// The breaker in front of the driver: trips by failures in a row, and probes one at a time.
  func breaker() -> BreakerConfiguration {
    var value = BreakerConfiguration()
    value.window = .none
    value.failureRate = 0
    value.consecutiveFailures = Swift.max(1, maxFailures)
    value.mode = maxFailures == 0 ? .disabled : .automatic
    value.halfOpenPermits = 1
    value.halfOpenSuccesses = 1
    value.maxPermits = maxCalls
    value.openTime = openTime
    value.openLimit = openLimit
    return value
  }
}
