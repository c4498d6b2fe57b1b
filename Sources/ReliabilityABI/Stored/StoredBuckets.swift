import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// The buckets of an object in a store, all of one size and speed.
struct StoredBuckets: ~Copyable {
  let store: Handle<Store>
  let name: SpaceName
  let rate: TokenRate
  let onError: StoreFallback
  let timeout: Int64

  /// A store's largest bucket.
  private static let maximumTokens: Int64 = 1 << 40

  init(
    _ rate: TokenRate, store: Handle<Store>, name: consuming SpaceName, _ options: StoreOptions
  ) throws(Failure) {
    guard store.pointee.functions.take != nil else {
      throw .argument("store", "does not offer buckets")
    }
    guard rate.capacity <= StoredBuckets.maximumTokens else {
      throw .argument("capacity", "must be 1 ... 2^40 tokens in a store")
    }
    guard rate.tokens >= 1 && rate.tokens <= StoredBuckets.maximumTokens else {
      throw .argument("refill_tokens", "must be 1 ... 2^40 tokens in a store")
    }
    self.store = store
    self.name = name
    self.rate = rate
    onError = options.onError ?? store.pointee.onError
    timeout = options.timeout == 0 ? store.pointee.timeout : options.timeout
    retain(store)
  }

  deinit { release(store) }

  struct Key {
    var data: UnsafeRawPointer?
    var length = 0
  }

  enum Answer {
    /// To be used after a wait.
    case granted(taken: Int64, wait: Int64)
    case limited(retryAfter: Int64)
    /// The store does not answer; the status of the error, which was written.
    case unanswered(Int)
    case failed(Int)
  }

  /// How long a call may take, for a caller whose own time is over at `limit`.
  func wait(until limit: Int64 = Time.forever) -> StoreWait { StoreWait(timeout, until: limit) }

  /// Takes at least so many tokens and at the most so many; if the caller can wait, before they are there.
  func take(
    _ key: Key, least: Int64, most: Int64, maxWait: Int64, until wait: StoreWait,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Answer {
    var bucket = bucket(key)
    bucket.tokens = most
    bucket.least = least
    switch call(&bucket, wait, error) {
    case AGR_OK: return .granted(taken: bucket.taken, wait: 0)
    case AGR_LIMITED:
      let retryAfter = Swift.max(1, bucket.retry_after_ns)
      guard maxWait > 0, retryAfter <= maxWait else { return .limited(retryAfter: retryAfter) }
      return takeAhead(key, least, maxWait, wait, error)
    case let status where status == AGR_ERR_STORE: return .unanswered(status)
    case let status: return .failed(status)
    }
  }

  func takeAhead(
    _ key: Key, _ tokens: Int64, _ maxWait: Int64, _ limit: StoreWait,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Answer {
    var bucket = bucket(key)
    bucket.tokens = tokens
    bucket.least = tokens
    bucket.flags = UInt32(AGR_STORE_MAY_OWE)
    let status = call(&bucket, limit, error)
    guard status == AGR_OK else {
      return status == AGR_ERR_STORE ? .unanswered(status) : .failed(status)
    }
    let owed = Swift.max(0, 0 &- bucket.level)
    let wait = refillTime(owed)
    guard wait <= maxWait, owed <= rate.maxDebt else {
      add(0 &- tokens, key, limit)
      return .limited(retryAfter: Swift.max(1, Time.subtract(wait, maxWait)))
    }
    return .granted(taken: tokens, wait: wait)
  }

  /// Takes tokens whether they are there or not, up to the greatest debt; or, below 0, gives them back. What the
  /// store does not hear of is lost.
  func add(_ tokens: Int64, _ key: Key, _ wait: StoreWait) {
    var bucket = bucket(key)
    bucket.tokens = Swift.min(tokens, StoredBuckets.maximumTokens)
    bucket.least = Swift.max(0, bucket.tokens)
    bucket.flags = tokens > 0 ? UInt32(AGR_STORE_MAY_OWE) : 0
    let status = call(&bucket, wait, nil)
    let beyond = 0 &- bucket.level &- rate.maxDebt
    if tokens > 0 && status == AGR_OK && beyond > 0 {
      add(0 &- Swift.min(beyond, tokens), key, wait)
    }
  }

  /// What is in a bucket.
  func level(
    _ key: Key, _ out: UnsafeMutablePointer<Int64>, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var bucket = bucket(key)
    let status = call(&bucket, wait(), error)
    if status == AGR_OK { out.pointee = bucket.level }
    return status
  }

  /// Counts a call that was admitted without the store.
  func countFallback() { store.pointee.fallbacks.wrappingAdd(1, ordering: .relaxed) }

  /// How long it takes until so many tokens flowed in.
  func refillTime(_ tokens: Int64) -> Int64 {
    let time = Double(tokens) * Double(rate.interval) / Double(rate.tokens)
    return time < Double(Time.max) ? platform_truncate(time) &+ 1 : Time.forever
  }

  /// A share of the capacity, of at least one token, and of the rate: for one process, when the store fails.
  static func share(
    of rate: TokenRate, _ share: Double
  ) throws(Failure) -> (capacity: Int64, tokens: Int64, interval: Int64) {
    let interval = Swift.min(
      Time.year, platform_truncate(Double(rate.interval) / Swift.max(share, 1e-6)))
    return (
      Swift.max(1, platform_truncate(Double(rate.capacity) * share)), rate.tokens,
      Swift.max(rate.interval, interval)
    )
  }

  /// The key of the object's only bucket, where it has one.
  var emptyKey: agr_store_key {
    agr_store_key(space: name.base, space_length: name.count, data: nil, length: 0)
  }

  /// A bucket as the store is told of it, taking nothing.
  @inline(never)
  func bucket(_ key: Key) -> agr_store_bucket {
    var bucket = agr_store_bucket()
    bucket.key = agr_store_key(
      space: name.base, space_length: name.count, data: key.data, length: key.length)
    bucket.capacity = rate.capacity
    bucket.refill_tokens = rate.tokens
    bucket.interval_ns = rate.interval
    return bucket
  }

  private func call(
    _ bucket: inout agr_store_bucket, _ wait: StoreWait,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var index: UInt32 = 0
    return call(&bucket, 1, &index, wait, error)
  }

  /// Takes from several as one; which of them had not enough.
  @inline(never)
  func call(
    _ buckets: UnsafeMutablePointer<agr_store_bucket>?, _ count: UInt32, _ refused: inout UInt32,
    _ wait: StoreWait, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    store.pointee.call(error, wait) { timeout, error in
      store.pointee.functions.take?(
        store.pointee.driver, buckets, count, timeout, &refused, error) ?? Int32(AGR_ERR_STORE)
    }
  }
}
