import Synchronization

/// Maps the times that callers give onto a scale that never steps back by more than `tolerance`.
///
/// Threads which read the clock and are then held up give times that are a little old; the engines
/// cope with those. A step back beyond the tolerance is a clock that was set (or a test that started
/// again at 0): from then on an offset continues the old scale, so that what was counted stays
/// counted and nobody waits for the clock to catch up. A jump forward counts in full, up to `leap`; that
/// bounds what a clock which is set to and fro can use up of the scale, 146 years in all.
package struct Timeline: BitwiseCopyable {
  private let words: AtomicWords
  private static let latest = 0
  private static let offset = 1
  package static let wordCount = 2

  private static let tolerance = Time.second
  private static let leap = Time.year
  /// How far `latest` may lag, so that it is not written at every call.
  private static let grain = Time.millisecond

  package init(_ words: AtomicWords) { self.words = words }

  func begin(_ now: Int64) { words.begin(Timeline.latest, UInt64(bitPattern: now)) }

  /// The engine's time for a caller's `now` in `0...Time.max`.
  @inline(__always)
  package func read(_ now: Int64) -> Int64 {
    let time = now &+ Int64(bitPattern: words.load(Timeline.offset))
    let last = Int64(bitPattern: words.load(Timeline.latest))
    let passed = time &- last
    if passed >= 0 && passed < Timeline.grain { return time }
    return advance(now, time, last)
  }

  /// As `read`, but not before what was read already (within `grain`): for what is given back, which as of
  /// an older time would seem not to have refilled yet.
  @inline(__always)
  package func readOnward(_ now: Int64) -> Int64 {
    Swift.max(read(now), Int64(bitPattern: words.load(Timeline.latest)))
  }

  private func advance(_ now: Int64, _ time: Int64, _ last: Int64) -> Int64 {
    let passed = time &- last
    if passed >= 0 && passed <= Timeline.leap && time <= Time.max {
      words.store(Timeline.latest, UInt64(bitPattern: time))
      return time
    }
    if passed < 0 && passed >= -Timeline.tolerance { return time < 0 ? 0 : time }
    // Another scale. Whoever wins moves the offset; the others read it at their next call.
    let continued = passed < 0 ? last : Swift.min(last &+ Timeline.leap, Time.max)
    let old = Int64(bitPattern: words.load(Timeline.offset))
    if old == time &- now {
      _ = words.exchange(
        Timeline.offset, UInt64(bitPattern: old), UInt64(bitPattern: continued &- now))
      words.store(Timeline.latest, UInt64(bitPattern: continued))
    }
    return continued
  }
}
