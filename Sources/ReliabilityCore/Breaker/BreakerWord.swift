/// The whole state of a breaker in one word: 40 bits of generation, 11 of successes while half-open, 8
/// of trips in a row, 3 of mode, 2 of state.
struct BreakerWord: BitwiseCopyable {
  var raw: UInt64

  @inline(__always)
  init(raw: UInt64) { self.raw = raw }

  @inline(__always)
  init(
    state: BreakerState, mode: BreakerMode, trips: UInt64, successes: UInt64, generation: UInt64
  ) {
    raw =
      UInt64(truncatingIfNeeded: state.rawValue)
      | UInt64(truncatingIfNeeded: mode.rawValue) &<< 2
      | Swift.min(trips, 255) &<< 5 | Swift.min(successes, 2047) &<< 13
      | (generation & ((1 &<< 40) &- 1)) &<< 24
  }

  @inline(__always)
  var state: BreakerState {
    switch raw & 3 {
    case 2: .open
    case 3: .halfOpen
    default: .closed
    }
  }

  @inline(__always)
  var mode: BreakerMode {
    switch raw &>> 2 & 7 {
    case 1: .forcedOpen
    case 2: .forcedClosed
    case 3: .disabled
    case 4: .observe
    default: .automatic
    }
  }

  @inline(__always)
  var trips: UInt64 { raw &>> 5 & 255 }

  @inline(__always)
  var successes: UInt64 { raw &>> 13 & 2047 }

  @inline(__always)
  var generation: UInt64 { raw &>> 24 }

  /// The next generation, in another state.
  func next(_ state: BreakerState, mode: BreakerMode, trips: UInt64) -> BreakerWord {
    BreakerWord(
      state: state, mode: mode, trips: trips, successes: 0, generation: generation &+ 1)
  }

  /// One more success of a probe.
  func withSuccess() -> BreakerWord {
    BreakerWord(
      state: state, mode: mode, trips: trips, successes: successes &+ 1, generation: generation)
  }
}
