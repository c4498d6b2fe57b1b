import CAutoGLMReliability
import CRedis
import Platform

// Buckets, leases, the state of breakers.

extension Store {
  func take(
    _ buckets: UnsafeMutablePointer<agr_store_bucket>, _ count: Int, _ timeout: Int64,
    _ refused: UnsafeMutablePointer<UInt32>?, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(
      count == 1 ? .takeOne : .take, buckets[0].key, keys: count, isRepeatable: false)
    for index in 0..<count {
      let bucket = buckets[index]
      let owes = bucket.flags & UInt32(AGR_STORE_MAY_OWE) != 0
      guard owes || bucket.least <= bucket.capacity else {
        return fail(error, AGR_ERR_NEVER_FITS, "more than the capacity", field: "least")
      }
      call.key(self, "bucket", bucket.key)
    }
    for index in 0..<count {
      let bucket = buckets[index]
      var numbers: InlineArray<6, UInt64> = [
        Double(bucket.capacity).bitPattern, Double(bucket.refill_tokens).bitPattern,
        (Double(bucket.interval_ns) / 1000).bitPattern, Double(bucket.tokens).bitPattern,
        Double(bucket.least).bitPattern,
        Double(bucket.flags & UInt32(AGR_STORE_MAY_OWE)).bitPattern,
      ]
      call.argument(&numbers, 48)
    }
    return run(call, timeout, error) { reply in
      guard let numbers = Doubles(reply, 2 &+ count &* 3), numbers.isStatus else {
        return garbled(error)
      }
      for index in 0..<count {
        buckets[index].taken = numbers.whole(2 &+ index &* 3)
        buckets[index].level = numbers.whole(3 &+ index &* 3)
        buckets[index].retry_after_ns = numbers.duration(4 &+ index &* 3)
      }
      refused?.pointee = UInt32(truncatingIfNeeded: numbers.whole(1))
      return numbers.whole(0) == 0 ? AGR_OK : AGR_LIMITED
    }
  }

  // MARK: - Leases

  private func leaseCall(
    _ script: Script, _ lease: borrowing agr_store_lease
  ) -> Call {
    var call = Call(script, lease.key, keys: 3)
    call.key(self, "lease", lease.key)
    call.key(self, "leasefence", lease.key)
    call.key(self, "fence", lease.key, false)
    var owner = lease.owner
    call.argument(&owner, 16)
    call.argument(Int64(lease.limit))
    call.argument(duration: lease.ttl_ns)
    return call
  }

  func acquire(
    _ lease: borrowing agr_store_lease, _ timeout: Int64, _ fence: UnsafeMutablePointer<UInt64>?,
    _ retryAfter: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    let call = leaseCall(.acquire, lease)
    return run(call, timeout, error) { status, reply in
      switch status {
      case AGR_OK:
        guard let number = reply.integer(1), number > 0 else { return garbled(error) }
        fence?.pointee = UInt64(number)
      case AGR_LIMITED: retryAfter?.pointee = max(1, reply.duration(1))
      default: return garbled(error)
      }
      return status
    }
  }

  func change(
    _ script: Script, _ lease: borrowing agr_store_lease, _ timeout: Int64,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    let call = leaseCall(script, lease)
    return run(call, timeout, error) { status, _ in answer(status, or: AGR_STALE, error) }
  }

  // MARK: - Breaker state

  func readBreaker(
    _ key: agr_store_key, _ timeout: Int64, _ out: UnsafeMutablePointer<agr_store_breaker>,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.breakerRead, key, keys: 1)
    call.key(self, "breaker", key)
    return run(call, timeout, error) { status, reply in
      breaker(reply, out) ? answer(status, or: AGR_STALE, error) : garbled(error)
    }
  }

  func setBreaker(
    _ key: agr_store_key, _ desired: agr_store_breaker, ttl: Int64, _ timeout: Int64,
    _ out: UnsafeMutablePointer<agr_store_breaker>, _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.breakerSet, key, keys: 1)
    call.key(self, "breaker", key)
    call.argument(Int64(truncatingIfNeeded: desired.generation))
    call.argument(Int64(desired.state))
    call.argument(Int64(desired.trips))
    call.argument(desired.open_ns / 1000 &+ (desired.open_ns % 1000 > 0 ? 1 : 0))
    call.argument(duration: ttl)
    return run(call, timeout, error) { status, reply in
      breaker(reply, out) ? answer(status, or: AGR_STALE, error) : garbled(error)
    }
  }

  /// False: the reply has no state.
  private func breaker(_ reply: Reply, _ out: UnsafeMutablePointer<agr_store_breaker>) -> Bool {
    guard let generation = reply.integer(1), generation >= 0, let state = reply.integer(2),
      state >= Int64(AGR_BREAKER_CLOSED), state <= Int64(AGR_BREAKER_HALF_OPEN)
    else { return false }
    out.pointee.generation = UInt64(generation)
    out.pointee.state = Int32(truncatingIfNeeded: state)
    out.pointee.trips = UInt32(truncatingIfNeeded: max(0, reply.integer(3) ?? 0))
    out.pointee.open_ns = out.pointee.state == Int32(AGR_BREAKER_OPEN) ? reply.duration(4) : 0
    return true
  }

  func probe(
    _ key: agr_store_key, _ generation: UInt64, _ owner: UnsafePointer<UInt64>, ttl: Int64,
    _ timeout: Int64, _ retryAfter: UnsafeMutablePointer<Int64>?,
    _ error: UnsafeMutablePointer<agr_error>?
  ) -> Int {
    var call = Call(.probe, key, keys: 1)
    call.key(self, "breaker", key)
    call.argument(Int64(truncatingIfNeeded: generation))
    call.argument(owner, 16)
    call.argument(duration: ttl)
    return run(call, timeout, error) { status, reply in
      if status == AGR_OPEN {
        retryAfter?.pointee = max(1, reply.duration(1))
        return status
      }
      return answer(status, or: AGR_STALE, error)
    }
  }
}
