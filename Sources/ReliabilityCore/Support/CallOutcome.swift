/// How a call ended, as a breaker sees it.
package enum CallOutcome: Int32, BitwiseCopyable {
  case success = 1
  case failure
  /// Cancelled, or the caller's own mistake: counts nowhere.
  case neutral
  /// The upstream is alive and asks for less.
  case backpressure
}

/// A caller's number as an outcome.
@inline(__always)
package func requireOutcome(_ value: Int32) throws(Failure) -> CallOutcome {
  guard let outcome = CallOutcome(rawValue: value) else {
    throw .argument("outcome", "must be one of AGR_OUTCOME_*")
  }
  return outcome
}
