/// The buckets of many keys: open addressing over 16-byte slots `(tag, full)`, of which four share a
/// cache line. `full` is the time at which the key's bucket is full again. A slot whose time has come
/// says no more than an absent one, and is free for another key: nothing is ever deleted.
///
/// A key lies in the first slots of its window that were free when it came. Slots change by one
/// exchange of all 16 bytes. So that two threads which bring a new key at the same time cannot give
/// it two buckets, a slot is first taken unconfirmed, and nobody spends from it; it is confirmed after
/// the window was searched for another of the same key. Of two unconfirmed ones the lower stays, and a
/// confirmed one always does. Whoever finds an unconfirmed slot can finish the work.
struct KeyTable: BitwiseCopyable {
  private let slots: AtomicPairs
  let count: Int
  private let groupMask: Int
  private let window: Int

  private static let groupSize = 4
  private static let maximumWindow = 64
  private static let unused: UInt64 = 0
  private static let deleted: UInt64 = 1
  private static let confirmed: UInt64 = 1

  /// `count` is a power of two, at least 16.
  init(count: Int, _ slots: AtomicPairs) {
    self.slots = slots
    self.count = count
    groupMask = count / KeyTable.groupSize &- 1
    window = Swift.min(count, KeyTable.maximumWindow)
  }

  /// The tag of a key's hash, confirmed; never `unused` or `deleted`.
  static func tag(_ hash: UInt64) -> UInt64 {
    (hash &>> 1 == 0 ? 2 : hash) | confirmed
  }

  /// What to do about a key's bucket.
  enum Change {
    case keep
    case set(full: Int64)
  }

  enum Outcome {
    case done
    case noPlace
  }

  /// Finds the key's bucket, asks `decide` about the time at which it is full (any time in the past
  /// when there is none), and makes the change; asks again when another thread came between.
  @inline(__always)
  func change(
    _ tag: UInt64, _ now: Int64, evict: Bool, evicted: inout Bool,
    _ decide: (Int64) -> Change
  ) -> Outcome {
    while true {
      var place = -1
      var placeTag: UInt64 = 0
      var soonest = Int64.max
      var found = -1
      var position = start(tag)
      for _ in 0..<window {
        let (slotTag, full) = load(position)
        if slotTag | KeyTable.confirmed == tag && slotTag > KeyTable.deleted {
          found = position
          if slotTag == tag {
            switch decide(full) {
            case .keep: return .done
            case .set(let next):
              if exchange(position, tag, full, tag, next) { return .done }
            }
          } else {
            confirm(position, tag)
          }
          break
        }
        if place < 0 || (soonest > now && full < soonest) {
          if full <= now || full < soonest {
            place = position
            placeTag = slotTag
            soonest = full
          }
        }
        if slotTag == KeyTable.unused { break }
        position = next(position)
      }
      if found >= 0 { continue }
      guard case .set = decide(0) else { return .done }
      let takesBusy = soonest > now
      guard place >= 0 && (!takesBusy || evict) else { return .noPlace }
      // Held for a moment by a time just ahead, so that nobody takes it for free.
      if exchange(
        place, placeTag, soonest, tag & ~KeyTable.confirmed, now &+ Time.millisecond)
      {
        if takesBusy { evicted = true }
        confirm(place, tag)
      }
    }
  }

  /// Calls `body` with each key's tag, and the time at which its bucket is full.
  func forEach(_ body: (UInt64, Int64) -> Void) {
    for position in 0..<count {
      let (tag, full) = load(position)
      if tag > KeyTable.deleted && tag & KeyTable.confirmed != 0 { body(tag, full) }
    }
  }

  /// Confirms the unconfirmed slot at `position`, or drops it when the key has another.
  private func confirm(_ position: Int, _ tag: UInt64) {
    let mine = load(position)
    guard mine.tag == tag & ~KeyTable.confirmed else { return }
    var other = start(tag)
    var below = true
    for _ in 0..<window {
      if other == position {
        below = false
      } else {
        let (otherTag, otherFull) = load(other)
        if otherTag == tag || (otherTag == mine.tag && below) {
          _ = exchange(position, mine.tag, mine.full, KeyTable.deleted, 0)
          return
        }
        if otherTag == mine.tag {
          guard exchange(other, otherTag, otherFull, KeyTable.deleted, 0) else { return }
        }
        if otherTag == KeyTable.unused { break }
      }
      other = next(other)
    }
    // Full until now: what is decided about it next charges it for the first time.
    _ = exchange(position, mine.tag, mine.full, tag, mine.full &- Time.millisecond)
  }

  @inline(__always)
  private func start(_ tag: UInt64) -> Int {
    Int(truncatingIfNeeded: tag &>> 32 ^ tag &>> 8) & groupMask &* KeyTable.groupSize
  }

  @inline(__always)
  private func next(_ position: Int) -> Int { (position &+ 1) & (count &- 1) }

  @inline(__always)
  private func load(_ position: Int) -> (tag: UInt64, full: Int64) {
    let (tag, full) = slots.load(position)
    return (tag, Int64(bitPattern: full))
  }

  @inline(__always)
  private func exchange(
    _ position: Int, _ tag: UInt64, _ full: Int64, _ newTag: UInt64, _ newFull: Int64
  ) -> Bool {
    slots.exchange(
      position, (tag, UInt64(bitPattern: full)), (newTag, UInt64(bitPattern: newFull)))
  }
}
