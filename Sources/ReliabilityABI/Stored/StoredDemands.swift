import CAutoGLMReliability
import Platform
import ReliabilityCore

/// Several limiters of one store, taken from as one by one call of it. What this process has leased is not
/// looked at, and nothing is leased.
struct StoredDemands {
  private let count: Int
  private var limiters = InlineArray<4, Handle<StoredLimiter>?>(repeating: nil)
  private var tokens = InlineArray<4, Int64>(repeating: 0)
  /// What the store is asked for: none of a limiter that only observes and has refused.
  private var asked = InlineArray<4, Int64>(repeating: 0)
  private var buckets = InlineArray<4, agr_store_bucket>(repeating: agr_store_bucket())
  /// When the caller's own time is over, on the system's clock.
  private var limit = Time.forever
  /// The demand that was refused, or that an error is about; else `count`.
  private(set) var place: Int
  private(set) var retryAfter: Int64 = 0

  /// `nil` when the first is in no store. The rest is checked here.
  @inline(never)
  init?(
    _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32
  ) throws(Failure) {
    guard let demands, count >= 1, count <= 4, let first = storedLimiter(demands[0].limiter) else {
      return nil
    }
    self.count = Int(count)
    place = Int(count)
    for index in 0..<4 where index < self.count {
      let demand = demands[index]
      guard let limiter = storedLimiter(demand.limiter),
        limiter.pointee.buckets.store == first.pointee.buckets.store
      else { throw .argument("demands.limiter", "must all be in one store, or none of them") }
      guard demand.tokens >= 0 && demand.tokens <= TokenRate.maximumTokens else {
        throw .argument("demands.tokens", "must be 0 ... 2^50")
      }
      for other in 0..<4 where other < index && limiters[unchecked: other] == limiter {
        throw .argument("demands.limiter", "must not name the same limiter twice")
      }
      limiters[unchecked: index] = limiter
      tokens[unchecked: index] = demand.tokens
      asked[unchecked: index] = demand.tokens
      if demand.tokens > limiter.pointee.buckets.rate.capacity { place = Swift.min(place, index) }
    }
  }

  /// The limiters of a policy, which has checked them.
  init(
    _ parts: InlineArray<4, LimiterPart?>, _ costs: InlineArray<4, Int64>, until limit: Int64
  ) {
    self.limit = limit
    var known = 0
    place = 4
    for index in 0..<4 {
      guard let limiter = parts[unchecked: index]?.stored else { break }
      known = index &+ 1
      limiters[unchecked: index] = limiter
      tokens[unchecked: index] = costs[unchecked: index]
      asked[unchecked: index] = costs[unchecked: index]
      if costs[unchecked: index] > limiter.pointee.buckets.rate.capacity {
        place = Swift.min(place, index)
      }
    }
    count = known
    place = Swift.min(place, known)
  }

  /// Takes all or none.
  @inline(never)
  mutating func take(_ error: UnsafeMutablePointer<agr_error>?) throws(Failure) -> Int {
    guard place == count else { throw Failure(.neverFits, "tokens", "more than the capacity") }
    let status = ask(maxWait: 0, error)
    return status == AGR_ERR_STORE ? try goOnWithout(status) : status
  }

  /// Takes all or none, if need be before the tokens are there, and reserves them in this process.
  @inline(never)
  mutating func reserve(
    _ out: UnsafeMutablePointer<agr_reservation>, maxWait: Int64, now: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try requireTimeOrForever(maxWait, "max_wait_ns")
    guard place == count else { throw Failure(.neverFits, "tokens", "more than the capacity") }
    var status = ask(maxWait: maxWait, error)
    if status == AGR_ERR_STORE { status = try goOnWithout(status) }
    guard status == AGR_OK else { return status }
    for index in 0..<4 where index < count {
      guard let limiter = limiters[unchecked: index] else { continue }
      let owed = Swift.max(0, 0 &- buckets[unchecked: index].level)
      let wait = limiter.pointee.buckets.refillTime(owed)
      out[index].wait_ns = asked[unchecked: index] > 0 && owed > 0 ? wait : 0
      if out[index].wait_ns > maxWait || owed > limiter.pointee.buckets.rate.maxDebt {
        place = index
        retryAfter = Swift.max(1, Time.subtract(wait, maxWait))
        giveBack(from: 0)
        _ = limiter.pointee.refuse(retryAfter)
        return AGR_LIMITED
      }
    }
    return try keep(out, now)
  }

  /// Makes reservations of what was taken.
  private mutating func keep(
    _ out: UnsafeMutablePointer<agr_reservation>, _ now: Int64
  ) throws(Failure) -> Int {
    for index in 0..<4 where index < count {
      guard let limiter = limiters[unchecked: index] else { continue }
      do throws(Failure) {
        out[index].permit = try limiter.pointee.keep(
          asked[unchecked: index], now: now, until: limit)
        out[index].tokens = tokens[unchecked: index]
      } catch {
        place = index
        for earlier in 0..<4 where earlier < index {
          _ = try? limiters[unchecked: earlier]?.pointee.settle(
            out[earlier].permit, actual: 0, now: now, until: limit)
        }
        giveBack(from: index &+ 1)
        throw error
      }
    }
    return AGR_OK
  }

