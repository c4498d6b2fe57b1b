/// Whether tokens were taken at once.
package enum TakeDecision {
  case admitted
  /// Not now; the delay after which it would be, if nobody else came.
  case limited(retryAfter: Int64)
}

/// Whether tokens were taken ahead of time.
package enum AdvanceDecision {
  /// To be used after `wait`. `charged` were taken: fewer than asked for only when observing.
  case granted(wait: Int64, charged: Int64)
  case limited(retryAfter: Int64)
}

/// Tokens taken ahead of their use.
package struct Reservation {
  /// To be settled or cancelled once.
  package let permit: UInt64
  package let tokens: Int64
  package let wait: Int64
}

package enum ReserveDecision {
  case granted(Reservation)
  case limited(retryAfter: Int64)
}
