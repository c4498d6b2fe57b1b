import Platform
import Synchronization

/// A lock on a word that lies elsewhere: 0 free, 1 held, 2 held and waited for (Drepper: Futexes
/// Are Tricky, 2011, the third mutex). Held for moments only.
struct FutexLock {
  let word: UnsafeMutablePointer<Atomic<UInt32>>

  func lock() {
    if word.pointee.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged {
      return
    }
    while word.pointee.exchange(2, ordering: .acquiring) != 0 {
      _ = platform_futex_wait(word, 2, Int64.max)
    }
  }

  func unlock() {
    if word.pointee.exchange(0, ordering: .releasing) == 2 { platform_futex_wake(word, 1) }
  }
}
