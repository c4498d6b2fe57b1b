// What a breaker tells others of itself, and takes over from them.

extension Breaker {
  /// The generation of the state; every change has another one.
  @inline(__always)
  package func generation() -> UInt64 { current().generation }

  package struct Standing {
    package let generation: UInt64
    package let state: BreakerState
    package let trips: UInt64
    /// How long it stays open; 0 when it is not.
    package let openFor: Int64
    /// Whether the mode lets it change by itself.
    package let isAutomatic: Bool
  }

  /// The state as it is stored: one whose time to be open is over is open still.
  package func standing(now: Int64) throws(Failure) -> Standing {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    let current = current()
    return Standing(
      generation: current.generation, state: current.state, trips: current.trips,
      openFor: current.state == .open ? Time.subtract(self.time(of: current), time) : 0,
      isAutomatic: current.mode == .automatic || current.mode == .observe)
  }

  /// Becomes what another breaker is: open for a time, or closed. Nothing changes when it is that already, or when
  /// the mode does not let it.
  package func follow(
    opens: Bool, openFor: Int64, trips: UInt64, now: Int64
  ) throws(Failure) {
    try requireTime(now, "now_ns")
    let time = timeline.read(now)
    while true {
      let current = current()
      guard current.mode == .automatic || current.mode == .observe else { return }
      if current.state == (opens ? .open : .closed) { return }
      let next = current.next(opens ? .open : .closed, mode: current.mode, trips: trips)
      if move(current, next, time, now, openFor: openFor) { return }
    }
  }
}
