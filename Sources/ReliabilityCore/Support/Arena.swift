/// Lays areas one behind the other into a block, each at the start of a cache line. What an engine asks of
/// it, in the same order each time, is the layout of the engine's state: an arena that only measures tells
/// how much room it needs.
package struct Arena {
  private let base: UnsafeMutableRawPointer
  package private(set) var bytes = 0

  package static let line = 64

  /// The memory is zero, or was laid out so before.
  package init(at memory: UnsafeMutableRawPointer) { base = memory }

  static var measuring: Arena { Arena(at: Block().start) }

  mutating func words(_ count: Int) -> AtomicWords {
    AtomicWords(at: take(count &* MemoryLayout<UInt64>.size))
  }

  mutating func pairs(_ count: Int) -> AtomicPairs {
    AtomicPairs(at: take(count &* 2 &* MemoryLayout<UInt64>.size))
  }

  private mutating func take(_ size: Int) -> UnsafeMutableRawPointer {
    let place = base + bytes
    bytes &+= (size &+ Arena.line &- 1) & ~(Arena.line &- 1)
    return place
  }
}

/// Where an engine's state lies: what all its users share, and what each of them has for itself.
package struct Ground {
  package var shared: Arena
  var local: Arena
  /// Tells the process from others that share the state; 0 in the child of a fork, which nobody has told yet.
  /// `nil`: nobody else shares it.
  let process: AtomicWords?

  /// Of one process.
  package init(shared: Arena, local: Arena, process: AtomicWords? = nil) {
    self.shared = shared
    self.local = local
    self.process = process
  }
}

/// What an engine's state begins with. Several processes may begin one state with the same, in the same instant.
package struct Beginning {
  /// Of what is random about it: other than those of other objects.
  package let seed: UInt64
  package let now: Int64

  package init(seed: UInt64, now: Int64) {
    self.seed = seed
    self.now = now
  }
}

/// A view of state that lies in a ground: pointers, and what follows from the configuration.
package protocol Engine: ~Copyable {
  associatedtype Configuration

  /// Lays it out. Nothing is read or written. `memory` is kept for as long as the view is.
  init(_ configuration: Configuration, _ ground: inout Ground, _ memory: consuming Block)

  /// Writes what a state begins with, into memory that was zero. May be done more than once, and by several
  /// processes, at the same time and later: what has begun stays as it is.
  func begin(_ configuration: Configuration, _ beginning: Beginning)

  /// Writes what a view has for itself; `salt` makes it differ from that of other processes.
  func settle(_ salt: UInt64)
}

extension Engine where Self: ~Copyable {
  /// The bytes of the state, and of what each view adds.
  private static func sizes(_ configuration: Configuration) -> (shared: Int, local: Int) {
    var ground = Ground(shared: .measuring, local: .measuring, process: nil)
    _ = Self(configuration, &ground, Block())
    return (ground.shared.bytes, ground.local.bytes)
  }

  package static func bytes(_ configuration: Configuration) -> Int { sizes(configuration).shared }

  /// A view of a state of its own.
  package static func alone(
    _ configuration: Configuration, _ beginning: Beginning
  ) throws(Failure) -> Self {
    let sizes = sizes(configuration)
    let memory = try Block(bytes: sizes.shared &+ sizes.local)
    // The view's own comes first: behind the state it could lie whole pages from what is written together with
    // it, which the processor takes for the same place.
    var ground = Ground(
      shared: Arena(at: memory.start + sizes.local), local: Arena(at: memory.start), process: nil)
    let engine = Self(configuration, &ground, memory)
    engine.begin(configuration, beginning)
    engine.settle(0)
    return engine
  }

  /// A view of a state that lies at `shared`, where there are `bytes(configuration)`.
  package static func sharing(
    _ configuration: Configuration, at shared: UnsafeMutableRawPointer, process: AtomicWords
  ) throws(Failure) -> Self {
    let memory = try Block(bytes: Swift.max(Arena.line, sizes(configuration).local))
    var ground = Ground(
      shared: Arena(at: shared), local: Arena(at: memory.start), process: process)
    let engine = Self(configuration, &ground, memory)
    engine.settle(process.load(0))
    return engine
  }
}
