import Platform
import Synchronization

/// A lock for moments: 0 free, 1 held, 2 held and waited for (Drepper: Futexes Are Tricky, 2011, the third
/// mutex).
struct Lock: ~Copyable {
  private let word = Atomic<UInt32>(0)

  init() {}

  func lock() {
    if word.compareExchange(expected: 0, desired: 1, ordering: .acquiring).exchanged { return }
    while word.exchange(2, ordering: .acquiring) != 0 {
      withUnsafePointer(to: word) { _ = platform_futex_wait($0, 2, Int64.max) }
    }
  }

  func unlock() {
    if word.exchange(0, ordering: .releasing) == 2 {
      withUnsafePointer(to: word) { platform_futex_wake($0, 1) }
    }
  }

  /// Makes it free, in the child of a fork whose parent may have held it.
  func reset() { word.store(0, ordering: .relaxed) }
}
