/// The last four rates of a limiter, each of which held for an epoch, and the change to the next one.
///
/// The words of a rate lie beside the number of the attempt that wrote them, and only a later attempt overwrites
/// them. So a change is decided in whole or not at all, whichever thread or process is held up, or ends, at
/// whatever instruction: an attempt claims the next epoch, writes the rate, and decides it by one exchange,
/// which fails when another has claimed the epoch since.
struct RateEpochs: BitwiseCopyable {
  /// The present epoch and what is known of the next, in a line that is seldom written; then each epoch in turn.
  private let base: AtomicWords

  private static let epoch = 0
  /// The number of the epoch above 15 bits of attempt and one that says that it is decided.
  private static let next = 1
  private static let spare = 2
  private static let attemptMask: UInt64 = (1 << 15) - 1
  private static let count: UInt64 = 4

  /// Pairs before the first epoch, and of each: a cache line for what changes all the time, which is the user's,
  /// and three for the rate.
  private static let first = 4
  private static let stride = 16
  private static let rate = 4
  private static let settledWord = 15

  init(_ ground: inout Ground) {
    base = ground.shared.words(
      2 &* (RateEpochs.first &+ RateEpochs.stride &* Int(RateEpochs.count)))
  }

  /// Six more words that are seldom written.
  var rest: AtomicWords { base.from(RateEpochs.spare) }

  @inline(__always)
  var pairs: AtomicPairs { base.pairs }

  /// The rate of epoch 0, of at most 11 words.
  func begin(_ wordCount: Int, _ word: (Int) -> UInt64) {
    let start = start(of: 0) &+ RateEpochs.rate
    for index in 0..<wordCount { _ = write(start &+ index, word(index), 1) }
  }

  @inline(__always)
  var current: UInt64 { base.loadAcquiring(RateEpochs.epoch) }

  /// The pair of an epoch that is the user's.
  @inline(__always)
  func start(of epoch: UInt64) -> Int {
    RateEpochs.first &+ Int(truncatingIfNeeded: epoch & (RateEpochs.count &- 1))
      &* RateEpochs.stride
  }

  /// A word of the rate of the epoch at `start`.
  @inline(__always)
  func word(_ start: Int, _ index: Int) -> UInt64 {
    pairs.first(start &+ RateEpochs.rate &+ index)
  }

  /// Whether the rate of an epoch that is to follow is decided.
  func isDecided(_ epoch: UInt64) -> Bool {
    let next = base.loadAcquiring(RateEpochs.next)
    return next & 1 == 1 && next &>> 16 == epoch & (.max &>> 16)
  }

  /// Decides the rate of the epoch after `epoch`; false when others are about to.
  func decide(after epoch: UInt64, _ wordCount: Int, _ word: (Int) -> UInt64) -> Bool {
    let target = (epoch &+ 1) & (.max &>> 16)
    let seen = base.loadAcquiring(RateEpochs.next)
    guard current == epoch, seen &>> 16 <= target else { return false }
    var attempt: UInt64 = 1
    if seen &>> 16 == target {
      attempt = (seen &>> 1 & RateEpochs.attemptMask) &+ 1
      guard seen & 1 == 0 && attempt <= RateEpochs.attemptMask else { return false }
    }
    let claimed = target &<< 16 | attempt &<< 1
    guard base.exchange(RateEpochs.next, seen, claimed) else { return false }
    let start = start(of: target) &+ RateEpochs.rate
    for index in 0..<wordCount {
      guard write(start &+ index, word(index), claimed &>> 1) else { return false }
    }
    return base.exchange(RateEpochs.next, claimed, claimed | 1)
  }

  /// Makes a decided epoch the present one.
  func enter(_ epoch: UInt64) {
    _ = base.exchange(RateEpochs.epoch, epoch &- 1, epoch)
  }

  /// Forgets what was decided and never came about: only in memory that no sequence of calls leaves so.
  func forget(_ epoch: UInt64) {
    let next = base.loadAcquiring(RateEpochs.next)
    if next &>> 16 == epoch & (.max &>> 16) { _ = base.exchange(RateEpochs.next, next, 0) }
  }

  /// The word of an epoch that its first writer sets; `nil` when a later epoch is there.
  func settled(_ epoch: UInt64, _ value: UInt64) -> UInt64? {
    let index = start(of: epoch) &+ RateEpochs.settledWord
    while true {
      let (old, tag) = pairs.load(index)
      if tag == epoch { return old }
      if tag > epoch { return nil }
      if pairs.exchange(index, (old, tag), (value, epoch)) { return value }
    }
  }

  /// What `settled` has set, if the epoch is still known.
  func settled(_ epoch: UInt64) -> UInt64? {
    let (value, tag) = pairs.load(start(of: epoch) &+ RateEpochs.settledWord)
    return tag == epoch ? value : nil
  }

  /// False when a later attempt has been here.
  private func write(_ index: Int, _ value: UInt64, _ tag: UInt64) -> Bool {
    while true {
      let (old, oldTag) = pairs.load(index)
      if oldTag >= tag { return oldTag == tag }
      if pairs.exchange(index, (old, oldTag), (value, tag)) { return true }
    }
  }
}
