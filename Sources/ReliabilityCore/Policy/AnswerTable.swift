import Platform

/// The last good answer for each of a bounded number of keys, to be given when there is nothing better.
///
/// Sets of four entries; a new key takes the place of the oldest of its set. Keys are known by 128 bits
/// of keyed hash. Not for several threads: whoever holds it has a lock.
package struct AnswerTable: ~Copyable {
  package struct Key: BitwiseCopyable, Equatable {
    package let first: UInt64
    package let second: UInt64

    package init(_ first: UInt64, _ second: UInt64) {
      self.first = first
      self.second = second
    }
  }

  private struct Entry: BitwiseCopyable {
    var first: UInt64
    var second: UInt64
    var stored: Int64
    var length: Int
    var bytes: UnsafeMutableRawPointer?
  }

  private static let ways = 4
  private static let mostSteps = 256

  private let entries: Slab<Entry>
  private let sets: Int
  private let maxBytes: UInt64
  private let timeToLive: Int64
  private var usedBytes: UInt64 = 0

  package init(entries count: Int, maxBytes: UInt64, timeToLive: Int64) throws(Failure) {
    sets = Swift.max(1, (count &+ AnswerTable.ways &- 1) / AnswerTable.ways)
    let entries = try Slab<Entry>(count: sets &* AnswerTable.ways)
    self.entries = entries
    self.maxBytes = maxBytes
    self.timeToLive = timeToLive
  }

  /// Frees the answers, before the table itself goes.
  package mutating func drain() {
    for index in 0..<entries.count { remove(index) }
  }

  /// Keeps a copy of an answer; one that does not fit, or finds no memory, is not kept.
  package mutating func put(
    _ key: Key, _ bytes: UnsafeRawPointer?, _ length: Int, now: Int64
  ) {
    let index = place(for: key)
    remove(index)
    let size = UInt64(truncatingIfNeeded: Swift.max(1, length))
    guard size <= maxBytes else { return }
    // The answers that lie next go, until there is room; not more than a few for one.
    var other = index
    var steps = 0
    while usedBytes &+ size > maxBytes {
      other = other &+ 1 < entries.count ? other &+ 1 : 0
      steps &+= 1
      if other == index || steps > AnswerTable.mostSteps { return }
      remove(other)
    }
    guard let copy = platform_allocate(Swift.max(1, length)) else { return }
    if let bytes, length > 0 { memcpy(copy, bytes, length) }
    entries[index] = Entry(
      first: key.first, second: key.second, stored: now, length: length, bytes: copy)
    usedBytes &+= size
  }

  /// A copy of the answer, which the caller frees; `nil` when there is none.
  package func get(_ key: Key, now: Int64) -> (UnsafeMutableRawPointer, Int)? {
    let start = first(of: key)
    for index in start..<(start &+ AnswerTable.ways) {
      let entry = entries[index]
      guard let bytes = entry.bytes, entry.first == key.first, entry.second == key.second else {
        continue
      }
      // One from a time to come was stored before the clock was set back.
      guard now >= entry.stored, now &- entry.stored < timeToLive,
        let copy = platform_allocate(Swift.max(1, entry.length))
      else { return nil }
      memcpy(copy, bytes, entry.length)
      return (copy, entry.length)
    }
    return nil
  }

  private func first(of key: Key) -> Int {
    Int(truncatingIfNeeded: key.first % UInt64(truncatingIfNeeded: sets)) &* AnswerTable.ways
  }

  /// The key's own entry, an empty one, or the oldest of its set.
  private func place(for key: Key) -> Int {
    let start = first(of: key)
    var oldest = start
    for index in start..<(start &+ AnswerTable.ways) {
      let entry = entries[index]
      if entry.bytes != nil && entry.first == key.first && entry.second == key.second {
        return index
      }
      if entries[oldest].bytes != nil
        && (entry.bytes == nil || entry.stored < entries[oldest].stored)
      {
        oldest = index
      }
    }
    return oldest
  }

  private mutating func remove(_ index: Int) {
    guard let bytes = entries[index].bytes else { return }
    usedBytes &-= UInt64(truncatingIfNeeded: Swift.max(1, entries[index].length))
    platform_free(bytes)
    entries.at(index).pointee.bytes = nil
  }
}
