import CAutoGLMReliability
import Platform
import ReliabilityCore
import Synchronization

// Asking for a key, and for what has become of a run that was joined.

extension DurableCache {
  /// The fingerprint as the store has it: the same in every process. Two requests that somebody made up to have
  /// one fingerprint are his own.
  private static func print(_ bytes: UnsafeRawPointer?, _ length: Int) -> (UInt64, UInt64) {
    guard length > 0, bytes != nil else { return (0, 0) }
    let a = SipHash(k0: 0x6167_725f_7072_696e, k1: 1).hash(bytes, length)
    let b = SipHash(k0: 0x6167_725f_7072_696e, k1: 2).hash(bytes, length)
    return a == 0 && b == 0 ? (1, 1) : (a, b)
  }

  /// Asks to execute a key; `joins` says where a ticket goes.
  func begin(
    _ key: UnsafeRawPointer?, _ keyLength: Int, _ fingerprint: UnsafeRawPointer?,
    _ fingerprintLength: Int, joins: UnsafeMutablePointer<UInt64>?, now: Int64,
    until limit: Int64 = Time.forever, _ out: IdempotencyOutputs,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    while true {
      let answer =
        joins != nil
        ? try cache.join(key, keyLength, fingerprint: fingerprint, fingerprintLength, now: now)
        : try cache.begin(key, keyLength, fingerprint: fingerprint, fingerprintLength, now: now)
      switch answer {
      case .replay(let pinned): return out.replay(pinned)
      case .mismatch: return AGR_MISMATCH
      case .inProgress(let ticket, let remaining):
        joins?.pointee = ticket
        return out.inProgress(remaining, AGR_IN_PROGRESS)
      case .execute(let lease):
        var run = DurableRun()
        run.print = DurableCache.print(fingerprint, fingerprintLength)
        let wait = StoreWait(timeout, until: limit)
        let answer = try ask(lease, run, 0, joins: joins, now: now, wait, out, error)
        // Its result is in memory now.
        if let answer { return answer }
      }
    }
  }

  /// What has become of the run that was joined.
  func poll(
    _ ticket: UInt64, now: Int64, until limit: Int64 = Time.forever, _ out: IdempotencyOutputs,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    let wait = StoreWait(timeout, until: limit)
    while true {
      switch try cache.look(ticket, now, sleeps: false, keeps: true).answer {
      case .execute(let lease):
        let answer = try askAgain(lease, ticket, now: now, wait, out, error)
        if let answer { return answer }
      case let answer: return out.write(answer, unanswered: AGR_IN_PROGRESS)
      }
    }
  }

  /// As `poll`, but waits for an answer. A run of another process is asked for now and then, by whoever has
  /// waited longest.
  func wait(
    _ ticket: UInt64, timeout: Int64, _ out: IdempotencyOutputs,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    try requireTimeOrForever(timeout, "timeout_ns")
    let deadline = Time.add(systemNow(), timeout)
    while true {
      let start = systemNow()
      let look = try cache.look(ticket, start, sleeps: deadline > start, keeps: true)
      if case .execute(let lease) = look.answer {
        // A call that the end of the wait cut short would pass for a store that fails: the wait would end in
        // an error, or the run in a second execution. So it has the time of any call.
        let whole = StoreWait(self.timeout)
        let answer = try askAgain(lease, ticket, now: start, whole, out, error)
        if let answer, answer != AGR_IN_PROGRESS { return answer }
        if answer != nil && systemNow() >= deadline { return AGR_TIMED_OUT }
        continue
      }
      guard let sleep = look.sleep, case .inProgress(let remaining) = look.answer else {
        return out.write(look.answer, unanswered: AGR_TIMED_OUT)
      }
      // A run elsewhere may end sooner than it seemed when this one began to wait.
      let time = Swift.min(remaining, DurableCache.longestInterval)
      cache.waitWords.sleep(
        sleep.slot, sleep.word, until: Swift.min(deadline, Time.add(start, time)))
    }
  }

