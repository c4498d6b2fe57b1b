import Platform
import Synchronization

/// A lock on a word that lies elsewhere: 0 free, 1 held, 2 held and waited for (Drepper: Futexes
/// Are Tricky, 2011, the third mutex). Held for short, bounded times only.
struct FutexLock {
  let word: UnsafeMutablePointer<Atomic<UInt32>>

  private static let spins = 64

  @inline(__always)
  func lock() {
    if word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
      return
    }
    lockSlowly()
  }

  private func lockSlowly() {
    for _ in 0..<FutexLock.spins {
      let free = word.pointee.load(ordering: .relaxed) == 0
      if free,
        word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged
      {
        return
      }
    }
    while word.pointee.exchange(2, ordering: .acquiring) != 0 {
      _ = platform_futex_wait(word, 2, Int64.max)
    }
  }

  @inline(__always)
  func unlock() {
    if word.pointee.exchange(0, ordering: .releasing) == 2 { platform_futex_wake(word, 1) }
  }
}
