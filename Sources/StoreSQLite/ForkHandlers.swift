import CSQLite
import Platform
import Synchronization

/// All stores of the process, which are closed before a fork: SQLite's locks do not survive one, and a child
/// with a connection of its parent's would damage the database.
enum ForkHandlers {
  private struct State {
    var word: UInt32
    var hasHandlers: Bool
    var first: UnsafeMutablePointer<SQLiteStore>?
  }

  /// Says `false` when the handlers could not be installed.
  static func add(_ store: UnsafeMutablePointer<SQLiteStore>) -> Bool {
    guard let state = shared() else { return false }
    guardian(state).lock()
    defer { guardian(state).unlock() }
    if !state.pointee.hasHandlers {
      guard
        platform_at_fork(
          { ForkHandlers.before() }, { ForkHandlers.inParent() }, { ForkHandlers.inChild() }) == 0
      else { return false }
      state.pointee.hasHandlers = true
    }
    store.pointee.previous = nil
    store.pointee.next = state.pointee.first
    state.pointee.first?.pointee.previous = store
    state.pointee.first = store
    return true
  }

  static func remove(_ store: UnsafeMutablePointer<SQLiteStore>) {
    guard let state = shared() else { return }
    guardian(state).lock()
    defer { guardian(state).unlock() }
    if let previous = store.pointee.previous {
      previous.pointee.next = store.pointee.next
    } else {
      state.pointee.first = store.pointee.next
    }
    store.pointee.next?.pointee.previous = store.pointee.previous
  }

  private static func guardian(_ state: UnsafeMutablePointer<State>) -> FutexLock {
    FutexLock(word: UnsafeMutableRawPointer(state).assumingMemoryBound(to: Atomic<UInt32>.self))
  }

  /// Made when first needed, and never freed; `nil` without memory for it.
  private static func shared() -> UnsafeMutablePointer<State>? {
    let known = stateAddress.load(ordering: .acquiring)
    if let state = UnsafeMutablePointer<State>(bitPattern: known) { return state }
    guard let memory = platform_allocate(MemoryLayout<State>.size) else { return nil }
    let exchange = stateAddress.compareExchange(
      expected: 0, desired: UInt(bitPattern: memory), ordering: .acquiringAndReleasing)
    if !exchange.exchanged { platform_free(memory) }
    return UnsafeMutablePointer<State>(
      bitPattern: exchange.exchanged ? UInt(bitPattern: memory) : exchange.original)
  }

  private static func forEach(_ body: (UnsafeMutablePointer<SQLiteStore>) -> Void) {
    var store = shared()?.pointee.first
    while let one = store {
      store = one.pointee.next
      body(one)
    }
  }

  private static func before() {
    guard let state = shared() else { return }
    guardian(state).lock()
    forEach { $0.pointee.group.hold() }
  }

  private static func inParent() {
    guard let state = shared() else { return }
    forEach { $0.pointee.group.resume() }
    guardian(state).unlock()
  }

  private static func inChild() {
    guard let state = shared() else { return }
    forEach { store in
      store.pointee.group.forget()
      store.pointee.process.store(csqlite_process(), ordering: .relaxed)
    }
    guardian(state).unlock()
  }
}

private let stateAddress = Atomic<UInt>(0)
