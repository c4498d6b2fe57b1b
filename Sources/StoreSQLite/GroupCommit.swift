import CAutoGLMReliability
import CSQLite
import Platform
import Synchronization

/// The queue of requests, and who carries them out.
///
/// Each caller puts its request into the queue. One of them leads: it takes what is there, its own request
/// first, carries all of it out in one transaction, tells the others, and makes the first of those who came
/// meanwhile the next leader. The others sleep; so what many ask for at a time waits for the disk once.
///
/// A caller whose deadline passes takes its request back, unless a leader has it: then it waits for the
/// leader, who keeps to the earliest deadline of a batch.
struct GroupCommit: ~Copyable {
  /// Behind `lock`.
  private struct Queue {
    var waiting = RequestList()
    /// Whether somebody leads.
    var isLed = false
    /// Whether a fork is under way: nobody new leads.
    var isHeld = false
    /// How many the last leader carried out, and how long that took.
    var lastCount = 0
    var lastTime: Int64 = 0
  }

  /// A leader waits for a transaction's time divided by this.
  private static let patience: Int64 = 2

  private let lock: FutexLock
  /// Changes when a leader has finished, for the fork that waits for it.
  private let finished: UnsafeMutablePointer<Atomic<UInt32>>
  private let queue: UnsafeMutablePointer<Queue>
  private let executor: UnsafeMutablePointer<Executor>

  init(_ executor: consuming Executor) throws(Trouble) {
    // Two words in a cache line, the queue, the executor.
    let bytes = 128 &+ MemoryLayout<Executor>.size
    guard let memory = platform_allocate(bytes) else { throw .noMemory }
    lock = FutexLock(word: memory.assumingMemoryBound(to: Atomic<UInt32>.self))
    finished = (memory + 4).assumingMemoryBound(to: Atomic<UInt32>.self)
    queue = (memory + 64).bindMemory(to: Queue.self, capacity: 1)
    queue.initialize(to: Queue())
    self.executor = (memory + 128).bindMemory(to: Executor.self, capacity: 1)
    self.executor.initialize(to: executor)
  }

  deinit {
    executor.deinitialize(count: 1)
    platform_free(lock.word)
  }

  /// Carries a request out, or has it carried out.
  func submit(_ request: Request.Pointer) {
    lock.lock()
    queue.pointee.waiting.append(request)
    let leads = !queue.pointee.isLed && !queue.pointee.isHeld
    if leads { queue.pointee.isLed = true }
    lock.unlock()
    if leads || waits(request) { lead() }
  }

  /// Waits for a request to be done; says whether its caller is to lead instead.
  private func waits(_ request: Request.Pointer) -> Bool {
    let turn = request.pointee.turn
    var deadline = request.pointee.deadline
    while true {
      switch turn.pointee.load(ordering: .acquiring) {
      case Request.Turn.done: return false
      case Request.Turn.leads: return true
      default: break
      }
      _ = platform_futex_wait(turn, Request.Turn.waiting, deadline)
      guard platform_monotonic_ns() >= deadline else { continue }
      lock.lock()
      // Under the lock it is in the queue, leads, or is with a leader.
      let isBack =
        turn.pointee.load(ordering: .relaxed) == Request.Turn.waiting
        && queue.pointee.waiting.remove(request)
      lock.unlock()
      if isBack {
        request.pointee.settle(.timedOut)
        return false
      }
      deadline = Int64.max
    }
  }

  private func lead() {
    let batch = gather()
    let start = platform_monotonic_ns()
    let outcome = execute(batch)
    let time = platform_monotonic_ns() &- start
    lock.lock()
    queue.pointee.waiting.prepend(outcome.left)
    queue.pointee.lastCount = batch.count
    queue.pointee.lastTime = time
    let next = queue.pointee.isHeld ? nil : queue.pointee.waiting.first
    queue.pointee.isLed = next != nil
    let successor = next?.pointee.turn
    successor?.pointee.store(Request.Turn.leads, ordering: .releasing)
    lock.unlock()
    if let successor { platform_futex_wake(successor, 1) }
    if next == nil {
      finished.pointee.wrappingAdd(1, ordering: .releasing)
      platform_futex_wake(finished, Int32.max)
    }
    tell(outcome.settled)
  }

  /// Carries out a batch, whose first request is the leader's own, as far as the leader's time allows. Whoever has his answer
  /// sooner is told at once.
  private func execute(_ batch: RequestList) -> Executor.Outcome {
    let leader = batch.first
    let limit = leader?.pointee.deadline ?? 0
    var outcome = executor.pointee.execute(batch, until: limit)
    while outcome.left.first != nil && outcome.left.first == leader {
      tell(outcome.settled)
      outcome = executor.pointee.execute(outcome.left, until: limit)
    }
    return outcome
  }

  /// Takes what is queued. Those whom the last leader served are likely to come again at once, so when they were
  /// several it waits for as many, for a part of the time that a transaction takes.
  private func gather() -> RequestList {
    let most = executor.pointee.configuration.maxBatch
    lock.lock()
    let expected = min(most, queue.pointee.lastCount)
    if queue.pointee.waiting.count < expected {
      let end = platform_monotonic_ns() &+ queue.pointee.lastTime / GroupCommit.patience
      while queue.pointee.waiting.count < expected && platform_monotonic_ns() < end {
        lock.unlock()
        csqlite_yield()
        lock.lock()
      }
    }
    var batch = RequestList()
    while batch.count < most, let request = queue.pointee.waiting.popFirst() {
      batch.append(request)
    }
    lock.unlock()
    return batch
  }

  /// A request is its caller's again as soon as its turn says so, and its memory may be gone; the wake that
  /// follows then reaches nobody, or somebody who looks once more.
  private func tell(_ batch: RequestList) {
    batch.forEach { request in
      let turn = request.pointee.turn
      turn.pointee.store(Request.Turn.done, ordering: .releasing)
      platform_futex_wake(turn, 1)
    }
  }

  // MARK: - Fork

  /// Waits for the leader, lets nobody lead, and closes the connection: a child must not have it.
  func hold() {
    lock.lock()
    queue.pointee.isHeld = true
    while queue.pointee.isLed {
      let value = finished.pointee.load(ordering: .relaxed)
      lock.unlock()
      _ = platform_futex_wait(finished, value, Int64.max)
      lock.lock()
    }
    executor.pointee.close()
  }

  /// In the parent: goes on.
  func resume() {
    queue.pointee.isHeld = false
    let next = queue.pointee.waiting.first
    queue.pointee.isLed = next != nil
    let successor = next?.pointee.turn
    successor?.pointee.store(Request.Turn.leads, ordering: .releasing)
    lock.unlock()
    if let successor { platform_futex_wake(successor, 1) }
  }

  /// In the child: those who waited are threads of the parent.
  func forget() {
    queue.pointee = Queue()
    lock.word.pointee.store(0, ordering: .releasing)
  }
}
