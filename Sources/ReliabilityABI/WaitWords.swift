import Platform
import ReliabilityCore
import Synchronization

/// What the threads that wait for a ticket sleep on: for each slot a word that changes whenever the
/// answer does, and the number of sleepers.
///
/// A thread takes the word's value under the lock under which the answer changes, and sleeps only
/// while it has that value, so that no change is missed. The word outlives the ticket: a slot that
/// was given to another only costs a look too many.
struct WaitWords: ~Copyable {
  private let base: UnsafeMutablePointer<Atomic<UInt32>>

  init(count: Int) throws(Failure) {
    guard let memory = platform_allocate(Swift.max(1, count) &* 8) else { throw .noMemory }
    // An all-zero word is a valid Atomic<UInt32>, which has no destructor to run either.
    base = memory.assumingMemoryBound(to: Atomic<UInt32>.self)
  }

  deinit { platform_free(base) }

  private func word(_ slot: Int) -> UnsafeMutablePointer<Atomic<UInt32>> { base + slot &* 2 }
  private func sleepers(_ slot: Int) -> UnsafeMutablePointer<Atomic<UInt32>> {
    base + (slot &* 2 &+ 1)
  }

  /// Under the lock: announces a sleeper, and returns what to sleep on.
  func prepare(_ slot: Int) -> UInt32 {
    sleepers(slot).pointee.wrappingAdd(1, ordering: .relaxed)
    return word(slot).pointee.load(ordering: .relaxed)
  }

  /// After unlocking: sleeps until the word changes or the deadline, or less.
  func sleep(_ slot: Int, _ value: UInt32, until deadline: Int64) {
    _ = platform_futex_wait(word(slot), value, deadline)
    sleepers(slot).pointee.wrappingSubtract(1, ordering: .relaxed)
  }

  /// Under the lock: changes the word, and says whether somebody is to be woken.
  func change(_ slot: Int) -> Bool {
    word(slot).pointee.wrappingAdd(1, ordering: .relaxed)
    return sleepers(slot).pointee.load(ordering: .relaxed) != 0
  }

  /// After unlocking.
  func wake(_ slot: Int) { platform_futex_wake(word(slot), Int32.max) }
}
