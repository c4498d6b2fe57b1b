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

  init(_ configuration: Configuration) throws(Trouble) {
    let cursor = try SweepCursor()
    let keys = try KeyBuffer()
    self.cursor = cursor
    self.keys = keys
    self.configuration = configuration
    boot = csqlite_boot()
  }

  deinit {
    connection?.close()
    keys.free()
    platform_free(configuration.path)
  }

  mutating func open(creates: Bool, deadline: Int64) throws(Trouble) {
    connection = try Connection(configuration, creates: creates, deadline: deadline)
  }

  /// Gives up the connection; the next request opens another.
  mutating func close() {
    connection?.close()
    connection = nil
  }

  /// Settles every request.
  mutating func execute(_ batch: RequestList) {
    guard let trouble = attempt(batch) else { return }
    if batch.count == 1 {
      batch.forEach { $0.pointee.settle(trouble) }
    } else {
      // One of them spoils it for all, perhaps: each alone.
      var request = batch.first
      while let one = request {
        request = one.pointee.next
        var single = RequestList()
        let next = one.pointee.next
        single.append(one)
        if let trouble = attempt(single) { one.pointee.settle(trouble) }
        one.pointee.next = next
      }
    }
  }

  /// One transaction; returns why it did not come about.
  private mutating func attempt(_ batch: RequestList) -> Trouble? {
    do throws(Trouble) {
      let connection = try connected(batch)
      try start(connection, batch)
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

  private mutating func connected(_ batch: RequestList) throws(Trouble) -> Connection {
    if let connection {
      guard csqlite_has_moved(connection.database) == 0 else {
        close()
        throw .path("the database was moved or removed", 0)
      }
      return connection
    }
    let fresh = try Connection(
      configuration, creates: false, deadline: Executor.deadline(of: batch))
    connection = fresh
    return fresh
  }

  private func start(_ connection: Connection, _ batch: RequestList) throws(Trouble) {
    Connection.wait(connection.database, until: Executor.deadline(of: batch))
    var onlyReads = true
    batch.forEach { onlyReads = onlyReads && $0.pointee.question.onlyReads }
    do throws(Trouble) {
      try (onlyReads ? connection.beginReading : connection.begin).run("beginning a transaction")
    } catch {
      throw error.code & 0xff == SQLITE_BUSY ? .timedOut : error
    }
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
