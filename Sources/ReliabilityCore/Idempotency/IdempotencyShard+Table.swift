import Platform

// The table: where a key is found, put in and taken out.

extension IdempotencyShard {
  private func bucket(_ hash: UInt64) -> Int { Int(truncatingIfNeeded: hash & bucketMask) }

  func find(_ key: IdempotencyKey) -> Int? {
    var link = buckets[bucket(key.hash)]
    while link != 0 {
      let slot = Int(link) &- 1
      let entry = entries.at(slot)
      if entry.pointee.hash == key.hash && Int(entry.pointee.keyLength) == key.count,
        let bytes = entry.pointee.key, memcmp(bytes, key.bytes, key.count) == 0
      {
        return slot
      }
      link = entry.pointee.next
    }
    return nil
  }

  /// Puts in a key that is not there, pending, and clears others away for it as far as that is
  /// allowed. Nothing changes but that when it fails.
  mutating func insert(
    _ key: IdempotencyKey, _ now: Int64, _ shared: borrowing IdempotencyShared
  ) throws(Shortage) -> Int {
    var cleared = 0
    while !shared.reserveEntry() {
      guard cleared < IdempotencyShard.mostCleared, clearOne(now, shared) else { throw .entries }
      cleared &+= 1
    }
    while free == 0 && fresh >= capacity {
      guard cleared < IdempotencyShard.mostCleared, clearOne(now, shared) else {
        shared.releaseEntry()
        throw .entries
      }
      cleared &+= 1
    }
    while !shared.reserveBytes(key.count) {
      guard key.count <= shared.configuration.maxBytes, cleared < IdempotencyShard.mostCleared,
        clearOne(now, shared)
      else {
        shared.releaseEntry()
        throw .bytes
      }
      cleared &+= 1
    }
    guard let bytes = platform_allocate_block(key.count) else {
      shared.releaseBytes(key.count)
      shared.releaseEntry()
      throw .memory
    }
    memcpy(bytes, key.bytes, key.count)
    return link(key, bytes)
  }

  /// Puts an entry into a free slot, of which there is one.
  private mutating func link(_ key: IdempotencyKey, _ bytes: UnsafeMutableRawPointer) -> Int {
    let slot: Int
    if free != 0 {
      slot = Int(free) &- 1
      free = entries.at(slot).pointee.next
    } else {
      slot = fresh
      fresh &+= 1
    }
    let bucket = bucket(key.hash)
    entries[slot] = IdempotencyEntry(
      hash: key.hash, fingerprint: 0, key: bytes, block: nil, due: Time.forever, generation: 0,
      keyLength: UInt32(truncatingIfNeeded: key.count), next: buckets[bucket],
      waiters: IndexList(), heapPlace: DueHeap.nowhere, state: .absent, outcomeUnknown: false)
    buckets[bucket] = UInt32(truncatingIfNeeded: slot &+ 1)
    move(slot, to: .pending)
    heap.insert(slot, entries)
    return slot
  }

  /// Takes out an entry that nobody executes or waits for. A result that is pinned or was delivered
  /// stays, and so do its bytes.
  mutating func remove(_ slot: Int, _ shared: borrowing IdempotencyShared) {
    guard move(slot, to: .absent) else { return }
    let entry = entries.at(slot)
    let bucket = bucket(entry.pointee.hash)
    let link = UInt32(truncatingIfNeeded: slot &+ 1)
    if buckets[bucket] == link {
      buckets[bucket] = entry.pointee.next
    } else {
      var before = Int(buckets[bucket]) &- 1
      while before >= 0 && entries.at(before).pointee.next != link {
        before = Int(entries.at(before).pointee.next) &- 1
      }
      if before >= 0 { entries.at(before).pointee.next = entry.pointee.next }
    }
    if entry.pointee.heapPlace != DueHeap.nowhere {
      heap.remove(slot, entries)
    } else {
      kept.remove(slot, order)
    }
    platform_free(entry.pointee.key)
    shared.releaseBytes(Int(entry.pointee.keyLength))
    entry.pointee.block?.release(shared)
    shared.releaseEntry()
    entry.pointee.key = nil
    entry.pointee.block = nil
    entry.pointee.generation = 0
    entry.pointee.next = free
    free = link
  }

  /// Frees everything, for the end of the cache.
  package mutating func drain(_ shared: borrowing IdempotencyShared) {
    for slot in 0..<fresh {
      platform_free(entries[slot].key)
      entries[slot].block?.release(shared)
    }
    fresh = 0
  }
}
