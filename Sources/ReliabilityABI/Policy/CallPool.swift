import Platform
import ReliabilityCore
import Synchronization

/// The calls of a policy: handles from chunks that are allocated when first needed, then used again.
///
/// A free call is on a list whose head carries a count, so that a call which went and came back
/// between a look and an exchange is noticed. Chunks stay until the pool goes.
struct CallPool: ~Copyable {
  private static let chunkSize = 64
  private static let mostLooks = 1_000_000

  /// The addresses of the chunks, 0 for those not there yet.
  private let chunks: AtomicWords
  /// For each call the number of the next free one, plus 1.
  private let next: AtomicWords
  /// A count of changes, and the first free call plus 1.
  private let head: Atomic<UInt64>
  private let alive: Atomic<Int>
  private let limit: Int

  init(limit: Int) throws(Failure) {
    let count = (limit &+ CallPool.chunkSize &- 1) / CallPool.chunkSize
    let chunks = try AtomicWords(count: count)
    let next = try AtomicWords(count: count &* CallPool.chunkSize)
    self.chunks = chunks
    self.next = next
    self.limit = limit
    head = Atomic(0)
    alive = Atomic(0)
  }

  deinit {
    for chunk in 0..<chunks.count {
      platform_free(UnsafeMutableRawPointer(bitPattern: UInt(chunks.load(chunk))))
    }
  }

  var aliveCount: Int { alive.load(ordering: .relaxed) }

  /// The handle of a free call, whose memory is not a call yet.
  func take() throws(Failure) -> OpaquePointer {
    guard alive.wrappingAdd(1, ordering: .relaxed).newValue <= limit else {
      alive.wrappingSubtract(1, ordering: .relaxed)
      throw Failure(.capacity, "max_calls", "that many calls are alive")
    }
    var looks = 0
    while true {
      let top = head.load(ordering: .acquiring)
      let first = top & 0xffff_ffff
      if first == 0 {
        // Not more than the limit are alive, so that one is free, or about to be put on the list by the
        // thread that made its chunk. That thread may be gone, in the child of a fork.
        looks &+= 1
        guard looks < CallPool.mostLooks else {
          alive.wrappingSubtract(1, ordering: .relaxed)
          throw Failure(.capacity, "max_calls", "that many calls are alive")
        }
        do throws(Failure) { try grow() } catch {
          // Somebody may have put one back meanwhile.
          if head.load(ordering: .acquiring) & 0xffff_ffff != 0 { continue }
          alive.wrappingSubtract(1, ordering: .relaxed)
          throw error
        }
        continue
      }
      let index = Int(truncatingIfNeeded: first &- 1)
      let rest = next.load(index)
      if exchange(top, rest) { return handle(index) }
    }
  }

  /// Takes the handle with a number back.
  func put(_ index: UInt32) {
    push(Int(index))
    alive.wrappingSubtract(1, ordering: .relaxed)
  }

  private func push(_ index: Int) {
    while true {
      let top = head.load(ordering: .acquiring)
      next.store(index, top & 0xffff_ffff)
      if exchange(top, UInt64(truncatingIfNeeded: index &+ 1)) { return }
    }
  }

  private func exchange(_ top: UInt64, _ first: UInt64) -> Bool {
    let count = (top &>> 32 &+ 1) & 0xffff_ffff
    return head.compareExchange(
      expected: top, desired: count &<< 32 | first, ordering: .acquiringAndReleasing
    ).exchanged
  }

  private func grow() throws(Failure) {
    for chunk in 0..<chunks.count where chunks.loadAcquiring(chunk) == 0 {
      guard
        let memory = platform_allocate(CallPool.chunkSize &* handleStride(of: Call.self))
      else { throw .noMemory }
      guard chunks.exchange(chunk, 0, UInt64(UInt(bitPattern: memory))) else {
        platform_free(memory)
        return
      }
      for slot in 0..<CallPool.chunkSize {
        let index = chunk &* CallPool.chunkSize &+ slot
        prepareHandle(memory + slot &* handleStride(of: Call.self), UInt32(index))
        push(index)
      }
      return
    }
  }

  private func handle(_ index: Int) -> OpaquePointer {
    let chunk = UInt(chunks.loadAcquiring(index / CallPool.chunkSize))
    let offset = index % CallPool.chunkSize &* handleStride(of: Call.self)
    return OpaquePointer(bitPattern: chunk &+ UInt(offset)).unsafelyUnwrapped
  }
}
