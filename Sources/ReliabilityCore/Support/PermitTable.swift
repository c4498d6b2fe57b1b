/// The permits that are out: a bounded table in which each slot is completed exactly once.
///
/// A permit is `generation << 20 | slot`; the generation starts at random and changes with each use
/// of the slot, so that a permit of another table, a late or a repeated one is recognised. A slot
/// whose time has run out is void, and free for the next. Lock-free: a slot changes hands by one
/// exchange of its tag.
///
/// Where processes share the table, one may end at any instruction. A slot that it has claimed and not given
/// out yet is watched by the next that comes by, and taken over when a permit's time has passed since.
package struct PermitTable: ~Copyable {
  /// What is remembered of a permit; a table keeps the first one, two or three of them.
  package struct Payload {
    package let first: UInt64
    package let second: UInt64
    package let third: UInt64

    package init(_ first: UInt64, _ second: UInt64 = 0, _ third: UInt64 = 0) {
      self.first = first
      self.second = second
      self.third = third
    }
  }

  package static let maximumCount = 1 << 20

  private static let slotBits: UInt64 = 20
  /// A tag is the generation with one of these in its two lowest bits.
  private static let free: UInt64 = 0
  private static let claiming: UInt64 = 1
  private static let busy: UInt64 = 2
  private static let ending: UInt64 = 3
  private static let stateMask: UInt64 = 3
  private static let nextGeneration: UInt64 = 4
  /// What `current` counts with: 40 bits, which may go round.
  private static let currentMask: UInt64 = (1 << 40) - 1

  private let slots: AtomicWords
  /// What there is once a table.
  private let marks: AtomicWords
  /// The slots from here on were never used.
  private static let used = 0
  /// Of the generations.
  private static let seed = 1
  /// A slot that is watched, its tag, and until when.
  private static let watched = 2
  private static let watchedTag = 3
  private static let watchedUntil = 4

  /// Words a slot: its tag, when it expires, the payload.
  private let stride: Int
  private let hints: ThreadHints
  private let anchor = Anchor()
  private let count: Int

  /// `count` at most 2^20; 0 makes a table that never gives a permit. `payloadWords` 1, 2 or 3.
  init(count: Int, payloadWords: Int, _ ground: inout Ground) {
    stride = 2 &+ payloadWords
    self.count = count
    marks = ground.shared.words(8)
    slots = ground.shared.words(count &* stride)
    hints = ThreadHints(count: count, ground.local.words(ThreadHints.wordCount))
  }

  func begin(seed: UInt64) { marks.begin(PermitTable.seed, seed | 1) }

  func settle(_ salt: UInt64) { hints.settle(salt) }

  /// The generation of a slot that was never used is random.
  @inline(never)
  private func firstGeneration(_ slot: Int) -> UInt64 {
    // 41 bits to begin with: 2^41 uses until the top bit is reached. Never 0.
    let random = SplitMix64.mix(
      marks.load(PermitTable.seed) &+ UInt64(truncatingIfNeeded: slot) &* SplitMix64.increment)
    return (random &>> 23 | 1) &<< 2
  }

  /// A new permit, or `nil` when all are out.
  ///
  /// A slot whose permit expired, or whose `first` is older than `current` when one is given,
  /// is taken over.
  package func claim(
    _ payload: Payload, expires: Int64, now: Int64, current: UInt64? = nil
  ) -> UInt64? {
    let row = ThreadHints.row()
    var slot = hints[row]
    for _ in 0..<count {
      if slot >= count { slot = 0 }
      let base = slot &* stride
      let tag = slots.loadAcquiring(base)
      if isAvailable(base, tag, now, current) {
        let generation =
          tag == 0
          ? firstGeneration(slot) : (tag & ~PermitTable.stateMask) &+ PermitTable.nextGeneration
        if slots.exchange(base, tag, generation | PermitTable.claiming) {
          slots.store(base &+ 1, UInt64(bitPattern: expires))
          slots.store(base &+ 2, payload.first)
          if stride > 3 { slots.store(base &+ 3, payload.second) }
          if stride > 4 { slots.store(base &+ 4, payload.third) }
          if UInt64(truncatingIfNeeded: slot) >= marks.load(PermitTable.used) { raiseUsed(slot) }
          slots.storeReleasing(base, generation | PermitTable.busy)
          hints[row] = slot &+ 1
          return permit(generation, slot)
        }
      }
      slot &+= 1
    }
    freeGone(now, expires)
    return nil
  }

  private var usedCount: Int {
    // Whatever stands there, no more than there are.
    Int(truncatingIfNeeded: Swift.min(marks.load(PermitTable.used), UInt64(count)))
  }

  @inline(never)
  private func raiseUsed(_ slot: Int) {
    let next = UInt64(slot &+ 1)
    while true {
      let old = marks.load(PermitTable.used)
      if old >= next || marks.exchange(PermitTable.used, old, next) { return }
    }
  }

  /// With no slot left, looks after those that were claimed and are not given out yet: the next call finds what is
  /// free by this.
  @inline(never)
  private func freeGone(_ now: Int64, _ expires: Int64) {
    for slot in 0..<count {
      let base = slot &* stride
      let tag = slots.loadAcquiring(base)
      if tag & PermitTable.stateMask == PermitTable.claiming, isGone(slot, tag, now, expires) {
        _ = slots.exchange(base, tag, tag & ~PermitTable.stateMask)
      }
    }
  }

  /// Whether a slot that is being claimed was left so by a process that ended. One slot at a time is watched.
  private func isGone(_ slot: Int, _ tag: UInt64, _ now: Int64, _ expires: Int64) -> Bool {
    let watched = marks.load(PermitTable.watched)
    let watchedTag = marks.load(PermitTable.watchedTag)
    if watched == UInt64(slot) && watchedTag == tag {
      return Int64(bitPattern: marks.load(PermitTable.watchedUntil)) <= now
    }
    if watched < UInt64(count), watchedTag & PermitTable.stateMask == PermitTable.claiming,
      slots.load(Int(watched) &* stride) == watchedTag
    {
      return false
    }
    marks.store(PermitTable.watchedUntil, UInt64(bitPattern: expires))
    marks.store(PermitTable.watchedTag, tag)
    marks.store(PermitTable.watched, UInt64(slot))
    return false
  }

  /// What was claimed with the permit; `nil` when it is stale. It is complete after this.
  package func complete(_ permit: UInt64, now: Int64) -> Payload? {
    end(permit, now: now, as: PermitTable.free)
  }

  /// As `complete`, but the place stays taken, and `revise` reaches it, until `release`.
  package func end(_ permit: UInt64, now: Int64) -> Payload? {
    end(permit, now: now, as: PermitTable.ending)
  }

  @inline(__always)
  private func end(_ permit: UInt64, now: Int64, as state: UInt64) -> Payload? {
    let slot = PermitTable.slot(of: permit)
    guard slot < count else { return nil }
    let base = slot &* stride
    let tag = slots.loadAcquiring(base)
    guard tag & PermitTable.stateMask == PermitTable.busy,
      self.permit(tag & ~PermitTable.stateMask, slot) == permit
    else { return nil }
    let isGood = Int64(bitPattern: slots.load(base &+ 1)) > now
    let payload = payload(base)
    let next = (tag & ~PermitTable.stateMask) | (isGood ? state : PermitTable.free)
    guard slots.exchange(base, tag, next) else { return nil }
    hints[ThreadHints.row()] = slot
    return isGood ? payload : nil
  }

  /// What is remembered of a permit that only the caller can end, or is ending.
  package func payload(of permit: UInt64) -> Payload {
    payload(PermitTable.slot(of: permit) &* stride)
  }

  /// Frees the place of a permit that was ended, or that nobody else knows.
  package func release(_ permit: UInt64) {
    let slot = PermitTable.slot(of: permit)
    let base = slot &* stride
    let tag = slots.load(base)
    // It may have expired, and be another's by now.
    guard self.permit(tag & ~PermitTable.stateMask, slot) == permit else { return }
    _ = slots.exchange(base, tag, tag & ~PermitTable.stateMask)
    hints[ThreadHints.row()] = slot
  }

  /// Writes what is remembered of a permit that nobody else knows yet.
  package func remember(_ permit: UInt64, _ payload: Payload) {
    let base = PermitTable.slot(of: permit) &* stride
    slots.store(base &+ 2, payload.first)
    if stride > 3 { slots.store(base &+ 3, payload.second) }
    if stride > 4 { slots.store(base &+ 4, payload.third) }
  }

  /// How many are out and valid; `soonest` is when the first of them expires.
  package func open(now: Int64, current: UInt64? = nil) -> (count: Int, soonest: Int64) {
    var open = 0
    var soonest = Time.forever
    for slot in 0..<count {
      let base = slot &* stride
      let tag = slots.loadAcquiring(base)
      if tag & PermitTable.stateMask == PermitTable.busy && !isAvailable(base, tag, now, current) {
        open &+= 1
        soonest = Swift.min(soonest, Int64(bitPattern: slots.load(base &+ 1)))
      }
    }
    return (open, soonest)
  }

  /// Changes one word of what is remembered of the permits that are out or ending, but for one: `change` says
  /// what it becomes, if it does. Of as many slots as were ever used at a time.
  package func revise(word: Int, except permit: UInt64?, _ change: (Payload) -> UInt64?) {
    let own = permit.map { PermitTable.slot(of: $0) }
    for slot in 0..<usedCount where slot != own {
      let base = slot &* stride
      while slots.loadAcquiring(base) & PermitTable.busy != 0 {
        let old = slots.load(base &+ 2 &+ word)
        // An exchange that fails met another such change, or a permit that ended.
        guard let new = change(payload(base)), !slots.exchange(base &+ 2 &+ word, old, new) else {
          break
        }
      }
    }
  }

  /// Lowers one word of what is remembered, unless it is lower.
  package func lower(word: Int, of permit: UInt64, to value: Int64) {
    let index = PermitTable.slot(of: permit) &* stride &+ 2 &+ word
    while true {
      let old = slots.load(index)
      if Int64(bitPattern: old) <= value { return }
      if slots.exchange(index, old, UInt64(bitPattern: value)) { return }
    }
  }

  /// The place of a permit, below the count of its table.
  @inline(__always)
  package static func slot(of permit: UInt64) -> Int {
    Int(truncatingIfNeeded: permit & ((1 << slotBits) &- 1))
  }

  @inline(__always)
  private func payload(_ base: Int) -> Payload {
    Payload(
      slots.load(base &+ 2), stride > 3 ? slots.load(base &+ 3) : 0,
      stride > 4 ? slots.load(base &+ 4) : 0)
  }

  @inline(__always)
  private func isAvailable(_ base: Int, _ tag: UInt64, _ now: Int64, _ current: UInt64?) -> Bool {
    switch tag & PermitTable.stateMask {
    case PermitTable.free: return true
    // An end that a fork left half done expires as well.
    case PermitTable.busy, PermitTable.ending:
      if Int64(bitPattern: slots.load(base &+ 1)) <= now { return true }
      guard let current else { return false }
      // Older only: whoever asks may itself be behind the one that holds the slot.
      let behind = (current &- slots.load(base &+ 2)) & PermitTable.currentMask
      return behind != 0 && behind <= PermitTable.currentMask / 2
    default: return false
    }
  }

  @inline(__always)
  private func permit(_ generation: UInt64, _ slot: Int) -> UInt64 {
    (generation &>> 2) &<< PermitTable.slotBits | UInt64(truncatingIfNeeded: slot)
  }
}
