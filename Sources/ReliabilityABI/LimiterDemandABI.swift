public import CAutoGLMReliability
import ReliabilityCore

/// Checks demands before any of them is tried.
private func check(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32
) throws(Failure) -> UnsafePointer<agr_limiter_demand> {
  guard let demands else { throw .argument("demands", "must not be NULL") }
  guard count >= 1 && count <= UInt32(DemandSet.maximumCount) else {
    throw .argument("count", "must be 1 ... AGR_DIMENSIONS_MAX")
  }
  for index in 0..<Int(count) {
    let _: Handle<Limiter> = try handle(demands[index].limiter, .limiter, "demands.limiter")
    guard demands[index].tokens >= 0 && demands[index].tokens <= TokenRate.maximumTokens else {
      throw .argument("demands.tokens", "must be 0 ... 2^50")
    }
    for other in 0..<index where demands[other].limiter == demands[index].limiter {
      throw .argument("demands.limiter", "must not name the same limiter twice")
    }
  }
  return demands
}

/// The demand at an index that was checked.
private func demand(_ demand: agr_limiter_demand) -> DemandSet.Demand {
  DemandSet.Demand(limiter: uncheckedHandle(demand.limiter), tokens: demand.tokens)
}

/// Writes what came of a demand, and says it.
private func answer(
  _ refusal: DemandSet.Refusal?, _ count: UInt32, _ index: UnsafeMutablePointer<UInt32>?,
  _ retryAfter: UnsafeMutablePointer<Int64>?
) -> Int {
  index?.pointee = refusal.map { UInt32(truncatingIfNeeded: $0.index) } ?? count
  retryAfter?.pointee = refusal?.retryAfter ?? 0
  return refusal == nil ? AGR_OK : AGR_LIMITED
}

@implementation @_cdecl("agr_limiter_try_acquire_all")
public func agr_limiter_try_acquire_all(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32,
  _ out_refused_index: UnsafeMutablePointer<UInt32>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_try_acquire_all_at(
    demands, count, now(), out_refused_index, out_retry_after_ns, error)
}

@implementation @_cdecl("agr_limiter_try_acquire_all_at")
public func agr_limiter_try_acquire_all_at(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32, _ now_ns: Int64,
  _ out_refused_index: UnsafeMutablePointer<UInt32>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    out_refused_index?.pointee = count
    out_retry_after_ns?.pointee = 0
    let checked: UnsafePointer<agr_limiter_demand>
    do throws(Failure) {
      checked = try check(demands, count)
    } catch let failure {
      return try acquireAllInStore(
        demands, count, out_refused_index, out_retry_after_ns, error, else: failure)
    }
    var failedAt = Int(count)
    do throws(Failure) {
      let refusal = try DemandSet.take(count: Int(count), now: now_ns, failedAt: &failedAt) {
        demand(checked[$0])
      }
      return answer(refusal, count, out_refused_index, out_retry_after_ns)
    } catch {
      out_refused_index?.pointee = UInt32(truncatingIfNeeded: failedAt)
      throw error
    }
  }
}

@implementation @_cdecl("agr_limiter_reserve_all")
public func agr_limiter_reserve_all(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32, _ max_wait_ns: Int64,
  _ out_reservations: UnsafeMutablePointer<agr_reservation>?,
  _ out_refused_index: UnsafeMutablePointer<UInt32>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  agr_limiter_reserve_all_at(
    demands, count, max_wait_ns, now(), out_reservations, out_refused_index, out_retry_after_ns,
    error)
}

@implementation @_cdecl("agr_limiter_reserve_all_at")
public func agr_limiter_reserve_all_at(
  _ demands: UnsafePointer<agr_limiter_demand>?, _ count: UInt32, _ max_wait_ns: Int64,
  _ now_ns: Int64, _ out_reservations: UnsafeMutablePointer<agr_reservation>?,
  _ out_refused_index: UnsafeMutablePointer<UInt32>?,
  _ out_retry_after_ns: UnsafeMutablePointer<Int64>?, _ error: UnsafeMutablePointer<agr_error>?
) -> agr_status {
  guarded(error) { () throws(Failure) in
    out_refused_index?.pointee = count
    out_retry_after_ns?.pointee = 0
    let out = try required(out_reservations, "out_reservations")
    let checked: UnsafePointer<agr_limiter_demand>
    do throws(Failure) {
      checked = try check(demands, count)
    } catch let failure {
      return try reserveAllInStore(
        demands, count, max_wait_ns, now_ns, out, out_refused_index, out_retry_after_ns, error,
        else: failure)
    }
    for index in 0..<Int(count) { out[index] = agr_reservation() }
    var failedAt = Int(count)
    do throws(Failure) {
      let refusal = try DemandSet.reserve(
        count: Int(count), maxWait: max_wait_ns, now: now_ns, failedAt: &failedAt,
        { demand(checked[$0]) },
        keep: {
          out[$0] = agr_reservation(permit: $1.permit, tokens: $1.tokens, wait_ns: $1.wait)
        }, kept: { out[$0].permit })
      if refusal != nil { for index in 0..<Int(count) { out[index] = agr_reservation() } }
      return answer(refusal, count, out_refused_index, out_retry_after_ns)
    } catch {
      for index in 0..<Int(count) { out[index] = agr_reservation() }
      out_refused_index?.pointee = UInt32(truncatingIfNeeded: failedAt)
      throw error
    }
  }
}
