import Platform
import ReliabilityCore
import Synchronization

/// What a place in the pool has besides its call, and keeps from one to the next.
struct CallPlace: BitwiseCopyable {
  /// What the calls here have counted. Whoever has the place is the only one to write them, so that no count
  /// is shared by threads; they are read by anybody.
  var tallies: InlineArray<16, UInt64>
  /// How many calls have been here.
  var uses: UInt64
  /// Retries made for each rule of the table, and for codes that none matches; of this call if
  /// `Call.hasRetried`, else of an earlier one.
  var ruleRetries: InlineArray<65, UInt32>
}

/// The calls of a policy: handles from chunks that are allocated when first needed, then used again.
///
/// One word tells the first free call, how many calls are alive, and whether the policy still has its owner;
/// it carries a count of changes, so that a call which went and came back between a look and an exchange
/// is noticed. Chunks stay until the pool goes.
struct CallPool: ~Copyable {
  private static let chunkSize = 64
  private static let mostLooks = 1_000_000

  /// What the one word says.
  private struct Head {
    private static let bits: UInt64 = 17
    private static let mask: UInt64 = (1 << bits) - 1
    private static let owned: UInt64 = 1 << (2 * bits)

    var raw: UInt64

    init(raw: UInt64) { self.raw = raw }

    init(first: UInt64, alive: UInt64, isOwned: Bool, after old: Head) {
      let changes = ((old.raw &>> (2 &* Head.bits &+ 1)) &+ 1) &<< (2 &* Head.bits &+ 1)
      raw = changes | (isOwned ? Head.owned : 0) | alive &<< Head.bits | first
    }

    static let new = Head(raw: owned)

    /// The number of the first free call, plus 1; 0: there is none.
    var first: UInt64 { raw & Head.mask }
    var alive: UInt64 { raw &>> Head.bits & Head.mask }
    var isOwned: Bool { raw & Head.owned != 0 }
    /// Nobody needs the policy any more.
    var isLast: Bool { alive == 0 && !isOwned }
  }

  private let memory: Block
  /// The addresses of the chunks, 0 for those not there yet.
  private let chunks: AtomicWords
  /// For each call the number of the next free one, plus 1.
  private let next: AtomicWords
  private let head: Atomic<UInt64>
  private let limit: UInt64
  private let chunkCount: Int

  /// `limit` at most 65,536.
  init(limit: Int) throws(Failure) {
    let count = (limit &+ CallPool.chunkSize &- 1) / CallPool.chunkSize
    let memory = try Block(words: count &* (1 &+ CallPool.chunkSize))
    next = memory.words
    chunks = memory.words.from(count &* CallPool.chunkSize)
    self.memory = memory
    self.limit = UInt64(truncatingIfNeeded: limit)
    chunkCount = count
    head = Atomic(Head.new.raw)
  }

  deinit {
    for chunk in 0..<chunkCount {
      platform_free(UnsafeMutableRawPointer(bitPattern: UInt(chunks.load(chunk))))
    }
  }

  var aliveCount: Int { Int(truncatingIfNeeded: look().alive) }

  private func look() -> Head { Head(raw: head.load(ordering: .acquiring)) }

  private func exchange(_ old: Head, _ new: Head) -> Bool {
    head.compareExchange(
      expected: old.raw, desired: new.raw, ordering: .acquiringAndReleasing
    ).exchanged
  }

  /// The handle of a free call, whose memory is not a call yet.
  func take() throws(Failure) -> OpaquePointer {
    var looks = 0
    while true {
      let top = look()
      // Not more than the limit are alive, so that one is free, or about to be put on the list by the thread
      // that made its chunk. That thread may be gone, in the child of a fork.
      guard top.alive < limit, looks < CallPool.mostLooks else {
        throw Failure(.capacity, "max_calls", "that many calls are alive")
      }
      guard top.first != 0 else {
        looks &+= 1
        do throws(Failure) { try grow() } catch {
          // Somebody may have put one back meanwhile.
          if look().first != 0 { continue }
          throw error
        }
        continue
      }
      let index = Int(truncatingIfNeeded: top.first &- 1)
      let rest = next.load(index)
      let new = Head(first: rest, alive: top.alive &+ 1, isOwned: top.isOwned, after: top)
      if exchange(top, new) { return handle(index) }
    }
  }

