import CRedis
import Platform
import Synchronization

/// How an exchange ended.
enum Exchange {
  /// The caller frees the reply.
  case reply(UnsafeMutablePointer<redisReply>)
  /// `isSent`: the server may have done what it was asked.
  case failed(Words, isSent: Bool)
  case noMemory
}

/// Makes a connection in time, or says why not.
typealias Opener = (_ deadline: Int64, _ why: inout Words) -> credis_link?

/// A place for one connection, which threads share.
///
/// A thread appends its command to what is to be sent, and itself to those who wait, in the same order. One thread at a
/// time sends, for all who appended meanwhile; one reads, and hands out replies until it has its own, then
/// leaves the reading to the next who waits. So one round trip serves all who come during it.
///
/// What is shared lies behind a pointer, since several threads are in these functions at a time.
struct Channel {
  private struct Gate: ~Copyable {
    let lock = Lock()
    /// Whose it is: a child of a fork finds its parent's.
    let process = Atomic<Int32>(credis_process())
    let waiting = Atomic<Int>(0)
  }

  /// What is guarded by the lock.
  private struct State: ~Copyable {
    var session: UnsafeMutablePointer<Session>?
    var pending = Bytes()
    var first: UnsafeMutablePointer<Request>?
    var last: UnsafeMutablePointer<Request>?
    var isSending = false
    /// Why the last session ended.
    var why = Words("")
  }

  private let gate: UnsafeMutablePointer<Gate>
  private let state: UnsafeMutablePointer<State>
  /// Of the thread that sends.
  private let sending: UnsafeMutablePointer<Bytes>

  private static let sendingOffset = 64
  private static let stateOffset = 128

  init?() {
    guard let memory = platform_allocate(Channel.stateOffset &+ MemoryLayout<State>.size) else {
      return nil
    }
    gate = memory.bindMemory(to: Gate.self, capacity: 1)
    gate.initialize(to: Gate())
    sending = (memory + Channel.sendingOffset).bindMemory(to: Bytes.self, capacity: 1)
    sending.initialize(to: Bytes())
    state = (memory + Channel.stateOffset).bindMemory(to: State.self, capacity: 1)
    state.initialize(to: State())
  }

  func destroy() {
    adopt()
    drop()
    state.deinitialize(count: 1)
    sending.deinitialize(count: 1)
    gate.deinitialize(count: 1)
    platform_free(gate)
  }

  /// How many are in `exchange`.
  var load: Int { gate.pointee.waiting.load(ordering: .relaxed) }

  /// Sends a command, and waits for its reply, the one after `skips` others.
  func exchange(
    _ command: borrowing Bytes, skips: Int, deadline: Int64, _ open: Opener
  ) -> Exchange {
    guard !command.isVoid, let request = Request.make(skips: skips) else { return .noMemory }
    defer { Request.release(request) }
    adopt()
    gate.pointee.waiting.wrappingAdd(1, ordering: .relaxed)
    defer { gate.pointee.waiting.wrappingSubtract(1, ordering: .relaxed) }
    gate.pointee.lock.lock()
    state.pointee.pending.append(command)
    if let last = state.pointee.last {
      last.held.pointee.next = request
    } else {
      state.pointee.first = request
    }
    state.pointee.last = request
    if state.pointee.pending.isVoid {
      breakOff(Words("an allocation failed"))
    } else if !state.pointee.isSending {
      send(deadline, open)
    }
    return wait(for: request, deadline)
  }

  /// Ends the connection; whoever waits is told. For what a reply says of the server.
  func reset(_ words: Words) {
    adopt()
    gate.pointee.lock.lock()
    breakOff(words)
    gate.pointee.lock.unlock()
  }

  // MARK: - Sending, with the lock held before and after

