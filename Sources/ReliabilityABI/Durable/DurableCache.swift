import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

/// An idempotency cache whose keys lie in a store. In front is a cache of this process, where its callers
/// meet and results are replayed from memory; whoever is given a lease there asks the store before going on.
struct DurableCache: ~Copyable {
  /// First, so that a handle of this is one of the cache as well.
  let cache: IdempotencyCache
  let store: Handle<Store>
  let name: SpaceName
  let onError: StoreFallback
  let timeout: Int64
  let maxResultBytes: Int
  private let runs: Slab<DurableRun>

  init(
    _ configuration: IdempotencyConfiguration, store: Handle<Store>, name: consuming SpaceName,
    _ options: StoreOptions, hashSeed: UInt64
  ) throws(Failure) {
    guard store.pointee.functions.begin != nil else {
      throw .argument("store", "does not offer idempotency")
    }
    let count = configuration.shardCount &* configuration.slotsPerShard
    let runs = try Slab<DurableRun>(count: count)
    cache = try IdempotencyCache(configuration, hashSeed: hashSeed, random: processRandom())
    self.runs = runs
    self.name = name
    self.store = store
    onError = options.onError ?? store.pointee.onError
    timeout = options.timeout == 0 ? store.pointee.timeout : options.timeout
    maxResultBytes = options.maxResultBytes
    retain(store)
  }

  deinit { release(store) }

  /// The cache in front.
  static func front(_ durable: Handle<DurableCache>) -> Handle<IdempotencyCache> {
    UnsafeMutableRawPointer(durable).assumingMemoryBound(to: IdempotencyCache.self)
  }

  // MARK: - Runs

  private func place(_ lease: UInt64) -> Int {
    IdempotencyLease.shard(of: lease) &* cache.shared.configuration.slotsPerShard
      &+ IdempotencyShard.place(of: lease)
  }

  /// What is known of the run of a lease that is good; the key is a copy, to be freed.
  func run(
    of lease: UInt64, now: Int64
  ) throws(Failure) -> (run: DurableRun, key: UnsafeMutableRawBufferPointer)? {
    let time = try cache.time(now)
    guard let number = cache.shard(of: lease) else { return nil }
    var isLost = false
    var run = DurableRun()
    let key = cache.under(number) { shard, shared -> UnsafeMutableRawBufferPointer? in
      guard let key = shard.key(of: lease, now: time, shared), let from = key.baseAddress else {
        isLost = true
        return nil
      }
      run = runs[place(lease)]
      guard let copy = platform_allocate_block(key.count) else { return nil }
      memcpy(copy, from, key.count)
      return UnsafeMutableRawBufferPointer(start: copy, count: key.count)
    }
    if isLost { return nil }
    guard let key else { throw .noMemory }
    return (run, key)
  }

  /// The fence of the run that was lost before this one; 0: none was; `nil`: the lease is stale.
  func lostFence(of lease: UInt64, now: Int64) throws(Failure) -> UInt64? {
    let time = try cache.time(now)
    guard let number = cache.shard(of: lease) else { return nil }
    return cache.under(number) { shard, shared in
      shard.key(of: lease, now: time, shared) == nil ? nil : runs[place(lease)].lostFence
    }
  }

  /// Notes what the store said of a run; says `false` when its lease is lost. With a ticket that was kept for it,
  /// this ends, and `nil` is said when it had ended before.
  func note(
    _ lease: UInt64, _ run: DurableRun, ticket: UInt64, now: Int64
  ) throws(Failure) -> Bool? {
    let time = try cache.time(now)
    guard let number = cache.shard(of: lease) else { return false }
    var attachment: Int32 = 0
    defer { IdempotencyCache.close(attachment) }
    return cache.under(number) { shard, shared -> Bool? in
      guard shard.key(of: lease, now: time, shared) != nil else { return false }
      runs[place(lease)] = run
      guard ticket != 0 else { return true }
      return shard.finish(ticket, shared, attachment: &attachment) ? true : nil
    }
  }

