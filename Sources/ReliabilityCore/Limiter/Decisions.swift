/// Whether tokens were taken at once.
package enum TakeDecision {
  case admitted
  /// Not now; the delay after which it would be, if nobody else came.
  case limited(retryAfter: Int64)
}

/// Whether tokens were taken ahead of time.
package enum AdvanceDecision {
  /// To be used after `wait`.
  case granted(wait: Int64, charged: Charge)
  case limited(retryAfter: Int64)
}

/// What a bucket was charged, and where that brought its level.
package struct Charge {
  /// Fewer than were asked for only when observing: 0.
  package let tokens: Int64
  package let level: Int64
  package let epoch: UInt64

  package init(tokens: Int64, level: Int64, epoch: UInt64) {
    self.tokens = tokens
    self.level = level
    self.epoch = epoch
  }

  /// As a limiter remembers it of a reservation.
  init(_ payload: PermitTable.Payload) {
    self.init(
      tokens: Int64(bitPattern: payload.first), level: Int64(bitPattern: payload.second),
      epoch: payload.third)
  }

  static let levelWord = 1
  /// Of one that is not made yet.
  static let none = Charge(tokens: 0, level: 0, epoch: 0)

  /// As it is remembered while it is being made: whatever level a refund lowers it to is below.
  var pending: Charge { Charge(tokens: tokens, level: .max, epoch: epoch) }

  var payload: PermitTable.Payload {
    PermitTable.Payload(UInt64(bitPattern: tokens), UInt64(bitPattern: level), epoch)
  }
}

/// Tokens taken ahead of their use.
package struct Reservation {
  /// To be settled or cancelled once.
  package let permit: UInt64
  package let tokens: Int64
  package let wait: Int64

  package static let none = Reservation(permit: 0, tokens: 0, wait: 0)
}

package enum ReserveDecision {
  case granted(Reservation)
  case limited(retryAfter: Int64)
}

/// Refuses bounds that reservations cannot have.
func requireReservations(_ count: Int, timeout: Int64) throws(Failure) {
  guard count >= 0 && count <= PermitTable.maximumCount else {
    throw .argument("max_reservations", "must be 0 ... 1,048,576")
  }
  guard timeout >= 1 && timeout <= Time.max else {
    throw .argument("reservation_timeout_ns", "must be 1 ... AGR_TIME_MAX_NS nanoseconds")
  }
}