  /// Sends until nothing is left.
  private func send(_ deadline: Int64, _ open: Opener) {
    state.pointee.isSending = true
    if let session = state.pointee.session, let first = state.pointee.first,
      !first.held.pointee.isSent, credis_has_gone(session.pointee.link) != 0
    {
      drop()
    }
    while state.pointee.pending.count > 0 {
      // Others are about to ask too, most likely: those whose replies came with the last one. A write costs
      // more than to let them go first.
      if load > 1 {
        gate.pointee.lock.unlock()
        credis_yield()
        gate.pointee.lock.lock()
        if state.pointee.pending.count == 0 { break }
      }
      guard let session = state.pointee.session ?? connect(deadline, open) else { break }
      Session.retain(session)
      sending.pointee.clear()
      sending.pointee.swap(&state.pointee.pending)
      var request = state.pointee.first
      while let one = request {
        one.held.pointee.isSent = true
        request = one.held.pointee.next
      }
      gate.pointee.lock.unlock()
      let isDone = Session.write(
        session, sending.pointee.base, sending.pointee.count, deadline)
      gate.pointee.lock.lock()
      if !isDone && state.pointee.session == session {
        breakOff(Words("the connection failed while a command was sent"))
      }
      Session.release(session)
    }
    state.pointee.isSending = false
    // Whoever read may have left while there was nothing to read for; and this thread may have its reply.
    if let session = state.pointee.session, !session.held.pointee.isReading { _ = passOn(session) }
  }

  private func connect(_ deadline: Int64, _ open: Opener) -> UnsafeMutablePointer<Session>? {
    gate.pointee.lock.unlock()
    var words = Words("")
    let link = open(deadline, &words)
    gate.pointee.lock.lock()
    guard let link else {
      breakOff(words)
      return nil
    }
    guard let session = Session.make(link) else {
      breakOff(Words("an allocation failed"))
      return nil
    }
    // The connection failed for those who gave up meanwhile: nothing is left to send.
    if state.pointee.pending.count == 0 {
      Session.release(session)
      return nil
    }
    state.pointee.session = session
    return session
  }

  // MARK: - Waiting and reading

  /// Waits for a reply. Called with the lock held, and gives it back.
  private func wait(
    for request: UnsafeMutablePointer<Request>, _ deadline: Int64
  ) -> Exchange {
    while true {
      switch request.pointee.state.load(ordering: .acquiring) {
      case Request.answered:
        gate.pointee.lock.unlock()
        return answer(request)
      case Request.failed:
        let words = state.pointee.why
        gate.pointee.lock.unlock()
        return .failed(words, isSent: request.held.pointee.isSent)
      case Request.reads:
        request.pointee.state.store(Request.waiting, ordering: .relaxed)
        state.pointee.session?.held.pointee.isReading = false
      default:
        if let session = state.pointee.session, !session.held.pointee.isReading,
          request.held.pointee.isSent
        {
          if read(session, until: request, deadline) { continue }
          return leave(request)
        }
        gate.pointee.lock.unlock()
        let result = withUnsafePointer(to: request.pointee.state) {
          platform_futex_wait($0, Request.waiting, deadline)
        }
        // The usual end needs no lock: the reply is nobody else's any more.
        if request.pointee.state.load(ordering: .acquiring) == Request.answered {
          return answer(request)
        }
        gate.pointee.lock.lock()
        if result == ETIMEDOUT,
          request.pointee.state.load(ordering: .acquiring) == Request.waiting
        {
          return leave(request)
        }
      }
    }
  }

  private func answer(_ request: UnsafeMutablePointer<Request>) -> Exchange {
    guard let reply = request.held.pointee.reply else { return .noMemory }
    request.held.pointee.reply = nil
    return .reply(reply)
  }

  /// Leaves a request whose time is over. Called with the lock held, and gives it back.
  private func leave(_ request: UnsafeMutablePointer<Request>) -> Exchange {
    request.held.pointee.isWaitedFor = false
    let isSent = request.held.pointee.isSent
    gate.pointee.lock.unlock()
    return .failed(Words("timed out waiting for the server"), isSent: isSent)
  }