  /// Gives way to a run elsewhere, for as long as `time`; the ticket of whoever joins, or 0.
  func giveWay(
    _ lease: UInt64, _ run: DurableRun, for time: Int64, joins: Bool, now: Int64
  ) throws(Failure) -> UInt64 {
    let present = try cache.time(now)
    guard let number = cache.shard(of: lease) else { return 0 }
    do throws(Shortage) {
      return try cache.under(number) { shard, shared throws(Shortage) in
        if shard.key(of: lease, now: present, shared) != nil { runs[place(lease)] = run }
        return try shard.giveWay(lease, for: time, joins: joins, now: present, shared) ?? 0
      }
    } catch { throw cache.refuse(error) }
  }

  // MARK: - The store

  /// Calls a function of the driver, and once more when it is not known what became of the first call. With
  /// an error, `error` is written.
  func ask(
    _ error: UnsafeMutablePointer<agr_error>, _ wait: StoreWait,
    _ body: (Int64, UnsafeMutablePointer<agr_error>) -> agr_status
  ) -> Int {
    var status = AGR_ERR_STORE
    for attempt in 0..<2 {
      if attempt > 0 && wait.isOver { break }
      status = store.pointee.call(error, wait, body)
      if status != AGR_ERR_STORE { break }
    }
    return status
  }

  /// Ends a run in the store without a result.
  func giveBack(
    _ key: agr_store_key, _ fence: UInt64, outcomeUnknown: Bool, _ wait: StoreWait,
    _ error: UnsafeMutablePointer<agr_error>
  ) -> Int {
    var key = key
    let ttl = cache.shared.configuration.timeToLive
    return ask(error, wait) { timeout, error in
      store.pointee.functions.give_back?(
        store.pointee.driver, &key, fence, outcomeUnknown ? 1 : 0, ttl, timeout, error)
        ?? Int32(AGR_ERR_STORE)
    }
  }

  func storeKey(_ key: UnsafeMutableRawBufferPointer) -> agr_store_key {
    agr_store_key(
      space: name.base, space_length: name.count, data: UnsafeRawPointer(key.baseAddress),
      length: key.count)
  }
}

/// What is known of a run that has a lease.
struct DurableRun: BitwiseCopyable {
  enum Place: UInt32, BitwiseCopyable {
    case store, nowhere, local
  }

  /// Of the store; 0: the run is not in it.
  var fence: UInt64 = 0
  /// Of a run of the key that was lost.
  var lostFence: UInt64 = 0
  var print: (UInt64, UInt64) = (0, 0)
  var place = Place.store
  /// How often the store was asked what another's run has become.
  var polls: UInt32 = 0
}

/// How an object lies in a store.
struct StoreOptions {
  /// `nil`: as the store says.
  let onError: StoreFallback?
  let timeout: Int64
  let maxResultBytes: Int
  let localShare: Double
  let leaseTokens: Int64
  let syncTime: Int64

  init(_ options: agr_store_options) throws(Failure) {
    onError = StoreFallback(rawValue: options.on_error)
    guard onError != nil || options.on_error == AGR_STORE_DEFAULT else {
      throw .argument("on_error", "must be AGR_STORE_DEFAULT, REFUSE, ADMIT or LOCAL")
    }
    guard options.timeout_ns >= 0 && options.timeout_ns <= Time.max else {
      throw .argument("timeout_ns", "must be 0 ... AGR_TIME_MAX_NS nanoseconds")
    }
    guard options.max_result_bytes <= 1 << 30 else {
      throw .argument("max_result_bytes", "must be 0 ... 2^30")
    }
    guard options.local_share > 0 && options.local_share <= 1 else {
      throw .argument("local_share", "must be above 0 ... 1")
    }
    guard options.lease_tokens >= 0 && options.lease_tokens <= 1 << 40 else {
      throw .argument("lease_tokens", "must be 0 ... 2^40")
    }
    guard options.sync_ns >= Time.millisecond && options.sync_ns <= 3600 * Time.second else {
      throw .argument("sync_ns", "must be 1 ms ... 1 h")
    }
    leaseTokens = options.lease_tokens
    syncTime = options.sync_ns
    timeout = options.timeout_ns
    maxResultBytes = Int(options.max_result_bytes)
    localShare = options.local_share
  }
}
