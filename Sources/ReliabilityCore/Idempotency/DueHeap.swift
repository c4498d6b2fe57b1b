/// The entries that are not completed, soonest due first: a binary heap of slots. An entry knows
/// its place in it, so that a lease can be renewed or ended without a search.
struct DueHeap: ~Copyable {
  /// The place of an entry that is in no heap.
  static let nowhere: UInt32 = .max

  private let slots: Slab<UInt32>
  private var count = 0

  init(capacity: Int) throws(Failure) {
    let slots = try Slab<UInt32>(count: capacity)
    self.slots = slots
  }

  var first: Int? { count > 0 ? Int(slots[0]) : nil }

  mutating func insert(_ slot: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    let place = count
    count &+= 1
    put(slot, place, entries)
    rise(from: place, entries)
  }

  mutating func remove(_ slot: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    let place = Int(entries.at(slot).pointee.heapPlace)
    entries.at(slot).pointee.heapPlace = DueHeap.nowhere
    count &-= 1
    guard place < count else { return }
    put(Int(slots[count]), place, entries)
    rise(from: place, entries)
    sink(from: place, entries)
  }

  /// Restores the order after the entry's due time changed.
  mutating func update(_ slot: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    let place = Int(entries.at(slot).pointee.heapPlace)
    rise(from: place, entries)
    sink(from: place, entries)
  }

  private func put(_ slot: Int, _ place: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    slots[place] = UInt32(truncatingIfNeeded: slot)
    entries.at(slot).pointee.heapPlace = UInt32(truncatingIfNeeded: place)
  }

  private func due(_ place: Int, _ entries: borrowing Slab<IdempotencyEntry>) -> Int64 {
    entries.at(Int(slots[place])).pointee.due
  }

  private func exchange(_ a: Int, _ b: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    let slot = Int(slots[a])
    put(Int(slots[b]), a, entries)
    put(slot, b, entries)
  }

  private func rise(from start: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    var place = start
    while place > 0 {
      let parent = (place &- 1) / 2
      guard due(place, entries) < due(parent, entries) else { return }
      exchange(place, parent, entries)
      place = parent
    }
  }

  private func sink(from start: Int, _ entries: borrowing Slab<IdempotencyEntry>) {
    var place = start
    while true {
      var child = place &* 2 &+ 1
      guard child < count else { return }
      if child &+ 1 < count && due(child &+ 1, entries) < due(child, entries) { child &+= 1 }
      guard due(child, entries) < due(place, entries) else { return }
      exchange(place, child, entries)
      place = child
    }
  }
}
