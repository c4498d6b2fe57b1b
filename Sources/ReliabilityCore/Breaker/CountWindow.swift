import Synchronization

/// The results of the last calls, exact and in order of completion.
///
/// A ring of words with up to 17 results of three bits each. A result is appended to the present word
/// by one exchange; a full word moves the head on. A word also carries the era it belongs to and
/// the parity of the ring's lap: one of another era or lap counts as empty, so that neither starting
/// afresh nor going round has to clear anything.
package struct CountWindow: ~Copyable {
  private static let resultsPerWord = 17
  /// Era and parity stand above 17 results.
  private static let markShift: UInt64 = 51
  private static let eraMask: UInt64 = (1 << 12) - 1

  private let words: AtomicWords
  /// The number of the word that results are appended to.
  private let head: Atomic<UInt64>
  /// The word at which the present era begins, beside 24 bits of it. The era in the words is only 12
  /// bits, against threads that are late.
  private let start: Atomic<UInt64>
  /// The era, plus one, in which the minimum has been reached.
  private let warmEra: Atomic<UInt64>
  private let size: Int

  /// The last `size` results, at least 1.
  package init(size: Int) throws(Failure) {
    // As many words as hold the window wherever it begins, and the one that is being filled.
    let words = try AtomicWords(count: (size &+ 16) / 17 &+ 2)
    self.words = words
    self.size = size
    head = Atomic(0)
    start = Atomic(0)
    warmEra = Atomic(0)
  }

  /// Adds a result. True when the rates must be looked at: it can have raised one, or it is the one
  /// with which there are enough results.
  @inline(__always)
  package func append(_ result: CallResult, era: UInt64, minimum: Int) -> Bool {
    let code: UInt64 = 4 | (result.failed ? 1 : 0) | (result.slow ? 2 : 0)
    while true {
      let first = begin(era)
      let number = head.load(ordering: .acquiring)
      guard number >= first else {
        _ = head.compareExchange(
          expected: number, desired: first, ordering: .acquiringAndReleasing)
        continue
      }
      let (index, mark) = place(number, era)
      let word = words.load(index)
      let present = word &>> CountWindow.markShift == mark
      let filled = present ? CountWindow.filled(word) : 0
      if filled == CountWindow.resultsPerWord {
        _ = head.compareExchange(
          expected: number, desired: number &+ 1, ordering: .acquiringAndReleasing)
        continue
      }
      let base = present ? word : mark &<< CountWindow.markShift
      let next = base | code &<< UInt64(truncatingIfNeeded: filled &* 3)
      if words.exchange(index, word, next) { break }
    }
    if result.isAlarming { return true }
    if warmEra.load(ordering: .relaxed) == era &+ 1 { return false }
    guard counts(era: era).total >= UInt64(truncatingIfNeeded: minimum) else { return false }
    warmEra.store(era &+ 1, ordering: .relaxed)
    return true
  }

  /// The last `size` results of an era.
  package func counts(era: UInt64) -> WindowCounts {
    let known = start.load(ordering: .acquiring)
    guard known &>> 40 == era & 0xff_ffff else { return WindowCounts() }
    let first = known & CountWindow.numberMask
    var number = head.load(ordering: .acquiring)
    var counts = WindowCounts()
    var room = size
    for _ in 0..<(words.count &- 1) {
      guard number >= first else { break }
      let (index, mark) = place(number, era)
      let word = words.load(index)
      guard word &>> CountWindow.markShift == mark else { break }
      let filled = CountWindow.filled(word)
      // Of the oldest word only its youngest results are in the window.
      let taken = Swift.min(filled, room)
      let results =
        (word & CountWindow.resultBits) &>> UInt64(truncatingIfNeeded: (filled &- taken) &* 3)
      counts.total &+= UInt64(truncatingIfNeeded: taken)
      counts.failures &+= CountWindow.count(results, CountWindow.highest &>> 2)
      counts.slow &+= CountWindow.count(results, CountWindow.highest &>> 1)
      room &-= taken
      if room == 0 || number == 0 { break }
      number &-= 1
    }
    return counts
  }

  /// The first word of an era. A new era begins behind the present word.
  @inline(__always)
  private func begin(_ era: UInt64) -> UInt64 {
    while true {
      let known = start.load(ordering: .acquiring)
      if known &>> 40 == era & 0xff_ffff { return known & CountWindow.numberMask }
      let next = (head.load(ordering: .acquiring) &+ 1) & CountWindow.numberMask
      _ = start.compareExchange(
        expected: known, desired: (era & 0xff_ffff) &<< 40 | next,
        ordering: .acquiringAndReleasing)
    }
  }

  /// Where a word lies, and the mark it bears in this era and lap.
  @inline(__always)
  private func place(_ number: UInt64, _ era: UInt64) -> (index: Int, mark: UInt64) {
    let count = UInt64(truncatingIfNeeded: words.count)
    let lap = number / count
    return (
      Int(truncatingIfNeeded: number &- lap &* count),
      (era & CountWindow.eraMask) &<< 1 | (lap & 1)
    )
  }

  /// How many results a word has: every code has its highest bit set.
  @inline(__always)
  private static func filled(_ word: UInt64) -> Int { (word & highest).nonzeroBitCount }

  @inline(__always)
  private static func count(_ results: UInt64, _ bits: UInt64) -> UInt64 {
    UInt64(truncatingIfNeeded: (results & bits).nonzeroBitCount)
  }

  private static let numberMask: UInt64 = (1 << 40) - 1
  private static let resultBits: UInt64 = (1 << 51) - 1
  /// The highest bit of each of the 17 codes.
  private static let highest: UInt64 = 0o4_4444_4444_4444_4444
}
