/// The results of the last stretch of time, in ten steps. The step in progress is the eleventh, so that
/// the window is never shorter than it was configured, and at most a tenth longer.
///
/// A step has three counts of 32 bits, each beside a stamp. A count whose stamp is not that of the step
/// is 0, so that neither the passing of time nor starting afresh has to clear anything.
package struct TimeWindow: ~Copyable {
  private static let steps: Int64 = 10
  private static let slots: Int64 = 16
  private static let stride = 4

  private let anchor = Anchor()
  private let words: AtomicWords
  /// Divides by the length of a step.
  private let clock: TimeRatio
  /// The step from which on no failure or slow call is in the window.
  private static let alarmEnd = 64

  /// The last `length` nanoseconds, 10 ns ... 1 year.
  package init(length: Int64, _ ground: inout Ground) {
    words = ground.shared.words(TimeWindow.alarmEnd &+ 1)
    clock = TimeRatio(1, UInt64(bitPattern: Swift.max(1, length / TimeWindow.steps)))
  }

  /// Adds a result. True when the rates must be looked at.
  @inline(__always)
  package func append(_ result: CallResult, era: UInt64, minimum: Int, _ now: Int64) -> Bool {
    let number = clock.applied(to: now)
    let stamp = TimeWindow.stamp(number, era)
    let base = TimeWindow.base(number)
    increment(base, stamp)
    if result.isAlarming {
      if result.failed { increment(base &+ 1, stamp) }
      if result.slow { increment(base &+ 2, stamp) }
      words.store(TimeWindow.alarmEnd, UInt64(bitPattern: number &+ TimeWindow.steps &+ 1))
      return true
    }
    // A success raises no rate, except that there may now be enough calls to speak of one. When two come at a time each
    // may see one too many: then the next failure is the first to look, and nothing but successes has come since.
    return number < Int64(bitPattern: words.load(TimeWindow.alarmEnd))
      && counts(era: era, now).total == UInt64(truncatingIfNeeded: minimum)
  }

  @inline(never)
  package func counts(era: UInt64, _ now: Int64) -> WindowCounts {
    let last = clock.applied(to: now)
    var counts = WindowCounts()
    // Going back, so that whatever the time is, there is an end.
    var back: Int64 = 0
    while back <= TimeWindow.steps && back <= last {
      let number = last &- back
      back &+= 1
      let stamp = TimeWindow.stamp(number, era)
      let base = TimeWindow.base(number)
      // A call is added before its failure, and looked for behind it: who is between the two of another thread sees a
      // rate that is too low, never one too high, and that thread looks when it has added both.
      let failures = count(base &+ 1, stamp)
      let slow = count(base &+ 2, stamp)
      let calls = count(base, stamp)
      counts.total &+= calls
      // Where late threads alternate between steps of one place, its words can be of both: no more of
      // either kind than there are calls.
      counts.failures &+= Swift.min(calls, failures)
      counts.slow &+= Swift.min(calls, slow)
    }
    return counts
  }

  @inline(__always)
  private func increment(_ index: Int, _ stamp: UInt64) {
    let word = words.load(index)
    guard word &>> 32 == stamp, word & 0x8000_0000 == 0 else { return begin(index, stamp) }
    add(index, stamp)
  }

  /// Counts in a word that bore the stamp when it was looked at.
  @inline(__always)
  private func add(_ index: Int, _ stamp: UInt64) {
    let old = words.add(index, 1)
    if old &>> 32 != stamp { takeBack(index, old &>> 32) }
  }

  /// Counts a call in a step as a thread does that was held up since it looked.
  package func appendLate(era: UInt64, _ now: Int64) {
    let number = clock.applied(to: now)
    add(TimeWindow.base(number), TimeWindow.stamp(number, era))
  }

  /// Counts where the step may be new to the word, or the word nearly full.
  private func begin(_ index: Int, _ stamp: UInt64) {
    while true {
      let word = words.load(index)
      let count = word &>> 32 == stamp ? word & 0xffff_ffff : 0
      // Half full: two thousand million calls a step, and the rate stays what it is.
      if count >= 0x8000_0000 { return }
      if words.exchange(index, word, stamp &<< 32 | (count &+ 1)) { return }
    }
  }

  /// The word became another step's between the look and the addition, which goes to nobody then.
  private func takeBack(_ index: Int, _ stamp: UInt64) {
    while true {
      let word = words.load(index)
      guard word &>> 32 == stamp, word & 0xffff_ffff != 0 else { return }
      if words.exchange(index, word, word &- 1) { return }
    }
  }

  @inline(__always)
  private func count(_ index: Int, _ stamp: UInt64) -> UInt64 {
    let word = words.loadAcquiring(index)
    return word &>> 32 == stamp ? word & 0xffff_ffff : 0
  }

  @inline(__always)
  private static func base(_ number: Int64) -> Int {
    Int(truncatingIfNeeded: number & (slots &- 1)) &* stride
  }

  /// The lap, moved on with each era by a part of the circle (the golden section, which brings no two of many
  /// eras near each other): the same again after 2^36 steps of one era. What an idle breaker still has of
  /// the past never looks new, be it weeks later.
  @inline(__always)
  private static func stamp(_ number: Int64, _ era: UInt64) -> UInt64 {
    (UInt64(bitPattern: number &>> 4) &+ era &* 0x9E37_79B1) & 0xffff_ffff
  }
}