  func tell(_ index: UnsafeMutablePointer<UInt32>?, _ wait: UnsafeMutablePointer<Int64>?) {
    index?.pointee = UInt32(truncatingIfNeeded: place)
    wait?.pointee = retryAfter
  }

  private func giveBack(from start: Int) {
    for index in 0..<4 where index >= start && index < count && asked[unchecked: index] > 0 {
      guard let limiter = limiters[unchecked: index] else { continue }
      limiter.pointee.buckets.add(
        0 &- asked[unchecked: index], StoredBuckets.Key(),
        limiter.pointee.buckets.wait(until: limit))
    }
  }

  /// Whether the refusal stands: of a limiter that only observes it is counted, and the others are asked again.
  private mutating func refuses() -> Bool {
    guard let limiter = limiters[unchecked: place & 3] else { return true }
    _ = limiter.pointee.refuse(retryAfter)
    if !limiter.pointee.isObserved { return true }
    asked[unchecked: place & 3] = 0
    (place, retryAfter) = (count, 0)
    return false
  }

  /// Each goes on without the store as it is configured.
  private mutating func goOnWithout(_ status: Int) throws(Failure) -> Int {
    for index in 0..<4 where limiters[unchecked: index]?.pointee.buckets.onError == .refuse {
      return status
    }
    for index in 0..<4 where index < count {
      guard let limiter = limiters[unchecked: index] else { continue }
      if case .limited(let wait) = try limiter.pointee.goOnWithout(
        tokens[unchecked: index], status), !limiter.pointee.isObserved
      {
        (place, retryAfter) = (index, wait)
        return AGR_LIMITED
      }
      asked[unchecked: index] = 0
    }
    return AGR_OK
  }

  /// Asks until the answer stands: once more for each that only observes, and once for a wait.
  private mutating func ask(
    maxWait: Int64, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    guard let first = limiters[unchecked: 0] else { return AGR_ERR_STATE }
    let wait = first.pointee.buckets.wait(until: limit)
    var flags: UInt32 = 0
    for _ in 0..<6 {
      let status = askOnce(flags, wait, error)
      guard status == AGR_LIMITED else { return status }
      if maxWait > 0 && retryAfter <= maxWait {
        flags = UInt32(AGR_STORE_MAY_OWE)
      } else if refuses() {
        return status
      }
    }
    return first.pointee.buckets.store.pointee.fail(error, "refuses what it may owe")
  }

  private mutating func askOnce(
    _ flags: UInt32, _ wait: StoreWait, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    for index in 0..<4 where index < count {
      guard let limiter = limiters[unchecked: index] else { continue }
      var bucket = limiter.pointee.buckets.bucket(StoredBuckets.Key())
      bucket.tokens = asked[unchecked: index]
      bucket.least = bucket.tokens
      bucket.flags = flags
      buckets[unchecked: index] = bucket
    }
    guard let first = limiters[unchecked: 0] else { return AGR_ERR_STATE }
    var refused: UInt32 = 0
    let number = UInt32(truncatingIfNeeded: count)
    let status = withUnsafeMutableBytes(of: &buckets) { raw in
      first.pointee.buckets.call(
        raw.baseAddress?.assumingMemoryBound(to: agr_store_bucket.self), number, &refused,
        wait, error)
    }
    place = count
    switch status {
    case AGR_LIMITED:
      place = Swift.min(Int(refused), count &- 1)
      retryAfter = Swift.max(1, buckets[unchecked: place & 3].retry_after_ns)
    case AGR_ERR_ARGUMENT:
      // Of the driver's arguments only the limiters were the caller's choice.
      guard let error else { break }
      withUnsafeMutableBytes(of: &error.pointee.field) { copyText("demands.limiter", $0) }
    default: break
    }
    return status
  }
}

/// `agr_limiter_try_acquire_all` of limiters that are none of this process or of a region; when they are in no
/// store either, that is the failure.
@inline(never)
func acquireAllInStore(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32,
  _ index: UnsafeMutablePointer<UInt32>?, _ retryAfter: UnsafeMutablePointer<Int64>?,
  _ error: UnsafeMutablePointer<agr_error>?, else failure: Failure
) throws(Failure) -> Int {
  guard var stored = try StoredDemands(demands, count) else { throw failure }
  defer { stored.tell(index, retryAfter) }
  return try stored.take(error)
}

/// The same of `agr_limiter_reserve_all`.
@inline(never)
func reserveAllInStore(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32, _ maxWait: Int64, _ now: Int64,
  _ out: UnsafeMutablePointer<agr_reservation>, _ index: UnsafeMutablePointer<UInt32>?,
  _ retryAfter: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?,
  else failure: Failure
) throws(Failure) -> Int {
  guard var stored = try StoredDemands(demands, count) else { throw failure }
  let none = { for place in 0..<4 where place < Int(count) { out[place] = agr_reservation() } }
  none()
  var status = Int(AGR_ERR_STATE)
  defer {
    if status != AGR_OK { none() }
    stored.tell(index, retryAfter)
  }
  status = try stored.reserve(out, maxWait: maxWait, now: now, error)
  return status
}
