import Platform
import Synchronization

/// Counters that many threads increase without getting in each other's way, exact all the same.
///
/// Each thread has a row, found by its identity. Who finds a row without an owner takes it for good and then
/// counts there by plain loads and stores, for nobody else writes its words; who finds it taken counts in the
/// row's shared words, by atomic additions. A row whose thread has ended keeps its counts; it goes on with the
/// next thread of the same identity.
package struct ThreadCounters: ~Copyable {
  package static let maximumCount = 3

  private static let owned = 1
  private static let shared = 4

  private let words: AtomicWords

  package init() throws(Failure) {
    words = try AtomicWords(count: ThreadRows.count &* ThreadRows.stride)
  }

  /// Adds one to a counter below `maximumCount`.
  @inline(__always)
  package func increment(_ counter: Int) {
    let thread = platform_thread()
    let row = ThreadRows.start(of: thread)
    guard words.load(row) == thread else { return incrementShared(counter, row, thread) }
    let place = row &+ ThreadCounters.owned &+ counter
    words.store(place, words.load(place) &+ 1)
  }

  @inline(never)
  private func incrementShared(_ counter: Int, _ row: Int, _ thread: UInt64) {
    if words.load(row) == 0, words.exchange(row, 0, thread) {
      let place = row &+ ThreadCounters.owned &+ counter
      words.store(place, words.load(place) &+ 1)
    } else {
      words.add(row &+ ThreadCounters.shared &+ counter, 1)
    }
  }

  package func total(_ counter: Int) -> UInt64 {
    var sum: UInt64 = 0
    var row = 0
    while row < words.count {
      sum &+= words.load(row &+ ThreadCounters.owned &+ counter)
      sum &+= words.load(row &+ ThreadCounters.shared &+ counter)
      row &+= ThreadRows.stride
    }
    return sum
  }
}
