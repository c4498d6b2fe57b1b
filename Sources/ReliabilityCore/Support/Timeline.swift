import Synchronization

/// Maps the times that callers give onto a scale that never steps back by more than `tolerance`.
///
/// Threads which read the clock and are then held up give times that are a little old; the engines
/// cope with those. A step back beyond the tolerance is a clock that was set (or a test that started
/// again at 0): from then on an offset continues the old scale, so that what was counted stays
/// counted and nobody waits for the clock to catch up. A jump forward counts in full, up to `leap`; that
/// bounds what a clock which is set to and fro can use up of the scale, 146 years in all.
package struct Timeline: ~Copyable {
  private let latest: Atomic<Int64>
  private let offset: Atomic<Int64>

  private static let tolerance = Time.second
  private static let leap = Time.year
  /// How far `latest` may lag, so that it is not written at every call.
  private static let grain = Time.millisecond

  package init(now: Int64) {
    latest = Atomic(now)
    offset = Atomic(0)
  }

  /// The engine's time for a caller's `now` in `0...Time.max`.
  @inline(__always)
  package func read(_ now: Int64) -> Int64 {
    let time = now &+ offset.load(ordering: .relaxed)
    let last = latest.load(ordering: .relaxed)
    let passed = time &- last
    if passed >= 0 && passed < Timeline.grain { return time }
    return advance(now, time, last)
  }

  /// As `read`, but not before what was read already (within `grain`): for what is given back, which as of
  /// an older time would seem not to have refilled yet.
  @inline(__always)
  package func readOnward(_ now: Int64) -> Int64 {
    Swift.max(read(now), latest.load(ordering: .relaxed))
  }

  private func advance(_ now: Int64, _ time: Int64, _ last: Int64) -> Int64 {
    let passed = time &- last
    if passed >= 0 && passed <= Timeline.leap && time <= Time.max {
      latest.store(time, ordering: .relaxed)
      return time
    }
    if passed < 0 && passed >= -Timeline.tolerance { return time < 0 ? 0 : time }
    // Another scale. Whoever wins moves the offset; the others read it at their next call.
    let continued = passed < 0 ? last : Swift.min(last &+ Timeline.leap, Time.max)
    let old = offset.load(ordering: .relaxed)
    if old == time &- now {
      _ = offset.compareExchange(
        expected: old, desired: continued &- now, ordering: .relaxed)
      latest.store(continued, ordering: .relaxed)
    }
    return continued
  }
}
