/// A key and what is known of it. All zero is an absent one.
struct IdempotencyEntry: BitwiseCopyable {
  var hash: UInt64
  /// The hash of the request; 0: not checked.
  var fingerprint: UInt64
  var key: UnsafeMutableRawPointer?
  var block: ResultBlock?
  /// When its state ends by itself: with the lease, the time for a promotion, or the time to live.
  var due: Int64
  /// Of the last lease; 0: none yet.
  var generation: UInt64
  var keyLength: UInt32
  /// The next slot in the bucket, plus 1, or in the list of free ones; 0: none.
  var next: UInt32
  /// Who joined, in the order of coming. While the entry is pending, the first is promoted.
  var waiters: IndexList
  var heapPlace: UInt32
  var state: KeyState
  /// An earlier run may have had effects.
  var outcomeUnknown: Bool
  /// The run is another process's, or not known to be this one's yet: when its time is over, the first who
  /// waits is to ask again.
  var isElsewhere: Bool = false
}

/// A key as a caller gives it, with its hash.
package struct IdempotencyKey {
  package let bytes: UnsafeRawPointer
  package let count: Int
  package let hash: UInt64

  package init(_ bytes: UnsafeRawPointer, _ count: Int, hash: UInt64) {
    self.bytes = bytes
    self.count = count
    self.hash = hash
  }
}

/// The right to execute a key.
package struct IdempotencyLease {
  package let id: UInt64
  package let fence: UInt64
  package let expiresIn: Int64
  package let outcomeUnknown: Bool

  package init(id: UInt64, fence: UInt64, expiresIn: Int64, outcomeUnknown: Bool) {
    self.id = id
    self.fence = fence
    self.expiresIn = expiresIn
    self.outcomeUnknown = outcomeUnknown
  }

  private static let slotBits: UInt64 = 24
  private static let shardShift: UInt64 = 60
  static let generationMask: UInt64 = (1 << 36) - 1

  /// `shard << 60 | generation << 24 | slot`; the generation is not 0, and so the id is not.
  static func id(shard: UInt64, generation: UInt64, slot: Int) -> UInt64 {
    shard &<< shardShift | generation &<< slotBits | UInt64(truncatingIfNeeded: slot)
  }

  @inline(__always)
  package static func shard(of id: UInt64) -> Int { Int(truncatingIfNeeded: id &>> shardShift) }

  @inline(__always)
  static func generation(of id: UInt64) -> UInt64 { id &>> slotBits & generationMask }

  @inline(__always)
  static func slot(of id: UInt64) -> Int {
    Int(truncatingIfNeeded: id & ((1 << slotBits) &- 1))
  }
}
