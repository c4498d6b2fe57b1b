import Platform
import ReliabilityCore

/// The last good answers, under a lock that a fork leaves free.
struct AnswerCache: ~Copyable {
  /// In a place of its own, since it changes under the lock; `nil` when none are kept.
  private let table: UnsafeMutablePointer<AnswerTable>?
  private let locks: ForkSafeLocks
  private let firstHash: SipHash
  private let secondHash: SipHash

  init(_ configuration: PolicyConfiguration) throws(Failure) {
    let locks = try ForkSafeLocks(count: 1)
    var table: UnsafeMutablePointer<AnswerTable>?
    if configuration.cachedEntries > 0 {
      let answers = try AnswerTable(
        entries: configuration.cachedEntries, maxBytes: configuration.cachedBytes,
        timeToLive: configuration.cachedTimeToLive)
      guard let memory = platform_allocate(MemoryLayout<AnswerTable>.size) else {
        throw .noMemory
      }
      let place = memory.bindMemory(to: AnswerTable.self, capacity: 1)
      place.initialize(to: answers)
      table = place
    }
    self.table = table
    self.locks = locks
    firstHash = SipHash(seed: processRandom())
    secondHash = SipHash(seed: processRandom())
  }

  deinit {
    guard let table else { return }
    table.pointee.drain()
    table.deinitialize(count: 1)
    platform_free(table)
  }

  func key(_ bytes: UnsafeRawPointer, _ length: Int) -> AnswerTable.Key {
    AnswerTable.Key(firstHash.hash(bytes, length), secondHash.hash(bytes, length))
  }

  func put(_ key: AnswerTable.Key, _ bytes: UnsafeRawPointer?, _ length: Int, now: Int64) {
    guard let table else { return }
    locks[0].lock()
    table.pointee.put(key, bytes, length, now: now)
    locks[0].unlock()
  }

  /// A copy, which the caller frees.
  func get(_ key: AnswerTable.Key, now: Int64) -> (UnsafeMutableRawPointer, Int)? {
    guard let table else { return nil }
    locks[0].lock()
    defer { locks[0].unlock() }
    return table.pointee.get(key, now: now)
  }
}
