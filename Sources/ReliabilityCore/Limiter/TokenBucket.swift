/// A token bucket whose whole state is one word: the level, how many units (`TokenRate`) have been
/// spent or have spilled over since time 0. Tokens are there while the level is below what has flowed
/// in, and the bucket is full one capacity below that. A level ahead of the flow is debt.
///
/// A change of rate moves to the next of four epochs, each with a rate and a word of its own. The old
/// word is closed by its top bit, so that nobody can spend from it any more; whoever finds it closed
/// completes the move. No thread ever waits for another.
package struct TokenBucket: BitwiseCopyable {
  /// Where an epoch starts there is its level, beside its number.
  private let epochs: RateEpochs

  private static let closed: UInt64 = 1 << 63
  /// A level that the change to its epoch has not set yet.
  private static let unset: UInt64 = .max
  /// Keeps the stored level positive although it may be as low as −capacity.
  private static let bias: Int64 = 1 << 61
  /// Below every level.
  private static let lowest: Int64 = -1 << 61

  init(_ ground: inout Ground) { epochs = RateEpochs(&ground) }

  /// Six words that are seldom written.
  var rest: AtomicWords { epochs.rest }

  @inline(__always)
  private var levels: AtomicPairs { epochs.pairs }

  func begin(_ rate: TokenRate, initial: Int64, now: Int64) {
    epochs.begin(TokenRate.wordCount) { rate.word($0) }
    let level = rate.flow.applied(to: now) &- rate.units(initial)
    // Beside the number of the epoch, plus 1: no pair of zeros is a level.
    _ = levels.exchange(epochs.start(of: 0), (0, 0), (TokenBucket.stored(level), 1))
  }

  /// The bucket as one attempt at a change sees it, in units.
  private struct View {
    let rate: TokenRate
    let epoch: UInt64
    let word: Int
    let raw: UInt64
    /// The level, with what has spilled over by now taken away.
    let level: Int64
    /// What has flowed in.
    let flowed: Int64

    @inline(__always)
    var available: Int64 { flowed &- level }

    /// The level of a full bucket.
    @inline(__always)
    var full: Int64 { flowed &- rate.units(rate.capacity) }

    @inline(__always)
    func charge(_ tokens: Int64) -> Charge {
      Charge(tokens: tokens, level: level &+ rate.units(tokens), epoch: epoch)
    }
  }

  @inline(__always)
  private func view(_ now: Int64) -> View {
    while true {
      let number = epochs.current
      let word = epochs.start(of: number)
      let rate = rate(of: number)
      let flowed = rate.flow.applied(to: now)
      // Read last, so that other threads have little time to change it before it is exchanged.
      let raw = levels.firstAcquiring(word)
      guard epochs.current == number else { continue }
      if raw & TokenBucket.closed == 0 {
        let level = Swift.max(TokenBucket.level(raw), flowed &- rate.units(rate.capacity))
        return View(
          rate: rate, epoch: number, word: word, raw: raw, level: level, flowed: flowed)
      }
      open(number, raw, now)
    }
  }

  /// Finds an epoch closed: completes the change to the next.
  @inline(never)
  private func open(_ number: UInt64, _ raw: UInt64, _ now: Int64) {
    if epochs.isDecided(number &+ 1) {
      completeMove(from: number, now)
      // The words of a change that nobody can complete were not written by us.
      if epochs.current == number { epochs.forget(number &+ 1) }
      return
    }
    // A closed epoch without a next is not our work, and would hold up everybody. Taken for empty it promises nothing.
    if epochs.current == number && !epochs.isDecided(number &+ 1) {
      let flowed = rate(of: number).flow.applied(to: now)
      _ = levels.exchangeFirst(epochs.start(of: number), raw, TokenBucket.stored(flowed))
    }
  }

  @inline(__always)
  private func exchange(_ view: View, _ level: Int64) -> Bool {
    levels.exchangeFirst(view.word, view.raw, TokenBucket.stored(level))
  }

  /// Takes `tokens` if they are there. `tokens` is in `0...TokenRate.maximumTokens`.
  @inline(__always)
  package func take(_ tokens: Int64, _ now: Int64) throws(Failure) -> TakeDecision {
    while true {
      let view = view(now)
      guard tokens <= view.rate.capacity else { throw TokenBucket.neverFits }
      let next = view.level &+ view.rate.units(tokens)
      if next <= view.flowed {
        if tokens == 0 || exchange(view, next) { return .admitted }
        continue
      }
      return .limited(retryAfter: Time.subtract(view.rate.flow.time(of: next), now))
    }
  }

  /// Takes `tokens` ahead of time if they will be there within `maxWait`, and the debt allows it. `prepare` is
  /// told of the charge before each attempt at it.
  package func takeAhead(
    _ tokens: Int64, maxWait: Int64, _ now: Int64, _ prepare: (Charge) -> Void
  ) throws(Failure) -> AdvanceDecision {
    while true {
      let view = view(now)
      guard tokens <= view.rate.capacity else { throw TokenBucket.neverFits }
      let next = view.level &+ view.rate.units(tokens)
      let debt = view.rate.units(view.rate.maxDebt)
      if next <= view.flowed {
        prepare(view.charge(tokens))
        if exchange(view, next) {
          return .granted(wait: 0, charged: view.charge(tokens))
        }
        continue
      }
      let wait = Time.subtract(view.rate.flow.time(of: next), now)
      if wait <= maxWait && wait != Time.forever && next &- view.flowed <= debt {
        prepare(view.charge(tokens))
        if exchange(view, next) {
          return .granted(wait: wait, charged: view.charge(tokens))
        }
        continue
      }
      let untilNear = Time.subtract(wait, maxWait)
      let untilDebt = Time.subtract(view.rate.flow.time(of: next &- debt), now)
      return .limited(retryAfter: Swift.max(untilNear, untilDebt))
    }
  }

  /// Gives tokens back; never above the capacity.
  package func give(_ tokens: Int64, _ now: Int64) {
    while true {
      let view = view(now)
      let units = view.rate.units(Swift.min(tokens, view.rate.capacity))
      // From a debt it may take more than a capacity to be full.
      let rest = Swift.max(0, tokens &- view.rate.capacity)
      let more = view.rate.units(Swift.min(rest, view.rate.maxDebt))
      if exchange(view, Swift.max(view.level &- units &- more, view.full)) { return }
    }
  }

  /// Gives back `tokens` of an earlier charge, which is that of `permit` if there is one, as far as that
  /// promises nothing twice: not what the bucket has refilled meanwhile (had it not been taken, it would have
  /// spilled over when it was full), nor what others have reserved behind it, who keep their wait, nor debt that a change of rate forgave. Once
  /// more than two changes of rate lie between, none of it is known, and nothing comes back.
  ///
  /// The level falls by that. What was reserved above lies no higher from then on: how far its bucket would
  /// be from full without it is counted from there. An attempt that fails has lowered them too, so that
  /// where many threads meet less may come back than could, and never more.
  package func refund(
    _ tokens: Int64, _ now: Int64, _ reservations: borrowing PermitTable, _ permit: UInt64?,
    of charge: () -> Charge
  ) {
    while true {
      let view = view(now)
      let charged = charge()
      guard let (translated, forgiven) = translate(charged, to: view.epoch) else { return }
      let level = Swift.min(translated, view.level)
      let units = view.rate.units(Swift.min(tokens, view.rate.capacity))
      // Where nothing flows in, nothing spills over.
      let isStill = view.rate.tokens == 0 && charged.epoch == view.epoch
      let kept = isStill ? units : Swift.max(0, level &- view.full)
      let behind = Swift.max(0, view.level &- Swift.max(level, view.flowed))
      let back = Swift.min(units, kept) &- behind &- forgiven
      guard back > 0 else { return }
      let next = Swift.max(view.level &- back, view.full)
      // Before the exchange, so that whoever sees the new level sees these too.
      reservations.revise(word: Charge.levelWord, except: permit) {
        lowered(Charge($0), to: next, view.epoch)
      }
      if exchange(view, next) { return }
    }
  }

  /// Where the level of an earlier charge lies when the bucket's falls to `level`; `nil`: where it was.
  private func lowered(_ charge: Charge, to level: Int64, _ epoch: UInt64) -> UInt64? {
    if charge.epoch == epoch {
      return charge.level > level ? UInt64(bitPattern: level) : nil
    }
    guard let (translated, _) = translate(charge, to: epoch), translated > level else {
      return nil
    }
    // In the units of another rate there is no such level: nothing comes back.
    return UInt64(bitPattern: TokenBucket.lowest)
  }

  /// A charge's level in the units of a later epoch, and how far it lay beyond the debt of one: so much of it
  /// was forgiven then.
  private func translate(_ charge: Charge, to epoch: UInt64) -> (level: Int64, forgiven: Int64)? {
    guard epoch &- charge.epoch <= 2 else { return nil }
    if epoch &- charge.epoch == 2 {
      // A smaller capacity in between has cut what would have been there without the charge.
      let between = rate(of: charge.epoch &+ 1).capacity
      let before = rate(of: charge.epoch).capacity
      let after = rate(of: epoch).capacity
      if between < before && between < after { return nil }
    }
    var level = charge.level
    var forgiven: Int64 = 0
    var number = charge.epoch
    while number != epoch {
      let old = rate(of: number)
      number &+= 1
      let new = rate(of: number)
      // What had flowed in when the rate changed, in the units of both.
      guard let time = epochs.settled(number) else { return nil }
      let before = old.flow.applied(to: Int64(bitPattern: time))
      let after = new.flow.applied(to: Int64(bitPattern: time))
      guard let moved = TokenBucket.scale((level &- before).magnitude, old, new),
        let lost = TokenBucket.scale(forgiven.magnitude, old, new)
      else { return nil }
      if level >= before {
        let kept = Swift.min(moved, new.units(new.maxDebt))
        level = after &+ kept
        forgiven = lost &+ (moved &- kept)
      } else {
        level = after &- moved
        forgiven = lost
      }
    }
    return (level, forgiven)
  }

  /// Takes tokens that are used already, into debt if need be, and returns how many of them were
  /// beyond the greatest debt and are forgiven.
  package func charge(_ tokens: Int64, _ now: Int64) -> Int64 {
    while true {
      let view = view(now)
      let bottom = Swift.max(view.level, view.flowed &+ view.rate.units(view.rate.maxDebt))
      // No more than there is room for, before the multiplication.
      let room = (bottom &- view.level) / Swift.max(1, view.rate.unitsPerToken)
      let taken = Swift.min(tokens, room)
      if exchange(view, view.level &+ view.rate.units(taken)) { return tokens &- taken }
    }
  }

  /// Whole tokens; negative in debt.
  package func available(_ now: Int64) -> Int64 {
    let view = view(now)
    return view.rate.tokens(view.available)
  }

  package func currentRate() -> TokenRate { rate(of: epochs.current) }

  /// Moves to another rate: what is available stays, up to the new capacity; debts stay.
  package func move(to rate: TokenRate, _ now: Int64) throws(Failure) {
    let number = epochs.current
    if epochs.isDecided(number &+ 1) { completeMove(from: number, now) }
    let present = epochs.current
    guard epochs.decide(after: present, TokenRate.wordCount, { rate.word($0) }) else {
      throw Failure(.state, "limiter", "another reconfigure is under way")
    }
    completeMove(from: present, now)
  }

  /// Carries the level of an epoch over to the next, which is decided, unless that is done. Any number of threads
  /// may do so at once: each step has one outcome, and late ones change nothing.
  private func completeMove(from number: UInt64, _ now: Int64) {
    guard let settled = epochs.settled(number &+ 1, UInt64(bitPattern: now)) else { return }
    let time = Int64(bitPattern: settled)
    let old = epochs.start(of: number)
    let new = epochs.start(of: number &+ 1)
    while true {
      let (raw, mark) = levels.load(new)
      if mark >= number &+ 2 { break }
      if levels.exchange(new, (raw, mark), (TokenBucket.unset, number &+ 2)) { break }
    }
    var raw: UInt64
    while true {
      let (present, mark) = levels.load(old)
      guard mark == number &+ 1 else { return }
      raw = present
      if raw & TokenBucket.closed != 0 { break }
      if levels.exchange(old, (raw, mark), (raw | TokenBucket.closed, mark)) { break }
    }
    let oldRate = rate(of: number)
    let newRate = rate(of: number &+ 1)
    let flowed = oldRate.flow.applied(to: time)
    let level = Swift.max(
      TokenBucket.level(raw & ~TokenBucket.closed),
      flowed &- oldRate.units(oldRate.capacity))
    let available = TokenBucket.convert(flowed &- level, oldRate, newRate)
    let next = TokenBucket.stored(newRate.flow.applied(to: time) &- available)
    _ = levels.exchange(new, (TokenBucket.unset, number &+ 2), (next, number &+ 2))
    epochs.enter(number &+ 1)
  }

  /// Units of one rate in those of another, within the new one's capacity and debt.
  private static func convert(_ units: Int64, _ old: TokenRate, _ new: TokenRate) -> Int64 {
    let most = new.units(units >= 0 ? new.capacity : new.maxDebt)
    let size = Swift.min(scale(units.magnitude, old, new) ?? most, most)
    return units >= 0 ? size : 0 &- size
  }

  /// Units of one rate in those of another; `nil` when they do not fit 62 bits.
  private static func scale(_ units: UInt64, _ old: TokenRate, _ new: TokenRate) -> Int64? {
    WideMath.multiplyDivide(
      units, UInt64(bitPattern: new.unitsPerToken), by: UInt64(bitPattern: old.unitsPerToken)
    ).map { Int64(bitPattern: $0) }
  }

  private static let neverFits = Failure(
    .neverFits, "tokens", "more than the capacity: it could never be admitted")

  @inline(__always)
  private static func stored(_ level: Int64) -> UInt64 {
    UInt64(bitPattern: level &+ bias) & ~closed
  }

  @inline(__always)
  private static func level(_ raw: UInt64) -> Int64 { Int64(bitPattern: raw) &- bias }

  @inline(__always)
  private func rate(of epoch: UInt64) -> TokenRate {
    let start = epochs.start(of: epoch)
    return TokenRate { epochs.word(start, $0) }
  }
}