  private func askAgain(
    _ lease: IdempotencyLease, _ ticket: UInt64, now: Int64, _ wait: StoreWait,
    _ out: IdempotencyOutputs, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int? {
    guard let known = try run(of: lease.id, now: now) else { return nil }
    platform_free(known.key.baseAddress)
    var run = known.run
    run.fence = 0
    run.place = .store
    return try ask(lease, run, ticket, joins: nil, now: now, wait, out, error)
  }

  // MARK: - The store's answer

  /// Asks the store whether the holder of a lease may execute: a status, or `nil` to look once more. A ticket
  /// that was kept for the lease ends when it may.
  private func ask(
    _ lease: IdempotencyLease, _ known: DurableRun, _ ticket: UInt64,
    joins: UnsafeMutablePointer<UInt64>?, now: Int64, _ wait: StoreWait,
    _ out: IdempotencyOutputs, _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int? {
    guard let (_, key) = try run(of: lease.id, now: now) else { return nil }
    defer { platform_free(key.baseAddress) }
    var run = known
    var state = agr_store_run_state()
    var problem = agr_error()
    var result = ResultRoom(most: 1 << 30)
    defer { result.free() }
    let status = begin(key, run, wait, &result, &state, &problem)
    switch status {
    case AGR_OK:
      run.fence = state.fence
      run.lostFence = state.lost_fence
      let unknown = state.outcome_unknown != 0 || lease.outcomeUnknown
      return try started(lease, run, ticket, unknown, now, storeKey(key), wait, out, error)
    case AGR_REPLAY:
      try keep(lease, result, state, now)
      return nil
    case AGR_IN_PROGRESS:
      let remaining = Swift.max(1, state.remaining_ns)
      let time = Swift.min(remaining, interval(run.polls, hint: state.retry_after_ns))
      run.polls = Swift.min(run.polls &+ 1, 16)
      let new = try giveWay(lease.id, run, for: time, joins: joins != nil, now: now)
      joins?.pointee = new
      return out.inProgress(joins == nil && ticket == 0 ? remaining : time, AGR_IN_PROGRESS)
    case AGR_MISMATCH:
      _ = try? giveWay(lease.id, run, for: interval(0, hint: 0), joins: false, now: now)
      if ticket != 0 { _ = try cache.leave(ticket, now: now) }
      return AGR_MISMATCH
    case AGR_ERR_STORE where onError != .refuse:
      store.pointee.fallbacks.wrappingAdd(1, ordering: .relaxed)
      run.place = onError == .admit ? .nowhere : .local
      return try started(
        lease, run, ticket, lease.outcomeUnknown, now, storeKey(key), wait, out, error)
    default:
      let time = interval(run.polls, hint: 0)
      _ = try? giveWay(lease.id, run, for: time, joins: false, now: now)
      if status >= 0 { return store.pointee.fail(error, "answered what is no answer to begin") }
      error?.pointee = problem
      return status
    }
  }

  private func begin(
    _ key: UnsafeMutableRawBufferPointer, _ run: DurableRun, _ wait: StoreWait,
    _ result: inout ResultRoom, _ state: inout agr_store_run_state, _ problem: inout agr_error
  ) -> Int {
    let configuration = cache.shared.configuration
    var question = agr_store_run(
      key: storeKey(key), fingerprint: run.print, owner: (processRandom(), processRandom()),
      lease_ns: configuration.leaseTime, ttl_ns: configuration.timeToLive,
      result_bytes: UInt64(maxResultBytes))
    return withUnsafeMutablePointer(to: &result) { room in
      var sink = agr_store_sink(
        reserve: { context, length in
          context?.assumingMemoryBound(to: ResultRoom.self).pointee.reserve(length)
        }, context: room)
      return ask(&problem, wait) { timeout, error in
        state = agr_store_run_state()
        return store.pointee.functions.begin?(
          store.pointee.driver, &question, timeout, &sink, &state, error) ?? Int32(AGR_ERR_STORE)
      }
    }
  }

  /// The run is the caller's, if his lease has lasted as long as the store took.
  private func started(
    _ lease: IdempotencyLease, _ run: DurableRun, _ ticket: UInt64, _ outcomeUnknown: Bool,
    _ now: Int64, _ key: agr_store_key, _ wait: StoreWait, _ out: IdempotencyOutputs,
    _ error: UnsafeMutablePointer<agr_error>?
  ) throws(Failure) -> Int {
    let noted = try note(lease.id, run, ticket: ticket, now: now)
    if noted != true {
      var ignored = agr_error()
      if run.place == .store {
        _ = giveBack(key, run.fence, outcomeUnknown: false, wait, &ignored)
      }
      if noted == nil {
        _ = try cache.giveBack(lease.id, now: now)
        return AGR_STALE
      }
      return store.pointee.fail(error, "took longer than the lease lasts")
    }
    return out.execute(
      IdempotencyLease(
        id: lease.id, fence: run.fence, expiresIn: lease.expiresIn,
        outcomeUnknown: outcomeUnknown))
  }

  /// Puts a result that the store had into memory, for all who ask in this process.
  private func keep(
    _ lease: IdempotencyLease, _ result: ResultRoom, _ state: agr_store_run_state, _ now: Int64
  ) throws(Failure) {
    let time = try cache.time(now)
    guard let number = cache.shard(of: lease.id) else { return }
    let ttl = Swift.max(1, Swift.min(state.remaining_ns, cache.shared.configuration.timeToLive))
    let ending: KeyState = state.state == AGR_KEY_FAILED ? .failed : .success
    do throws(Failure) {
      _ = try cache.end(
        lease.id, result.data, result.length, ending, number, time, ttl, { true })
    } catch {
      _ = try? giveWay(lease.id, DurableRun(), for: interval(4, hint: 0), joins: false, now: now)
      throw error
    }
  }

  // MARK: - How often

  static let longestInterval: Int64 = 250_000_000

  /// When to ask again: the store's hint, or from 2 ms on twice as long each time, spread by a quarter.
  private func interval(_ polls: UInt32, hint: Int64) -> Int64 {
    let time =
      hint > 0
      ? hint : Swift.min(2_000_000 &<< Int64(Swift.min(polls, 8)), DurableCache.longestInterval)
    let spread = Int64(truncatingIfNeeded: processRandom() % 256)
    return Swift.max(1, time &- time / 4 &+ (time / 512) &* spread)
  }
}

/// Where a driver puts a result.
struct ResultRoom {
  private let most: Int
  private(set) var data: UnsafeMutableRawPointer?
  private(set) var length = 0

  init(most: Int) { self.most = most }

  mutating func reserve(_ length: Int) -> UnsafeMutableRawPointer? {
    free()
    guard length >= 0 && length <= most else { return nil }
    data = platform_allocate_block(Swift.max(1, length))
    self.length = data == nil ? 0 : length
    return data
  }

  mutating func free() {
    platform_free(data)
    data = nil
    length = 0
  }
}
