import Platform
import ReliabilityCore
import Synchronization

// The clock of every function that is not told the time: CLOCK_MONOTONIC's scale, read from the processor's
// counter where the kernel itself does so, which saves the way through its vDSO.
//
// The counter gives a time as `counter * rate + offset`. The rate is measured once and then taken a little too
// low, so that the time falls behind CLOCK_MONOTONIC and never runs ahead of it, however the system's clock is
// disciplined. It is set right again after every window of about a millisecond, by whoever asks next: a new
// offset is exchanged for the old one, together with the time that it was made from. So
//
// - the time is never ahead of CLOCK_MONOTONIC, and behind it by what a window adds up to, about a microsecond;
// - it never steps back: all that was given under an offset is below the time from which the next is made.
//   While the system's clock is being slowed down by more than the rate allows for, time stands still at
//   what was last given;
// - a suspended machine, a counter that was reset and a fork need nothing: outside its window an offset is
//   not used, and there is no lock that a child could find taken.

/// Where the time comes from.
enum ClockSource: Int32 {
  case auto = 0
  case system = 1
  case counter = 2
}

/// The present time. [ns]
@inline(__always)
func now() -> Int64 { Clock.read(ordered: false) }

/// CLOCK_MONOTONIC itself, for what is handed to the kernel as a deadline. [ns]
@inline(__always)
func systemNow() -> Int64 { platform_monotonic_ns() }

enum Clock {
  /// How far the rate is taken too low, in millionths: 500 are what the system's clock may have been disciplined by when it
  /// was measured, 500 ppm the other way when it is used, and some for the measurement.
  private static let caution: Int64 = 1100
  /// How long an offset is good for.
  private static let windowTime: Int64 = 1_000_000
  /// Over how long the rate is measured: long enough to be exact, and hardly with a suspension in it.
  private static let shortestMeasurement: Int64 = 20_000_000
  private static let longestMeasurement: Int64 = 10_000_000_000
  /// From the measurement until the counter is used: whoever found no rate has returned by then.
  private static let settlingTime: Int64 = 1_000_000_000
  /// How far a reading of both clocks may lie apart, in windows.
  private static let pairingShare: UInt64 = 64

  /// Reads the clock. `ordered`: not before what the thread did before, as seen by other threads.
  @inline(__always)
  static func read(ordered: Bool) -> Int64 {
    let since = state.windowStart.load(ordering: .acquiring)
    guard since != 0 else { return readUncalibrated() }
    let offset = state.offset.load(ordering: .acquiring)
    let ticks = ordered ? platform_counter_ordered() : platform_counter()
    // A counter that was reset is outside of the window, too.
    guard ticks &- since < state.windowTicks.load(ordering: .relaxed) else { return readAnew() }
    return time(ticks, offset)
  }

  @inline(__always)
  private static func time(_ ticks: UInt64, _ offset: UInt64) -> Int64 {
    let scaled = ticks.multipliedFullWidth(by: state.rate.load(ordering: .relaxed)).high
    return Int64(bitPattern: scaled &+ offset)
  }

  // MARK: - Setting right

  /// The window is over: reads both clocks and begins another.
  @inline(never)
  private static func readAnew() -> Int64 {
    while true {
      let since = state.windowStart.load(ordering: .acquiring)
      let offset = state.offset.load(ordering: .acquiring)
      let window = state.windowTicks.load(ordering: .relaxed)
      guard since != 0 else { return readUncalibrated() }
      guard state.windowStart.load(ordering: .acquiring) == since else { continue }
      let ticks = platform_counter_ordered()
      if ticks &- since < window { return time(ticks, offset) }
      let pair = readBoth(window / pairingShare)
      // More than was ever given under this offset.
      let top = time(since &+ window, offset)
      if pair.time < top { return top }
      let scaled = time(pair.ticks, 0)
      let next = UInt64(bitPattern: pair.time &- scaled)
      guard
        state.offset.compareExchange(
          expected: offset, desired: next, ordering: .acquiringAndReleasing
        ).exchanged
      else { continue }
      // Whoever sees the new window sees the new offset.
      begin(pair)
      return pair.time
    }
  }

  /// Begins a window at the reading that the present offset was made from.
  private static func begin(_ pair: Pair) {
    state.windowStart.store(pair.ticks | 1, ordering: .releasing)
    // Somebody may have chosen the system's clock meanwhile.
    if state.wantedSource.load(ordering: .sequentiallyConsistent) == ClockSource.system.rawValue {
      state.windowStart.store(0, ordering: .releasing)
    }
  }

  private struct Pair {
    var time: Int64
    var ticks: UInt64
  }

  /// Both clocks, the counter last, so that a time that is made from them falls behind. Another try when the
  /// thread was held up in between.
  private static func readBoth(_ apart: UInt64) -> Pair {
    var pair = Pair(time: 0, ticks: 0)
    for _ in 0..<16 {
      let before = platform_counter_ordered()
      pair.time = platform_monotonic_ns()
      pair.ticks = platform_counter_ordered()
      if pair.ticks &- before <= apart { break }
    }
    return pair
  }

