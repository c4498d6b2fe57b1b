import Platform
import ReliabilityCore
import Synchronization

// The clock of every function that is not told the time: CLOCK_MONOTONIC's scale, read from the processor's
// counter where the kernel itself does so, which saves the way through its vDSO.
//
// The counter gives a time as `counter * rate + offset`. The rate is measured once and then taken a little too
// low, so that the time falls behind CLOCK_MONOTONIC and never runs ahead of it, however the system's clock is
// disciplined. It is set right again after every window of about a millisecond, by whoever asks next: a new
// offset is exchanged for the old one, together with the reading that it was made from. So
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
  /// What two readings of a suspension may differ by when there was none.
  private static let longestSuspension: UInt64 = 1_000_000
  /// How far a reading of both clocks may lie apart, in windows.
  private static let pairingShare: UInt64 = 64

  /// Reads the clock. `ordered`: not before what the thread did before, as seen by other threads.
  @inline(__always)
  static func read(ordered: Bool) -> Int64 {
    let (since, offset) = present()
    guard since != 0 else { return readUncalibrated() }
    let ticks = ordered ? platform_counter_ordered() : platform_counter()
    // A counter that was reset is outside of the window, too.
    guard ticks &- since < state.windowTicks.load(ordering: .relaxed) else { return readAnew() }
    return time(ticks, offset)
  }

  /// The counter at which the present window began, 0 while the counter is not in use; and the window's offset.
  @inline(__always)
  private static func present() -> (UInt64, UInt64) {
    withUnsafePointer(to: state.window) { AtomicPairs(at: .init(mutating: $0)).load(0) }
  }

  @inline(__always)
  private static func begin(_ next: (UInt64, UInt64), after last: (UInt64, UInt64)) -> Bool {
    withUnsafePointer(to: state.window) {
      AtomicPairs(at: .init(mutating: $0)).exchange(0, last, next)
    }
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
      let (since, offset) = present()
      guard since != 0 else { return readUncalibrated() }
      let window = state.windowTicks.load(ordering: .relaxed)
      let ticks = platform_counter_ordered()
      if ticks &- since < window { return time(ticks, offset) }
      // This processor's counter is a little behind that of the one which began the window.
      if since &- ticks < window { return time(since, offset) }
      let pair = readBoth(window / pairingShare)
      // No less than was ever given in this window.
      let top = time(since &+ window, offset)
      if pair.time < top { return top }
      let next = UInt64(bitPattern: pair.time &- time(pair.ticks, 0))
      // A window in which the counter would go round is over at once.
      let start = pair.ticks > .max &- window ? pair.ticks &- window : pair.ticks
      guard begin((start, next), after: (since, offset)) else { continue }
      // Somebody may have chosen the system's clock meanwhile.
      if state.wantedSource.load(ordering: .sequentiallyConsistent) == ClockSource.system.rawValue {
        leaveCounter()
      }
      return pair.time
    }
  }

  private struct Pair {
    var time: Int64
    var ticks: UInt64
  }

  /// Both clocks, the counter last, so that a time that is made from them falls behind. Several tries, of which
  /// the closest counts, when the thread is held up in between.
  private static func readBoth(_ apart: UInt64) -> Pair {
    var best = Pair(time: 0, ticks: 0)
    var least = UInt64.max
    for _ in 0..<16 {
      let before = platform_counter_ordered()
      let time = platform_monotonic_ns()
      let pair = Pair(time: time, ticks: Swift.max(platform_counter_ordered(), 1))
      let gap = pair.ticks &- before
      if gap <= least { (best, least) = (pair, gap) }
      if gap <= apart { break }
    }
    return best
  }

  // MARK: - Finding the rate

  /// The time without the counter; finds the rate on the way.
  @inline(never)
  private static func readUncalibrated() -> Int64 {
    let wanted = state.wantedSource.load(ordering: .relaxed)
    let time: Int64
    if wanted == ClockSource.system.rawValue || !isTrusted() {
      time = platform_monotonic_ns()
    } else {
      if state.isMeasured.load(ordering: .acquiring) { return takeOver() }
      time = measure()
    }
    // A time read after the counter took over may be ahead of what it gives.
    return present().0 == 0 ? time : readAnew()
  }

  /// Begins with a window that is over already, on every processor. The clocks are read for the next one, when it is
  /// plain to all that the system's clock was left.
  private static func takeOver() -> Int64 {
    let (since, offset) = present()
    let over = platform_counter_ordered() &- 2 &* state.windowTicks.load(ordering: .relaxed)
    if since == 0 { _ = begin((over == 0 ? .max : over, offset), after: (since, offset)) }
    return readAnew()
  }

  /// Takes one of the two readings that the rate is measured by.
  private static func measure() -> Int64 {
    let firstTime = state.measuredTime.load(ordering: .acquiring)
    let firstTicks = state.measuredTicks.load(ordering: .acquiring)
    let pair = readBoth(0)
    let passed = pair.time &- firstTime
    // While the machine was suspended one of the clocks stood still, and perhaps the other.
    let suspended = platform_suspended_ns()
    let wasAwake =
      (suspended &- state.measuredSuspension.load(ordering: .relaxed)).magnitude
      < longestSuspension
    if firstTime == 0 || passed > longestMeasurement || !wasAwake {
      // Whoever finds it being written comes again.
      if firstTime >= 0,
        state.measuredTime.compareExchange(
          expected: firstTime, desired: -1, ordering: .acquiringAndReleasing
        ).exchanged
      {
        state.measuredTicks.store(pair.ticks, ordering: .relaxed)
        state.measuredSuspension.store(suspended, ordering: .relaxed)
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
    _ = begin((0, UInt64(bitPattern: pair.time &- time(pair.ticks, 0))), after: (0, 0))
    state.isMeasured.store(true, ordering: .releasing)
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
    if source == .system { leaveCounter() }
    return true
  }

  private static func leaveCounter() {
    while true {
      let (since, offset) = present()
      // A nanosecond more: whoever was held up between reading the clocks and beginning a window after a takeover
      // is to find that this is another takeover, for the system's clock was read since.
      if since == 0 || begin((0, offset &+ 1), after: (since, offset)) { return }
    }
  }

  /// What the next reading takes.
  static var source: ClockSource { present().0 == 0 ? .system : .counter }
}

/// All that the clock remembers, in one place: where Swift's runtime makes a global at its first use (not in what
/// ships), it does so once, and not in the child of a fork, where it could not.
private struct ClockState: ~Copyable {
  /// Where the present window began, and its offset: one without the other would make a wrong time.
  let window = Atomic<WordPair>(WordPair(first: 0, second: 0))
  /// Nanoseconds a tick, in parts of 2^64.
  let rate = Atomic<UInt64>(0)
  let windowTicks = Atomic<UInt64>(0)
  let wantedSource = Atomic<Int32>(0)
  /// 1: the kernel trusts the counter, -1: it does not, 0: not asked yet.
  let trust = Atomic<Int32>(0)
  /// The first of the two readings; the time is 0 before, and -1 while they are written.
  let measuredTicks = Atomic<UInt64>(0)
  let measuredTime = Atomic<Int64>(0)
  let measuredSuspension = Atomic<Int64>(0)
  /// Rate and window are known.
  let isMeasured = Atomic<Bool>(false)
}

private let state = ClockState()
