/// The objects of a region: entries in the order in which they were created, each behind the memory of the one
/// before. An entry is published by one exchange, and only the first that is not yet can be: so no name is
/// there twice, and no memory belongs to two.
///
/// Who creates claims that entry, writes a record into it, and publishes it. The words of a record lie beside the
/// number of the claim that wrote them, and only a later claim overwrites them: a claim may be taken over at any
/// time, whether its process is slow or dead, and a slow one then finds that its words are not taken. Where one
/// lies half done, the next waits for a moment, so that two do not take over from each other without an end.
///
/// Nothing of it is trusted: an entry that no sequence of calls leaves is a failure of the one who looks.
package struct RegionDirectory {
  package static let maximumCount = 65_536

  /// Words of an entry: its state and whether its object has begun, in a line, then the record's pairs.
  private static let stride = 88
  private static let state = 0
  private static let begun = 1
  private static let record = 8
  /// Of the record's pairs.
  private static let name = 0
  private static let kind = 8
  private static let offset = 9
  private static let length = 10
  private static let seed = 11
  private static let hashSeed = 12
  private static let now = 13
  private static let fields = 14
  private static let pairCount = 34

  /// A state is the number of the claim with one of these in its two lowest bits.
  private static let empty: UInt64 = 0
  private static let claimed: UInt64 = 1
  private static let published: UInt64 = 2
  private static let removed: UInt64 = 3
  private static let stateMask: UInt64 = 3

  private let words: AtomicWords
  private let count: Int
  private let bytes: UInt64

  /// The directory of a region whose memory begins at `base`.
  package init(_ base: AtomicWords, entries: Int, bytes: UInt64) {
    words = base.from(RegionHeader.bytes / 8)
    count = entries
    self.bytes = bytes
  }

  /// Where the objects' memory begins.
  package static func dataStart(entries: Int) -> UInt64 {
    let end = RegionHeader.bytes &+ entries &* stride &* 8
    return UInt64((end &+ RegionHeader.page &- 1) & ~(RegionHeader.page &- 1))
  }

  package struct Place {
    package let entry: Int
    package let record: ObjectRecord
    package let offset: UInt64
  }

  package enum Answer {
    case found(Place)
    /// The entry that is to be published lies half done; its state.
    case busy(UInt64)
  }

  /// Finds the object of the record's name, or creates its entry. `abandoned` is a state that has been busy for long
  /// enough to be taken over.
  package func find(
    _ wanted: ObjectRecord, abandoned: UInt64?
  ) throws(Failure) -> Answer {
    var end = RegionDirectory.dataStart(entries: count)
    for entry in 0..<count {
      let state = state(entry)
      if state & RegionDirectory.stateMask >= RegionDirectory.published {
        let place = try read(entry, state, from: end)
        if state & RegionDirectory.stateMask == RegionDirectory.published,
          place.record.name == wanted.name
        {
          return .found(place)
        }
        end = place.offset &+ place.record.bytes
        continue
      }
      if state & RegionDirectory.stateMask == RegionDirectory.claimed && state != abandoned {
        return .busy(state)
      }
      guard wanted.bytes <= bytes &- end else {
        throw Failure(.capacity, "bytes", "the region has no room for it")
      }
      return try create(wanted, entry, state, at: end)
    }
    throw Failure(.capacity, "max_objects", "the region has that many, those removed among them")
  }

  /// Takes a name away; false when there is none.
  package func remove(_ name: ObjectName) throws(Failure) -> Bool {
    var end = RegionDirectory.dataStart(entries: count)
    for entry in 0..<count {
      let state = state(entry)
      guard state & RegionDirectory.stateMask >= RegionDirectory.published else { return false }
      let place = try read(entry, state, from: end)
      if state & RegionDirectory.stateMask == RegionDirectory.published, place.record.name == name {
        return words.exchange(
          entry &* RegionDirectory.stride &+ RegionDirectory.state, state,
          state | RegionDirectory.removed)
      }
      end = place.offset &+ place.record.bytes
    }
    return false
  }

  /// Calls `body` with each entry that was published, and whether it still has its name, until that says no.
  /// Returns where the memory begins that is free.
  @discardableResult
  package func forEach(_ body: (Place, Bool) -> Bool) throws(Failure) -> UInt64 {
    var end = RegionDirectory.dataStart(entries: count)
    for entry in 0..<count {
      let state = state(entry)
      guard state & RegionDirectory.stateMask >= RegionDirectory.published else { break }
      let place = try read(entry, state, from: end)
      end = place.offset &+ place.record.bytes
      let isNamed = state & RegionDirectory.stateMask == RegionDirectory.published
      if !body(place, isNamed) { break }
    }
    return end
  }

  /// Whether an object's state is there in whole.
  package func hasBegun(_ entry: Int) -> Bool {
    words.loadAcquiring(entry &* RegionDirectory.stride &+ RegionDirectory.begun) != 0
  }

  package func setBegun(_ entry: Int) {
    words.storeReleasing(entry &* RegionDirectory.stride &+ RegionDirectory.begun, 1)
  }

  // MARK: - Entries

  private func state(_ entry: Int) -> UInt64 {
    words.loadAcquiring(entry &* RegionDirectory.stride &+ RegionDirectory.state)
  }

  private func pairs(_ entry: Int) -> AtomicPairs {
    words.from(entry &* RegionDirectory.stride &+ RegionDirectory.record).pairs
  }

  private func create(
    _ wanted: ObjectRecord, _ entry: Int, _ state: UInt64, at offset: UInt64
  ) throws(Failure) -> Answer {
    let place = entry &* RegionDirectory.stride &+ RegionDirectory.state
    let number = (state &>> 2) &+ 1
    let claim = number &<< 2 | RegionDirectory.claimed
    guard words.exchange(place, state, claim) else { return .busy(self.state(entry)) }
    let pairs = pairs(entry)
    for index in 0..<RegionDirectory.pairCount {
      let value = RegionDirectory.word(index, wanted, offset)
      guard RegionDirectory.write(pairs, index, value, number) else {
        let present = self.state(entry)
        // A later claim has written, and there is none.
        if present == claim { throw RegionDirectory.damaged }
        return .busy(present)
      }
    }
    guard words.exchange(place, claim, number &<< 2 | RegionDirectory.published) else {
      return .busy(self.state(entry))
    }
    return .found(Place(entry: entry, record: wanted, offset: offset))
  }

  /// False when a later claim has been here.
  private static func write(
    _ pairs: AtomicPairs, _ index: Int, _ value: UInt64, _ number: UInt64
  ) -> Bool {
    while true {
      let (old, oldNumber) = pairs.load(index)
      if oldNumber >= number { return false }
      if pairs.exchange(index, (old, oldNumber), (value, number)) { return true }
    }
  }

  private static func word(_ index: Int, _ record: ObjectRecord, _ place: UInt64) -> UInt64 {
    switch index {
    case name..<kind: record.name.words[index]
    case kind: record.kind
    case offset: place
    case length: record.bytes
    case seed: record.beginning.seed
    case hashSeed: record.hashSeed
    case now: UInt64(bitPattern: record.beginning.now)
    default: record.fields[index &- fields]
    }
  }

  /// The record of an entry whose memory begins at `end`, as that of every entry does.
  private func read(_ entry: Int, _ state: UInt64, from end: UInt64) throws(Failure) -> Place {
    let number = state &>> 2
    let pairs = pairs(entry)
    var values = InlineArray<34, UInt64>(repeating: 0)
    for index in 0..<RegionDirectory.pairCount {
      let (value, writer) = pairs.load(index)
      guard writer == number else { throw RegionDirectory.damaged }
      values[index] = value
    }
    let length = values[RegionDirectory.length]
    guard values[RegionDirectory.offset] == end, length <= bytes &- end, length & 63 == 0 else {
      throw RegionDirectory.damaged
    }
    var name = InlineArray<8, UInt64>(repeating: 0)
    for index in 0..<8 { name[index] = values[index] }
    var fields = InlineArray<20, UInt64>(repeating: 0)
    for index in 0..<20 { fields[index] = values[RegionDirectory.fields &+ index] }
    return Place(
      entry: entry,
      record: ObjectRecord(
        name: ObjectName(words: name), kind: values[RegionDirectory.kind], bytes: length,
        beginning: Beginning(
          seed: values[RegionDirectory.seed],
          now: Int64(bitPattern: values[RegionDirectory.now])),
        hashSeed: values[RegionDirectory.hashSeed], fields: fields),
      offset: end)
  }

  private static let damaged = Failure(.region, "region", "its directory was damaged")
}
