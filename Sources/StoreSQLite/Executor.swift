import CAutoGLMReliability
import CSQLite
import Platform

/// Carries requests out, several in one transaction. Used by one thread at a time, the leader.
struct Executor: ~Copyable {
  let configuration: Configuration
  private let boot: Int64
  private let keys: KeyBuffer
  private var cursor: SweepCursor
  private var connection: Connection?
  /// Rows that were added since the last sweep.
  private var added: Int64 = 0

  /// So many rows are added before as many, and more, are looked at for having ended.
  private static let sweepEvery: Int64 = 16
  /// So many pages are in the log before they are moved.
  private static let longLog: Int32 = 1000
  private let logPages: UnsafeMutablePointer<Int32>

  /// Takes the configuration over, also when it throws.
  init(_ configuration: Configuration) throws(Trouble) {
    let pages = platform_allocate(MemoryLayout<Int32>.size)
    do throws(Trouble) {
      guard let pages else { throw .noMemory }
      let cursor = try SweepCursor()
      keys = try KeyBuffer()
      self.cursor = cursor
      logPages = pages.bindMemory(to: Int32.self, capacity: 1)
    } catch {
      platform_free(pages)
      platform_free(configuration.path)
      throw error
    }
    self.configuration = configuration
    boot = csqlite_boot()
  }

  deinit {
    connection?.close()
    keys.free()
    platform_free(logPages)
    platform_free(configuration.path)
  }

  mutating func open(creates: Bool, deadline: Int64) throws(Trouble) {
    let fresh = try Connection.open(configuration, creates: creates, deadline: deadline)
    csqlite_watch_log(fresh.database, logPages)
    connection = fresh
  }

  /// Gives up the connection; the next request opens another.
  mutating func close() {
    connection?.close()
    connection = nil
  }

  /// What became of a batch: requests that have their answer, and those for which the leader's time was too
  /// short, which others may lead.
  struct Outcome {
    var settled = RequestList()
    var left = RequestList()
  }

  /// Tries a batch, until a time at the most, and not longer than the first of its requests has.
  mutating func execute(_ batch: RequestList, until limit: Int64) -> Outcome {
    var outcome = Outcome()
    guard let trouble = attempt(batch, until: min(limit, Executor.deadline(of: batch))) else {
      outcome.settled = batch
      return outcome
    }
    outcome.left = batch
    if trouble.isBusy {
      Executor.settleLate(&outcome)
    } else if batch.count == 1 {
      settle(outcome.left.popFirst(), trouble, &outcome)
    } else {
      executeAlone(&outcome, limit)
    }
    return outcome
  }

  /// One of them spoils the transaction for all, perhaps: each in one of its own.
  private mutating func executeAlone(_ outcome: inout Outcome, _ limit: Int64) {
    var batch = outcome.left
    outcome.left = RequestList()
    var isBusy = false
    while let request = batch.popFirst() {
      if isBusy {
        outcome.left.append(request)
        continue
      }
      var single = RequestList()
      single.append(request)
      let trouble = attempt(single, until: min(limit, request.pointee.deadline))
      isBusy = trouble?.isBusy ?? false
      if isBusy {
        outcome.left.append(request)
      } else if let trouble {
        settle(request, trouble, &outcome)
      } else {
        outcome.settled.append(request)
      }
    }
    if isBusy { Executor.settleLate(&outcome) }
  }

  private func settle(
    _ request: Request.Pointer?, _ trouble: Trouble, _ outcome: inout Outcome
  ) {
    guard let request else { return }
    request.pointee.settle(trouble)
    outcome.settled.append(request)
  }

  /// Settles those whose time is over.
  private static func settleLate(_ outcome: inout Outcome) {
    var batch = outcome.left
    outcome.left = RequestList()
    while let request = batch.popFirst() {
      if isLate(request) {
        request.pointee.settle(.timedOut)
        outcome.settled.append(request)
      } else {
        outcome.left.append(request)
      }
    }
  }