  /// Reads replies for all until the request has its own. False: its time is over. With the lock held before
  /// and after.
  private func read(
    _ session: UnsafeMutablePointer<Session>, until request: UnsafeMutablePointer<Request>,
    _ deadline: Int64
  ) -> Bool {
    Session.retain(session)
    session.held.pointee.isReading = true
    defer { Session.release(session) }
    while request.pointee.state.load(ordering: .relaxed) == Request.waiting {
      gate.pointee.lock.unlock()
      let count = Session.read(session, deadline)
      gate.pointee.lock.lock()
      guard state.pointee.session == session else { continue }
      if count < 0 {
        breakOff(Words("the server closed the connection"))
      } else if count == 0 {
        request.held.pointee.isWaitedFor = false
        // A server that is too slow for all who wait loses the connection: what it says in the end is not
        // waited for by those who come then.
        if !passOn(session) { breakOff(Words("timed out waiting for the server")) }
        return false
      } else {
        let answered = handOut(session, count)
        if request.pointee.state.load(ordering: .relaxed) != Request.waiting,
          state.pointee.session == session
        {
          _ = passOn(session)
        }
        // Whoever wakes has no lock to wait for.
        gate.pointee.lock.unlock()
        Request.wake(answered)
        gate.pointee.lock.lock()
      }
    }
    return true
  }

  /// Gives what was read to those who wait for it; returns them, in a list, to be woken.
  private func handOut(
    _ session: UnsafeMutablePointer<Session>, _ count: Int
  ) -> UnsafeMutablePointer<Request>? {
    let reader = session.pointee.reader
    guard redisReaderFeed(reader, session.pointee.buffer, count) == REDIS_OK else {
      breakOff(Words("an allocation failed"))
      return nil
    }
    var answered: UnsafeMutablePointer<Request>?
    while true {
      var reply: UnsafeMutablePointer<redisReply>?
      let result = credis_next_reply(reader, &reply)
      if result < 0 { breakOff(Words("what came is no reply of a server")) }
      guard result > 0, let reply else { return answered }
      guard let request = state.pointee.first else {
        freeReplyObject(reply)
        breakOff(Words("a reply came that nobody asked for"))
        return answered
      }
      if request.held.pointee.skips > 0 {
        request.held.pointee.skips &-= 1
        freeReplyObject(reply)
        continue
      }
      state.pointee.first = request.held.pointee.next
      if request.held.pointee.next == nil { state.pointee.last = nil }
      request.held.pointee.next = answered
      answered = request
      request.held.pointee.reply = reply
      request.pointee.state.store(Request.answered, ordering: .releasing)
    }
  }

  /// Leaves the reading to the next who waits; false when nobody does.
  private func passOn(_ session: UnsafeMutablePointer<Session>) -> Bool {
    session.held.pointee.isReading = false
    var request = state.pointee.first
    while let one = request {
      if one.held.pointee.isWaitedFor && one.held.pointee.isSent {
        session.held.pointee.isReading = true
        Request.tell(one, Request.reads)
        return true
      }
      request = one.held.pointee.next
    }
    return false
  }

  // MARK: - Failing, with the lock held

  /// Ends the session, and fails everybody who waits.
  private func breakOff(_ words: Words) {
    state.pointee.why = words
    state.pointee.pending.clear()
    drop()
    while let request = state.pointee.first {
      state.pointee.first = request.held.pointee.next
      Request.tell(request, Request.failed)
      Request.release(request)
    }
    state.pointee.last = nil
  }

  /// Ends the session; threads that are at it notice, and the last of them closes it.
  private func drop() {
    guard let session = state.pointee.session else { return }
    state.pointee.session = nil
    credis_shut(session.pointee.link)
    Session.release(session)
  }

  /// In the child of a fork the connection is the parent's, as is whoever waits for it: they are left alone.
  private func adopt() {
    let process = credis_process()
    while true {
      let owner = gate.pointee.process.load(ordering: .acquiring)
      if owner == process { return }
      // -1: another thread of the child is at it.
      guard owner != -1,
        gate.pointee.process.compareExchange(
          expected: owner, desired: -1, ordering: .acquiringAndReleasing
        ).exchanged
      else { continue }
      gate.pointee.lock.reset()
      if let session = state.pointee.session { credis_leave(session.pointee.link) }
      state.pointee.session = nil
      state.pointee.pending.clear()
      sending.pointee.clear()
      state.pointee.first = nil
      state.pointee.last = nil
      state.pointee.isSending = false
      gate.pointee.waiting.store(0, ordering: .relaxed)
      gate.pointee.process.store(process, ordering: .releasing)
    }
  }
}
