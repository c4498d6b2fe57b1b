import Platform

/// Counters that many threads increase without getting in each other's way, exact all the same.
///
/// Each thread has a row, found by its identity. Who finds a row without an owner takes it for good and then
/// counts there by plain loads and stores, for nobody else writes its words; who finds it taken counts in the
/// row's shared words, by atomic additions. A row whose thread has ended keeps its counts; it goes on with the
/// next thread of the same identity. Where processes share the counters, a number of the process is part of the
/// identity, and a child of fork that has none yet owns no row.
package struct ThreadCounters: BitwiseCopyable {
  package static let maximumCount = 3

  private static let owned = 1
  private static let shared = 4

  private let words: AtomicWords
  private let process: AtomicWords
  private let isShared: Bool

  init(_ ground: inout Ground) {
    words = ground.shared.words(ThreadRows.count &* ThreadRows.stride)
    process = ground.process ?? ground.local.words(1)
    isShared = ground.process != nil
  }

  /// Adds one to a counter below `maximumCount`.
  @inline(__always)
  package func increment(_ counter: Int) {
    let thread = platform_thread()
    let row = ThreadRows.start(of: thread)
    let owner = thread ^ process.load(0)
    guard words.load(row) == owner else { return incrementShared(counter, row, owner) }
    let place = row &+ ThreadCounters.owned &+ counter
    words.store(place, words.load(place) &+ 1)
  }

  @inline(never)
  private func incrementShared(_ counter: Int, _ row: Int, _ owner: UInt64) {
    let mayOwn = !isShared || process.load(0) != 0
    if mayOwn, words.load(row) == 0, words.exchange(row, 0, owner) {
      let place = row &+ ThreadCounters.owned &+ counter
      words.store(place, words.load(place) &+ 1)
    } else {
      words.add(row &+ ThreadCounters.shared &+ counter, 1)
    }
  }

  package func total(_ counter: Int) -> UInt64 {
    var sum: UInt64 = 0
    var row = 0
    while row < ThreadRows.count &* ThreadRows.stride {
      sum &+= words.load(row &+ ThreadCounters.owned &+ counter)
      sum &+= words.load(row &+ ThreadCounters.shared &+ counter)
      row &+= ThreadRows.stride
    }
    return sum
  }
}
