import Platform
import ReliabilityCore
import Synchronization

/// The process's random stream: SplitMix64 over one shared counter, so that it is lock-free.
///
/// The counter lies on a page which the kernel wipes in the child of a fork. A counter of 0 has not
/// been seeded, so that every child draws a stream of its own without any handler having to run.
private let page = Atomic<UInt>(0)

/// The next number of the stream.
func processRandom() -> UInt64 {
  guard let counter = sharedCounter() else {
    // No such page here: fresh entropy each time is slow, and right after fork too.
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
/// asks for it here. What the kernel cannot wipe is 0 for ever, which tells nobody apart.
func processNumber() -> AtomicWords? {
  guard let counter = sharedCounter() else { return nil }
  let number = AtomicWords(at: UnsafeMutableRawPointer(counter + 1))
  number.begin(0, processRandom() | 1)
  return number
}

private func sharedCounter() -> UnsafeMutablePointer<Atomic<UInt64>>? {
  let known = page.load(ordering: .acquiring)
  if known != 0 {
    return UnsafeMutablePointer<Atomic<UInt64>>(bitPattern: known)
  }
  guard let fresh = platform_wipe_on_fork_page() else { return nil }
  let exchange = page.compareExchange(
    expected: 0, desired: UInt(bitPattern: fresh), ordering: .acquiringAndReleasing)
  if !exchange.exchanged { platform_unmap_page(fresh) }
  return UnsafeMutablePointer<Atomic<UInt64>>(
    bitPattern: exchange.exchanged ? UInt(bitPattern: fresh) : exchange.original)
}
