import Platform
import ReliabilityCore
import Synchronization

/// The process's random stream: SplitMix64 over one shared counter, so that it is lock-free.
///
/// The counter lies on a page which the kernel wipes in the child of a fork. A counter of 0 has not
/// been seeded, so that every child draws a stream of its own without any handler having to run. Where
/// the kernel cannot, or an emulator only says that it did, a handler of fork wipes the page.
private let page = Atomic<UInt>(0)

/// The next number of the stream.
func processRandom() -> UInt64 {
  guard let counter = sharedCounter() else {
    // No memory for the page: fresh entropy each time is slow, and right after fork too.
    return SplitMix64.mix(platform_entropy())
  }
  if counter.pointee.load(ordering: .relaxed) == 0 {
    let seed = platform_entropy()
    _ = counter.pointee.compareExchange(
      expected: 0, desired: seed == 0 ? 1 : seed, ordering: .relaxed)
  }
  return SplitMix64.mix(
    counter.pointee.wrappingAdd(SplitMix64.increment, ordering: .relaxed).newValue)
}

/// A seed as configured, or a random one for 0.
func seedOrRandom(_ seed: UInt64) -> UInt64 { seed == 0 ? processRandom() : seed }

/// A word that tells this process from all others, on the same page: 0 in the child of a fork, until the child
/// asks for it here.
func processNumber() -> AtomicWords? {
  guard let counter = sharedCounter() else { return nil }
  let number = AtomicWords(at: UnsafeMutableRawPointer(counter + 1))
  number.begin(0, processRandom() | 1)
  return number
}

private func sharedCounter() -> UnsafeMutablePointer<Atomic<UInt64>>? {
  if let known = presentCounter() { return known }
  guard let fresh = platform_map_page() else { return nil }
  guard platform_wipe_on_fork(fresh) != 0 || platform_at_fork(nil, nil, { wipePage() }) == 0 else {
    platform_unmap_page(fresh)
    return nil
  }
  let exchange = page.compareExchange(
    expected: 0, desired: UInt(bitPattern: fresh), ordering: .acquiringAndReleasing)
  if !exchange.exchanged { platform_unmap_page(fresh) }
  return presentCounter()
}

@inline(__always)
private func presentCounter() -> UnsafeMutablePointer<Atomic<UInt64>>? {
  UnsafeMutablePointer<Atomic<UInt64>>(bitPattern: page.load(ordering: .acquiring))
}

/// What the kernel does elsewhere, in a child that has one thread.
private func wipePage() {
  guard let counter = presentCounter() else { return }
  counter.pointee.store(0, ordering: .relaxed)
  (counter + 1).pointee.store(0, ordering: .relaxed)
}
