/// Takes from several buckets as one: from all of them, or from none.
///
/// Buckets are asked in turn, and what was taken is given back when a later one refuses. Between the
/// two others may be refused for tokens that come back: never too much is admitted, sometimes too
/// little.
package enum DemandSet {
  package struct Demand {
    package let limiter: UnsafeMutablePointer<Limiter>
    package let tokens: Int64

    package init(limiter: UnsafeMutablePointer<Limiter>, tokens: Int64) {
      self.limiter = limiter
      self.tokens = tokens
    }
  }

  package static let maximumCount = 4

  /// A refusal: by which demand, and until when.
  package struct Refusal {
    package let index: Int
    package let retryAfter: Int64

    package init(index: Int, retryAfter: Int64) {
      self.index = index
      self.retryAfter = retryAfter
    }
  }

  /// `nil` when all were taken. `failedAt` is the demand that an error is about.
  package static func take(
    count: Int, now: Int64, failedAt: inout Int, _ demand: (Int) -> Demand
  ) throws(Failure) -> Refusal? {
    var charges = InlineArray<4, Charge>(repeating: .none)
    var taken = 0
    var refusal: Refusal?
    do throws(Failure) {
      for index in 0..<count {
        failedAt = index
        let demand = demand(index)
        switch try demand.limiter.pointee.acquireAhead(demand.tokens, maxWait: 0, now: now) {
        case .granted(_, let charge):
          // Behind a refusal the rest are only asked how long they take.
          if refusal == nil {
            charges[index] = charge
            taken = index &+ 1
          } else {
            demand.limiter.pointee.giveBack(charge, now: now)
          }
        case .limited(let retryAfter): refusal = longer(refusal, index, retryAfter)
        }
      }
    } catch {
      for index in 0..<taken { demand(index).limiter.pointee.giveBack(charges[index], now: now) }
      throw error
    }
    guard refusal != nil else { return nil }
    for index in 0..<taken { demand(index).limiter.pointee.giveBack(charges[index], now: now) }
    return refusal
  }

  /// Reserves from all of them, or from none; `keep` receives each reservation.
  package static func reserve(
    count: Int, maxWait: Int64, now: Int64, failedAt: inout Int, _ demand: (Int) -> Demand,
    keep: (Int, Reservation) -> Void, kept: (Int) -> UInt64
  ) throws(Failure) -> Refusal? {
    var taken = 0
    var refusal: Refusal?
    do throws(Failure) {
      for index in 0..<count {
        failedAt = index
        let demand = demand(index)
        switch try demand.limiter.pointee.reserve(demand.tokens, maxWait: maxWait, now: now) {
        case .granted(let reservation):
          if refusal == nil {
            keep(index, reservation)
            taken = index &+ 1
          } else {
            _ = try demand.limiter.pointee.cancel(reservation.permit, now: now)
          }
        case .limited(let retryAfter): refusal = longer(refusal, index, retryAfter)
        }
      }
    } catch {
      cancel(taken, now, demand, kept)
      throw error
    }
    if refusal != nil { cancel(taken, now, demand, kept) }
    return refusal
  }

  private static func cancel(
    _ taken: Int, _ now: Int64, _ demand: (Int) -> Demand, _ kept: (Int) -> UInt64
  ) {
    for index in 0..<taken {
      // The permit is ours and the time was checked, so that this cannot fail.
      _ = try? demand(index).limiter.pointee.cancel(kept(index), now: now)
    }
  }

  private static func longer(_ refusal: Refusal?, _ index: Int, _ retryAfter: Int64) -> Refusal {
    if let refusal, refusal.retryAfter >= retryAfter { return refusal }
    return Refusal(index: index, retryAfter: retryAfter)
  }
}