  /// SQLite waits in whole milliseconds.
  private static func isLate(_ request: Request.Pointer) -> Bool {
    request.pointee.deadline &- platform_monotonic_ns() < 1_000_000
  }

  /// One transaction; returns why it did not come about.
  private mutating func attempt(_ batch: RequestList, until deadline: Int64) -> Trouble? {
    do throws(Trouble) {
      let connection = try connected(until: deadline)
      try start(connection, batch, until: deadline)
      do throws(Trouble) {
        var work = Work(
          table: Table(connection: connection, now: StoreTime(boot: boot)),
          maxResultBytes: configuration.maxResultBytes, keys: keys)
        var request = batch.first
        while let one = request {
          try Executor.answer(one, &work)
          request = one.pointee.next
        }
        added &+= work.added
        try sweep(work.table)
        try connection.commit.run("committing")
        checkpoint(connection)
      } catch {
        if sqlite3_get_autocommit(connection.database) == 0 {
          _ = try? connection.rollback.run("rolling back")
        }
        throw error
      }
      return nil
    } catch {
      if error.needsNewConnection { close() }
      return error
    }
  }

  private mutating func connected(until deadline: Int64) throws(Trouble) -> Connection {
    if let connection {
      guard csqlite_has_moved(connection.database) == 0 else {
        close()
        throw .path("the database was moved or removed", 0)
      }
      return connection
    }
    let fresh = try Connection.open(configuration, creates: false, deadline: deadline)
    csqlite_watch_log(fresh.database, logPages)
    connection = fresh
    return fresh
  }

  private func start(
    _ connection: Connection, _ batch: RequestList, until deadline: Int64
  ) throws(Trouble) {
    Connection.wait(connection.database, until: deadline)
    var onlyReads = true
    batch.forEach { onlyReads = onlyReads && $0.pointee.question.onlyReads }
    do throws(Trouble) {
      try (onlyReads ? connection.beginReading : connection.begin).run("beginning a transaction")
    } catch {
      throw error.isBusy ? .timedOut : error
    }
  }

  /// Moves the log into the database when it has become long.
  private func checkpoint(_ connection: Connection) {
    guard logPages.pointee >= Executor.longLog else { return }
    logPages.pointee = 0
    csqlite_checkpoint(connection.database)
  }

  private mutating func sweep(_ table: borrowing Table) throws(Trouble) {
    guard added >= Executor.sweepEvery else { return }
    let count = added &* 2
    added = 0
    try table.sweep(&cursor, count: count)
  }

  /// The earliest of all.
  private static func deadline(of batch: RequestList) -> Int64 {
    var earliest = Int64.max
    batch.forEach { earliest = min(earliest, $0.pointee.deadline) }
    return earliest
  }

  /// Settles a request whose trouble is its own; throws what concerns the whole transaction.
  private static func answer(
    _ request: Request.Pointer, _ work: inout Work
  ) throws(Trouble) {
    do throws(Trouble) {
      request.pointee.settle(try ask(request.pointee.question, &work))
    } catch {
      guard error.code == 0 else { throw error }
      request.pointee.settle(error)
    }
  }

  private static func ask(_ question: Question, _ work: inout Work) throws(Trouble) -> Int {
    switch question {
    case .ping: try work.ping()
    case .begin(let run, let sink, let out): try work.begin(run.pointee, sink.pointee, out)
    case .read(let key, let sink, let out): try work.read(key.pointee, sink.pointee, out)
    case .renew(let key, let fence, let lease, let ttl):
      try work.renew(key.pointee, fence, lease: lease, ttl: ttl)
    case .complete(let key, let fence, let state, let data, let ttl):
      try work.complete(key.pointee, fence, state, data, ttl: ttl)
    case .giveBack(let key, let fence, let unknown, let ttl):
      try work.giveBack(key.pointee, fence, outcomeUnknown: unknown, ttl: ttl)
    case .acquire(let lease, let fence, let retry): try work.acquire(lease.pointee, fence, retry)
    case .extend(let lease): try work.extend(lease.pointee)
    case .release(let lease): try work.release(lease.pointee)
    }
  }
}
