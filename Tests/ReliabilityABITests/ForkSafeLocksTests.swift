import Glibc
import Synchronization
import Testing

@testable import ReliabilityABI

@Suite struct ForkSafeLocksTests {
  /// A lock, and what only its holder touches.
  private final class Guarded: @unchecked Sendable {
    let locks = try! ForkSafeLocks(count: 4)
    let counts = UnsafeMutablePointer<Int>.allocate(capacity: 4)
    let stop = Atomic<Bool>(false)

    init() { counts.initialize(repeating: 0, count: 4) }
    deinit { counts.deallocate() }
  }

  private func takeAll(_ guarded: Guarded) -> Int32 {
    var number = 0
    while number < 4 {
      guarded.locks[number].lock()
      guarded.locks[number].unlock()
      number += 1
    }
    return 0
  }

  @Test func aLockExcludesTheOthersWhateverIsForkedMeanwhile() {
    let guarded = Guarded()
    let done = (0..<2).map { _ in UnsafeMutablePointer<Int>.allocate(capacity: 1) }
    let threads = (0..<2).map { number -> pthread_t in
      nonisolated(unsafe) let done = done[number]
      return startThread {
        var rounds = 0
        while !guarded.stop.load(ordering: .relaxed) {
          let lock = guarded.locks[rounds % 4]
          lock.lock()
          guarded.counts[rounds % 4] += 1
          lock.unlock()
          rounds += 1
        }
        done.pointee = rounds
      }
    }
    #expect(takeAll(guarded) == 0)
    for _ in 0..<50 { #expect(runInChild { takeAll(guarded) } == 0) }
    guarded.stop.store(true, ordering: .relaxed)
    for thread in threads { pthread_join(thread, nil) }
    #expect((0..<4).reduce(0) { $0 + guarded.counts[$1] } == done.reduce(0) { $0 + $1.pointee })
    done.forEach { $0.deallocate() }
  }
}