  // MARK: - Finding the rate

  /// The time without the counter; finds the rate on the way.
  @inline(never)
  private static func readUncalibrated() -> Int64 {
    let wanted = state.wantedSource.load(ordering: .relaxed)
    if wanted == ClockSource.system.rawValue || !isTrusted() { return platform_monotonic_ns() }
    let ready = state.readyTime.load(ordering: .acquiring)
    guard ready != 0 else { return measure() }
    let pair = readBoth(state.windowTicks.load(ordering: .relaxed) / pairingShare)
    guard pair.time >= ready else { return pair.time }
    let next = UInt64(bitPattern: pair.time &- time(pair.ticks, 0))
    let old = state.offset.load(ordering: .acquiring)
    if state.windowStart.load(ordering: .acquiring) == 0,
      state.offset.compareExchange(
        expected: old, desired: next, ordering: .acquiringAndReleasing
      ).exchanged
    {
      begin(pair)
      return pair.time
    }
    return readAnew()
  }

  /// Takes one of the two readings that the rate is measured by.
  private static func measure() -> Int64 {
    let firstTime = state.measuredTime.load(ordering: .acquiring)
    let firstTicks = state.measuredTicks.load(ordering: .acquiring)
    let pair = readBoth(.max)
    let passed = pair.time &- firstTime
    if firstTime == 0 || passed > longestMeasurement {
      // Whoever finds it being written comes again.
      if firstTime >= 0,
        state.measuredTime.compareExchange(
          expected: firstTime, desired: -1, ordering: .acquiringAndReleasing
        ).exchanged
      {
        state.measuredTicks.store(pair.ticks, ordering: .relaxed)
        state.measuredTime.store(pair.time, ordering: .releasing)
      }
      return pair.time
    }
    guard firstTime > 0, passed >= shortestMeasurement,
      state.measuredTime.load(ordering: .relaxed) == firstTime
    else { return pair.time }
    let ticks = pair.ticks &- firstTicks
    let slow = UInt64(bitPattern: passed &- passed / 1_000_000 &* caution)
    // A counter that stood still or went back, or one too slow to be worth it: the system's clock remains.
    guard ticks > slow, ticks < 1 << 60,
      let window = WideMath.multiplyDivide(
        UInt64(bitPattern: windowTime), ticks, by: UInt64(bitPattern: passed))
    else {
      state.trust.store(-1, ordering: .relaxed)
      return pair.time
    }
    // Whoever is first decides.
    _ = state.rate.compareExchange(
      expected: 0, desired: TimeRatio(slow, ticks).reciprocal, ordering: .relaxed)
    _ = state.windowTicks.compareExchange(expected: 0, desired: window, ordering: .relaxed)
    _ = state.readyTime.compareExchange(
      expected: 0, desired: pair.time &+ settlingTime, ordering: .releasing)
    return pair.time
  }

  private static func isTrusted() -> Bool {
    let known = state.trust.load(ordering: .relaxed)
    if known != 0 { return known > 0 }
    let trusted = platform_counter_is_trusted() != 0
    state.trust.store(trusted ? 1 : -1, ordering: .relaxed)
    return trusted
  }

  // MARK: - Choosing

  /// False: the kernel does not trust the counter.
  static func select(_ source: ClockSource) -> Bool {
    if source == .counter && !isTrusted() { return false }
    state.wantedSource.store(source.rawValue, ordering: .sequentiallyConsistent)
    if source == .system { state.windowStart.store(0, ordering: .releasing) }
    return true
  }

  /// What the next reading takes.
  static var source: ClockSource {
    state.windowStart.load(ordering: .relaxed) == 0 ? .system : .counter
  }
}

/// All that the clock remembers, in one place: where Swift's runtime makes a global at its first use (not in what
/// ships), it does so once, and not in the child of a fork, where it could not.
private struct ClockState: ~Copyable {
  /// The counter at which the present offset was made; 0: the counter is not in use.
  let windowStart = Atomic<UInt64>(0)
  let offset = Atomic<UInt64>(0)
  /// Nanoseconds a tick, in parts of 2^64.
  let rate = Atomic<UInt64>(0)
  let windowTicks = Atomic<UInt64>(0)
  let wantedSource = Atomic<Int32>(0)
  /// 1: the kernel trusts the counter, -1: it does not, 0: not asked yet.
  let trust = Atomic<Int32>(0)
  /// The first of the two readings; the time is 0 before, and -1 while they are written.
  let measuredTicks = Atomic<UInt64>(0)
  let measuredTime = Atomic<Int64>(0)
  /// From when on the counter may be used.
  let readyTime = Atomic<Int64>(0)
}

private let state = ClockState()
