import CAutoGLMReliability
import Platform
import ReliabilityCore

/// Locks or semaphores in a store. Nothing of a hold is kept here: its owner has it.
struct StoredLock: ~Copyable {
  private let store: Handle<Store>
  private let name: SpaceName
  private let limit: UInt32
  private let time: Int64
  private let timeout: Int64

  private static let longestKey = 1 << 20

  init(
    store: Handle<Store>, name: consuming SpaceName, limit: UInt32, time: Int64,
    _ options: StoreOptions
  ) throws(Failure) {
    guard store.pointee.functions.acquire != nil else {
      throw .argument("store", "does not offer leases")
    }
    guard limit >= 1 && limit <= 1 << 20 else {
      throw .argument("limit", "must be 1 ... 1,048,576")
    }
    guard time >= Time.millisecond && time <= Time.max else {
      throw .argument("ttl_ns", "must be 1 ms ... AGR_TIME_MAX_NS nanoseconds")
    }
    self.store = store
    self.name = name
    self.limit = limit
    self.time = time
    timeout = options.timeout == 0 ? store.pointee.timeout : options.timeout
    retain(store)
  }

  deinit { ReliabilityABI.release(store) }

  /// A key as a caller gave it.
  func key(_ data: UnsafeRawPointer?, _ length: Int) throws(Failure) -> agr_store_key {
    guard length >= 0 && length <= StoredLock.longestKey else {
      throw .argument("key_length", "must be 0 ... 1,048,576")
    }
    guard data != nil || length == 0 else { throw .argument("key", "must not be NULL") }
    return agr_store_key(
      space: name.base, space_length: name.count, data: data, length: length)
  }

  /// Asks once, or twice if it is not known what became of the first call.
  func tryAcquire(
    _ key: agr_store_key, _ owner: (UInt64, UInt64), within most: Int64,
    _ hold: UnsafeMutablePointer<agr_lock_hold>, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var lease = lease(key, owner)
    var fence: UInt64 = 0
    var wait: Int64 = 0
    let start = systemNow()
    let status = ask(error, StoreWait(Swift.min(most, timeout))) { left, error in
      store.pointee.functions.acquire?(
        store.pointee.driver, &lease, left, &fence, &wait, error) ?? Int32(AGR_ERR_STORE)
    }
    if status == AGR_OK {
      hold.pointee = agr_lock_hold(
        owner: owner, fence: fence, until_ns: Time.add(start, time))
    } else if status == AGR_LIMITED {
      retryAfter?.pointee = Swift.max(1, wait)
    }
    return status
  }

  /// Asks until it is the owner's, or the time is over.
  func acquire(
    _ key: agr_store_key, timeout: Int64, _ hold: UnsafeMutablePointer<agr_lock_hold>,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    let owner = StoredLock.newOwner()
    let deadline = Time.add(systemNow(), timeout)
    var pause = Time.millisecond
    while true {
      var retryAfter: Int64 = 0
      let start = systemNow()
      let left = timeout == 0 ? Time.max : Swift.max(1, Time.subtract(deadline, start))
      let status = tryAcquire(key, owner, within: left, hold, &retryAfter, error)
      guard status == AGR_LIMITED else { return status }
      let now = systemNow()
      // Half of the pause by chance, so that those who wait do not come together.
      let chance = platform_truncate(unitInterval(processRandom()) * Double(pause / 2))
      let next = Time.add(now, Swift.min(pause &- chance, retryAfter))
      // What is asked too late for its answer may be granted, and nobody would know.
      guard Time.add(next, 2 &* (now &- start) &+ Time.millisecond) < deadline else {
        platform_sleep_until_ns(deadline)
        return AGR_LIMITED
      }
      platform_sleep_until_ns(next)
      pause = Swift.min(pause &* 2, 250 * Time.millisecond)
    }
  }

  func renew(
    _ key: agr_store_key, _ hold: UnsafeMutablePointer<agr_lock_hold>,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var lease = lease(key, hold.pointee.owner)
    let start = systemNow()
    let status = ask(error, StoreWait(timeout)) { left, error in
      store.pointee.functions.extend?(store.pointee.driver, &lease, left, error)
        ?? Int32(AGR_ERR_STORE)
    }
    if status == AGR_OK { hold.pointee.until_ns = Time.add(start, time) }
    return status
  }

  /// A first call whose answer was lost may have ended the hold: then the second finds none, and both are one.
  func release(
    _ key: agr_store_key, _ owner: (UInt64, UInt64), _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var lease = lease(key, owner)
    var calls = 0
    let status = ask(error, StoreWait(timeout)) { left, error in
      calls &+= 1
      return store.pointee.functions.release?(store.pointee.driver, &lease, left, error)
        ?? Int32(AGR_ERR_STORE)
    }
    return status == AGR_STALE && calls > 1 ? AGR_OK : status
  }

  static func newOwner() -> (UInt64, UInt64) { (processRandom() | 1, processRandom()) }

  private func lease(_ key: agr_store_key, _ owner: (UInt64, UInt64)) -> agr_store_lease {
    agr_store_lease(key: key, owner: owner, limit: limit, reserved: 0, ttl_ns: time)
  }

  private func ask(
    _ error: UnsafeMutablePointer<agr_error>?, _ wait: StoreWait,
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
}