  /// Takes the handle with a number back. True: nobody needs the policy any more.
  func put(_ index: UInt32) -> Bool {
    while true {
      let top = look()
      next.store(Int(index), top.first)
      let new = Head(
        first: UInt64(index) &+ 1, alive: top.alive &- 1, isOwned: top.isOwned, after: top)
      if exchange(top, new) { return new.isLast }
    }
  }

  /// The owner gives the policy up. True: nobody needs it any more.
  func disown() -> Bool {
    while true {
      let top = look()
      let new = Head(first: top.first, alive: top.alive, isOwned: false, after: top)
      if exchange(top, new) { return new.isLast }
    }
  }

  private func push(_ index: Int) {
    while true {
      let top = look()
      next.store(index, top.first)
      let new = Head(
        first: UInt64(truncatingIfNeeded: index &+ 1), alive: top.alive, isOwned: top.isOwned,
        after: top)
      if exchange(top, new) { return }
    }
  }

  // MARK: - Places

  /// Where it lies behind its call.
  private static let placeOffset = (MemoryLayout<Call>.size &+ 15) & ~15
  private static let stride = handleStride(placeOffset &+ MemoryLayout<CallPlace>.size)

  @inline(__always)
  static func place(of call: Handle<Call>) -> UnsafeMutablePointer<CallPlace> {
    (UnsafeMutableRawPointer(call) + placeOffset).assumingMemoryBound(to: CallPlace.self)
  }

  /// The word of a place that a counter is kept in, its first being the tallies.
  @inline(__always)
  private static func tally(
    _ call: Handle<Call>, _ counter: Int
  ) -> UnsafeMutablePointer<Atomic<UInt64>> {
    UnsafeMutableRawPointer(place(of: call)).assumingMemoryBound(to: Atomic<UInt64>.self) + counter
  }

  /// A number for the next call at a place: another than any before in the pool. Never 0.
  static func nextID(_ call: Handle<Call>) -> UInt64 {
    let place = place(of: call)
    place.pointee.uses &+= 1
    return place.pointee.uses &<< 16 | UInt64(poolIndex(call))
  }

  @inline(__always)
  static func count(_ call: Handle<Call>, _ counter: Int, _ amount: UInt64) {
    let tally = tally(call, counter)
    tally.pointee.store(tally.pointee.load(ordering: .relaxed) &+ amount, ordering: .relaxed)
  }

  /// What all calls have counted, in one pass over their places.
  func counted() -> InlineArray<16, UInt64> {
    var sums = InlineArray<16, UInt64>(repeating: 0)
    for chunk in 0..<chunkCount {
      guard let memory = UnsafeMutableRawPointer(bitPattern: UInt(chunks.loadAcquiring(chunk)))
      else { continue }
      for slot in 0..<CallPool.chunkSize {
        let call: Handle<Call> = uncheckedHandle(OpaquePointer(memory + slot &* CallPool.stride))
        for counter in 0..<16 {
          sums[counter] &+= CallPool.tally(call, counter).pointee.load(ordering: .relaxed)
        }
      }
    }
    return sums
  }

  private func grow() throws(Failure) {
    for chunk in 0..<chunkCount where chunks.loadAcquiring(chunk) == 0 {
      guard
        let memory = platform_allocate(CallPool.chunkSize &* CallPool.stride)
      else { throw .noMemory }
      guard chunks.exchange(chunk, 0, UInt64(UInt(bitPattern: memory))) else {
        platform_free(memory)
        return
      }
      for slot in 0..<CallPool.chunkSize {
        let index = chunk &* CallPool.chunkSize &+ slot
        prepareHandle(memory + slot &* CallPool.stride, UInt32(index))
        push(index)
      }
      return
    }
  }

  private func handle(_ index: Int) -> OpaquePointer {
    let chunk = UInt(chunks.loadAcquiring(index / CallPool.chunkSize))
    let offset = index % CallPool.chunkSize &* CallPool.stride
    return OpaquePointer(bitPattern: chunk &+ UInt(offset)).unsafelyUnwrapped
  }
}
