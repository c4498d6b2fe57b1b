/// The last results: how many there were, and which of them failed or were slow.
///
/// A result takes the next position by one addition, and that is all a quick success does but at every
/// sixteenth position. Any other marks its position in a ring of words of 16 positions. A word also
/// carries the lap it belongs to; one of another lap has no marks, so that neither starting afresh nor
/// going round has to clear anything.
package struct CountWindow: ~Copyable {
  /// Of a position in its word, and which of them is meant by `1 << position`.
  private enum Mark {
    static let failed: UInt64 = 1
    static let slow: UInt64 = 1 << 16
    /// The position was taken for a result of an earlier era: it is none.
    static let void: UInt64 = 1 << 32
    static let lapShift: UInt64 = 48
  }

  private let anchor = Anchor()
  /// Three numbers, each in a cache line of its own, and the ring.
  private let words: AtomicWords
  /// The next position: every result writes it.
  private static let next = 8
  /// How many are taking a position that they will mark, and have not yet.
  private static let marking = 16
  /// The era, beside its first position, which results only read.
  private static let start = 24
  private static let ring = 32
  /// How often `marking` is looked at before nobody is waited for any more.
  private static let patience = 10_000
  /// `start` has 24 bits of era above 40 bits of position.
  private static let eraShift: UInt64 = 40
  private static let eraMask: UInt64 = (1 << 24) - 1
  private static let positionMask: UInt64 = (1 << 40) - 1
  /// An era this long is counted anew from half of it, far beyond any window.
  private static let longEra: UInt64 = 1 << 39

  private let size: UInt64
  /// The ring has `1 << lapBits` words.
  private let lapBits: UInt64

  /// The last `size` results, at least 1.
  package init(size: Int, _ ground: inout Ground) {
    // As many words as hold the window wherever it begins, and one that late threads still mark.
    let needed = (size &+ 15) / 16 &+ 2
    lapBits = UInt64(truncatingIfNeeded: Int.bitWidth &- (needed &- 1).leadingZeroBitCount)
    words = ground.shared.words(CountWindow.ring &+ (1 &<< Int(truncatingIfNeeded: lapBits)))
    self.size = UInt64(truncatingIfNeeded: size)
  }

  /// Begins at another position than the first.
  package func begin(next: UInt64) {
    words.store(CountWindow.next, next)
    for index in 0..<(1 &<< Int(truncatingIfNeeded: lapBits)) {
      words.store(CountWindow.ring &+ index, place(next).lap &<< Mark.lapShift)
    }
  }

  /// Adds a result. The counts up to it when the rates must be looked at: it can have raised one, or it is the
  /// one with which there are enough results.
  @inline(__always)
  package func append(_ result: CallResult, era: UInt64, minimum: Int) -> WindowCounts? {
    guard let start = begin(era) else { return nil }
    return append(result, start, era, minimum)
  }

  /// Adds a result to the era that began at `start`, if that still is.
  @inline(__always)
  package func append(
    _ result: CallResult, _ start: UInt64, _ era: UInt64, _ minimum: Int
  ) -> WindowCounts? {
    let position = result.isAlarming ? takeMarked(result) : take()
    guard words.load(CountWindow.start) == start else {
      outlived(position, era)
      return nil
    }
    let length = CountWindow.distance(start, position &+ 1)
    if length >= CountWindow.longEra { shorten(start, position) }
    guard result.isAlarming || length == UInt64(truncatingIfNeeded: minimum) else { return nil }
    return counts(through: position, start)
  }

  /// The counts as of a position that was just taken. One before it that is taken and not marked yet would look like a
  /// quick success: it is waited for, though not for long, for its thread may be held up, or gone.
  @inline(never)
  private func counts(through position: UInt64, _ start: UInt64) -> WindowCounts {
    var patience = CountWindow.patience
    while patience > 0 && words.loadAcquiring(CountWindow.marking) != 0 { patience &-= 1 }
    return counts(start, position &+ 1)
  }

  /// Takes a position for a quick success. The first of a word makes the word its lap's.
  @inline(__always)
  private func take() -> UInt64 {
    let position = words.add(CountWindow.next, 1)
    if position & 15 == 0 { mark(position, 0) }
    return position
  }

  /// Takes a position and marks it.
  @inline(never)
  private func takeMarked(_ result: CallResult) -> UInt64 {
    words.add(CountWindow.marking, 1)
    let position = words.add(CountWindow.next, 1)
    mark(position, (result.failed ? Mark.failed : 0) | (result.slow ? Mark.slow : 0))
    words.add(CountWindow.marking, UInt64.max)
    return position
  }

  /// The last `size` results of an era.
  package func counts(era: UInt64) -> WindowCounts {
    let start = words.loadAcquiring(CountWindow.start)
    guard start &>> CountWindow.eraShift == era & CountWindow.eraMask else {
      return WindowCounts()
    }
    return counts(start, words.loadAcquiring(CountWindow.next))
  }

  /// The last `size` results of the era that began at `start`, of those before `end`.
  private func counts(_ start: UInt64, _ end: UInt64) -> WindowCounts {
    var counts = WindowCounts()
    let length = Swift.min(CountWindow.distance(start, end), size)
    var position = end &- length
    var voids: UInt64 = 0
    while position != end {
      let first = position & 15
      let taken = Swift.min(16 &- first, end &- position)
      let (index, lap) = place(position)
      let word = words.load(index)
      if word &>> Mark.lapShift == lap {
        let all = ((1 &<< taken) &- 1) &<< first
        let void = word &>> 32 & all
        counts.failures &+= CountWindow.count(word & (all & ~void))
        counts.slow &+= CountWindow.count(word &>> 16 & (all & ~void))
        voids &+= CountWindow.count(void)
      }
      position &+= taken
    }
    counts.total = length &- voids
    return counts
  }

  /// The era beside its first position, as it is stored; `nil` when a later era has begun.
  @inline(__always)
  package func begin(_ era: UInt64) -> UInt64? {
    let start = words.loadAcquiring(CountWindow.start)
    if start &>> CountWindow.eraShift == era & CountWindow.eraMask { return start }
    return beginAnew(era)
  }

  private func beginAnew(_ era: UInt64) -> UInt64? {
    let era = era & CountWindow.eraMask
    while true {
      let old = words.loadAcquiring(CountWindow.start)
      let ahead = (era &- old &>> CountWindow.eraShift) & CountWindow.eraMask
      if ahead == 0 { return old }
      if ahead > CountWindow.eraMask / 2 { return nil }
      let first = words.loadAcquiring(CountWindow.next) & CountWindow.positionMask
      let new = era &<< CountWindow.eraShift | first
      if words.exchange(CountWindow.start, old, new) { return new }
    }
  }

  /// The era changed, or was shortened, while a position was taken: in another era it is void.
  private func outlived(_ position: UInt64, _ era: UInt64) {
    let start = words.loadAcquiring(CountWindow.start)
    if start &>> CountWindow.eraShift == era & CountWindow.eraMask { return }
    if CountWindow.distance(start, position) < CountWindow.longEra { mark(position, Mark.void) }
  }

  private func shorten(_ start: UInt64, _ position: UInt64) {
    let first = (position &- CountWindow.longEra / 2) & CountWindow.positionMask
    _ = words.exchange(CountWindow.start, start, start & ~CountWindow.positionMask | first)
  }

  /// Adds marks of a position to its word, which becomes that of the position's lap if it is of an earlier one.
  private func mark(_ position: UInt64, _ marks: UInt64) {
    let (index, lap) = place(position)
    while true {
      let word = words.load(index)
      let ahead = (lap &- word &>> Mark.lapShift) & 0xffff
      // Of a later lap: the position is far behind the window.
      if ahead > 0x7fff { return }
      let present = ahead == 0 ? word : lap &<< Mark.lapShift
      if words.exchange(index, word, present | marks &<< (position & 15)) { return }
    }
  }

  /// Where a position's word lies, and the lap it bears.
  @inline(__always)
  private func place(_ position: UInt64) -> (index: Int, lap: UInt64) {
    let number = position &>> 4
    return (
      CountWindow.ring &+ Int(truncatingIfNeeded: number & ((1 &<< lapBits) &- 1)),
      number &>> lapBits & 0xffff
    )
  }

  /// How far a position lies behind the first of the era.
  @inline(__always)
  private static func distance(_ start: UInt64, _ position: UInt64) -> UInt64 {
    (position &- start) & positionMask
  }

  @inline(__always)
  private static func count(_ positions: UInt64) -> UInt64 {
    UInt64(truncatingIfNeeded: positions.nonzeroBitCount)
  }
}
