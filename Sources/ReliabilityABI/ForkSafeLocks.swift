import Platform
import ReliabilityCore
import Synchronization

/// A row of locks which the child of a fork finds free.
///
/// A fork copies the memory as it is, a lock that another thread holds included, and that thread
/// does not exist in the child. So handlers of fork take every lock there is before it, in order,
/// and release them on both sides after it. What the locks guard is then whole in the child, too.
struct ForkSafeLocks: ~Copyable {
  /// The first cache line of the memory; a line for each lock follows.
  fileprivate struct Node {
    var previous: UnsafeMutablePointer<Node>?
    var next: UnsafeMutablePointer<Node>?
    var count: Int
  }

  private let node: UnsafeMutablePointer<Node>

  init(count: Int) throws(Failure) {
    let lines = count &+ 1
    guard let memory = platform_allocate(lines &* Int(PLATFORM_CACHE_LINE)) else {
      throw .noMemory
    }
    let node = memory.bindMemory(to: Node.self, capacity: 1)
    node.initialize(to: Node(previous: nil, next: nil, count: count))
    guard let registry = Registry.shared(), registry.add(node) else {
      platform_free(memory)
      throw .noMemory
    }
    self.node = node
  }

  deinit {
    Registry.shared()?.remove(node)
    platform_free(node)
  }

  /// The lock with a number from 0 to the count, which the library itself gives.
  @inline(__always)
  subscript(number: Int) -> FutexLock { ForkSafeLocks.lock(node, number) }

  @inline(__always)
  private static func lock(_ node: UnsafeMutablePointer<Node>, _ number: Int) -> FutexLock {
    let line = UnsafeMutableRawPointer(node) + (number &+ 1) &* Int(PLATFORM_CACHE_LINE)
    return FutexLock(word: line.assumingMemoryBound(to: Atomic<UInt32>.self))
  }

  /// All rows of the process.
  fileprivate struct Registry {
    struct State {
      var word: UInt32
      var hasHandlers: Bool
      var first: UnsafeMutablePointer<Node>?
    }

    let state: UnsafeMutablePointer<State>

    private var guardian: FutexLock {
      FutexLock(
        word: UnsafeMutableRawPointer(state).assumingMemoryBound(to: Atomic<UInt32>.self))
    }

    /// Made when first needed, and never freed; `nil` without memory for it.
    static func shared() -> Registry? {
      let known = registryAddress.load(ordering: .acquiring)
      if let state = UnsafeMutablePointer<State>(bitPattern: known) {
        return Registry(state: state)
      }
      guard let memory = platform_allocate(MemoryLayout<State>.size) else { return nil }
      let exchange = registryAddress.compareExchange(
        expected: 0, desired: UInt(bitPattern: memory), ordering: .acquiringAndReleasing)
      if !exchange.exchanged { platform_free(memory) }
      guard
        let state = UnsafeMutablePointer<State>(
          bitPattern: exchange.exchanged ? UInt(bitPattern: memory) : exchange.original)
      else { return nil }
      return Registry(state: state)
    }

    /// Says `false` when the handlers could not be installed.
    func add(_ node: UnsafeMutablePointer<Node>) -> Bool {
      guardian.lock()
      defer { guardian.unlock() }
      if !state.pointee.hasHandlers {
        guard
          platform_at_fork(
            { Registry.shared()?.takeAll() }, { Registry.shared()?.releaseAll() },
            { Registry.shared()?.releaseAll() }) == 0
        else { return false }
        state.pointee.hasHandlers = true
      }
      node.pointee.next = state.pointee.first
      state.pointee.first?.pointee.previous = node
      state.pointee.first = node
      return true
    }

    func remove(_ node: UnsafeMutablePointer<Node>) {
      guardian.lock()
      defer { guardian.unlock() }
      if let previous = node.pointee.previous {
        previous.pointee.next = node.pointee.next
      } else {
        state.pointee.first = node.pointee.next
      }
      node.pointee.next?.pointee.previous = node.pointee.previous
    }

    /// Nobody who holds one of the locks asks for the registry's, or for one of another row.
    private func takeAll() {
      guardian.lock()
      var node = state.pointee.first
      while let row = node {
        for number in 0..<row.pointee.count { ForkSafeLocks.lock(row, number).lock() }
        node = row.pointee.next
      }
    }

    private func releaseAll() {
      var node = state.pointee.first
      while let row = node {
        for number in 0..<row.pointee.count { ForkSafeLocks.lock(row, number).unlock() }
        node = row.pointee.next
      }
      guardian.unlock()
    }
  }
}

private let registryAddress = Atomic<UInt>(0)
