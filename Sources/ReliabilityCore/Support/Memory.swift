import Synchronization

// Views of memory that somebody else keeps: a block of one process, or a region that several share.
// All of it is zero at first. Indices come from the library itself and are within the memory; nothing that a
// caller passes, or that was read from shared memory, reaches one unchecked.

/// Words shared by threads, and by processes where they lie in a region.
package struct AtomicWords: BitwiseCopyable {
  private let base: UnsafeMutablePointer<Atomic<UInt64>>

  /// An all-zero word is a valid Atomic<UInt64>, which has no destructor to run either.
  package init(at memory: UnsafeMutableRawPointer) {
    base = memory.assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  /// The same, two by two.
  @inline(__always)
  package var pairs: AtomicPairs { AtomicPairs(at: UnsafeMutableRawPointer(base)) }

  /// The words from `start` on.
  package func from(_ start: Int) -> AtomicWords {
    AtomicWords(at: UnsafeMutableRawPointer(base + start))
  }

  @inline(__always)
  package func load(_ index: Int) -> UInt64 { base[index].load(ordering: .relaxed) }

  @inline(__always)
  package func loadAcquiring(_ index: Int) -> UInt64 { base[index].load(ordering: .acquiring) }

  @inline(__always)
  package func store(_ index: Int, _ value: UInt64) {
    base[index].store(value, ordering: .relaxed)
  }

  @inline(__always)
  package func storeReleasing(_ index: Int, _ value: UInt64) {
    base[index].store(value, ordering: .releasing)
  }

  /// Adds to a word, and returns what it was.
  @inline(__always)
  @discardableResult
  package func add(_ index: Int, _ amount: UInt64) -> UInt64 {
    base[index].wrappingAdd(amount, ordering: .acquiringAndReleasing).oldValue
  }

  /// Replaces `expected` by `desired`; says whether it did.
  @inline(__always)
  package func exchange(_ index: Int, _ expected: UInt64, _ desired: UInt64) -> Bool {
    base[index].compareExchange(
      expected: expected, desired: desired, ordering: .acquiringAndReleasing
    ).exchanged
  }

  /// Replaces a word, and returns what it was.
  @inline(__always)
  package func replace(_ index: Int, by value: UInt64) -> UInt64 {
    base[index].exchange(value, ordering: .acquiringAndReleasing)
  }

  /// A word's first value, which is never 0 again: whoever comes second changes nothing.
  package func begin(_ index: Int, _ value: UInt64) { _ = exchange(index, 0, value) }
}

/// Pairs of words, each pair exchanged as one.
package struct AtomicPairs: BitwiseCopyable {
  private let base: UnsafeMutablePointer<Atomic<WordPair>>

  package init(at memory: UnsafeMutableRawPointer) {
    base = memory.assumingMemoryBound(to: Atomic<WordPair>.self)
  }

  /// A pair that stood there: the second word was read while the first did not change. An exchange
  /// compares both, so that a pair which was replaced by its like meanwhile does no harm.
  @inline(__always)
  package func load(_ index: Int) -> (UInt64, UInt64) {
    let words = words(index)
    while true {
      let first = words[0].load(ordering: .acquiring)
      let second = words[1].load(ordering: .acquiring)
      if words[0].load(ordering: .relaxed) == first { return (first, second) }
    }
  }

  /// The first word of a pair alone.
  @inline(__always)
  package func first(_ index: Int) -> UInt64 { words(index)[0].load(ordering: .relaxed) }

  @inline(__always)
  package func firstAcquiring(_ index: Int) -> UInt64 {
    words(index)[0].load(ordering: .acquiring)
  }

  /// Replaces the first word alone; says whether it did.
  @inline(__always)
  package func exchangeFirst(_ index: Int, _ expected: UInt64, _ desired: UInt64) -> Bool {
    words(index)[0].compareExchange(
      expected: expected, desired: desired, ordering: .acquiringAndReleasing
    ).exchanged
  }

  /// Replaces one pair by another; says whether it did.
  @inline(__always)
  package func exchange(
    _ index: Int, _ expected: (UInt64, UInt64), _ desired: (UInt64, UInt64)
  ) -> Bool {
    base[index].compareExchange(
      expected: WordPair(first: UInt(expected.0), second: UInt(expected.1)),
      desired: WordPair(first: UInt(desired.0), second: UInt(desired.1)),
      ordering: .sequentiallyConsistent
    ).exchanged
  }

  @inline(__always)
  private func words(_ index: Int) -> UnsafeMutablePointer<Atomic<UInt64>> {
    UnsafeMutableRawPointer(base + index).assumingMemoryBound(to: Atomic<UInt64>.self)
  }
}
