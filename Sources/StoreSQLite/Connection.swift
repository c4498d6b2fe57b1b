import CAutoGLMReliability
import CSQLite
import Platform

/// A connection to the database, and the statements on it. Used by one thread at a time.
struct Connection {
  let database: OpaquePointer
  let begin: Statement
  let beginReading: Statement
  let commit: Statement
  let rollback: Statement
  let find: Statement
  let insert: Statement
  let update: Statement
  let extend: Statement
  let scan: Statement
  let highest: Statement
  let delete: Statement
  let floor: Statement
  let setFloor: Statement

  /// Tells the file as one of this store, and its layout.
  private static let applicationID: Int64 = 0x4147_5253
  private static let version: Int64 = 1

  /// The one table. The row is over when `ends` is, or in another boot than `boot` when `wall` is; `until` is when a
  /// lease is.
  static let table: StaticString = """
    CREATE TABLE agr_store(key BLOB PRIMARY KEY, state INTEGER NOT NULL, fence INTEGER NOT NULL, \
    lost INTEGER NOT NULL, boot INTEGER NOT NULL, until INTEGER NOT NULL, ends INTEGER NOT NULL, \
    wall INTEGER NOT NULL, owner_a INTEGER NOT NULL, owner_b INTEGER NOT NULL, \
    print_a INTEGER NOT NULL, print_b INTEGER NOT NULL, bytes INTEGER NOT NULL, \
    result BLOB NOT NULL) WITHOUT ROWID
    """

  /// As `init`. While another process makes the file, or brings it up to date after a crash, SQLite says at once that it is
  /// locked, and does not wait.
  static func open(
    _ configuration: borrowing Configuration, creates: Bool, deadline: Int64
  ) throws(Trouble) -> Connection {
    while true {
      do throws(Trouble) {
        return try Connection(configuration, creates: creates, deadline: deadline)
      } catch {
        guard error.isBusy && platform_monotonic_ns() < deadline else { throw error }
        csqlite_pause()
      }
    }
  }

  /// Opens the file; makes its table if `creates` and there is nothing in it.
  private init(
    _ configuration: borrowing Configuration, creates: Bool, deadline: Int64
  ) throws(Trouble) {
    let database = try Connection.openFile(configuration.path)
    do throws(Trouble) {
      try Connection.prepare(database, configuration, creates: creates, deadline)
      self = try Connection(database)
    } catch {
      Connection.close(database)
      throw error
    }
  }

  func close() { Connection.close(database) }

  private static func close(_ database: OpaquePointer) {
    while let statement = sqlite3_next_stmt(database, nil) { _ = sqlite3_finalize(statement) }
    _ = sqlite3_close(database)
  }

  private init(_ database: OpaquePointer) throws(Trouble) {
    self.database = database
    begin = try Statement(database, "BEGIN IMMEDIATE")
    beginReading = try Statement(database, "BEGIN")
    commit = try Statement(database, "COMMIT")
    rollback = try Statement(database, "ROLLBACK")
    find = try Statement(database, "SELECT * FROM agr_store WHERE key = ?1")
    insert = try Statement(
      database,
      "INSERT OR REPLACE INTO agr_store VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14)"
    )
    update = try Statement(
      database,
      """
      UPDATE agr_store SET state=?2, lost=?3, boot=?4, ends=?5, wall=?6, result=?7 WHERE key=?1
      """)
    extend = try Statement(
      database, "UPDATE agr_store SET boot=?2, until=?3, ends=?4, wall=?5 WHERE key=?1")
    scan = try Statement(
      database, "SELECT key FROM agr_store WHERE key > ?1 ORDER BY key LIMIT 1 OFFSET ?2")
    highest = try Statement(
      database,
      """
      SELECT max(fence) FROM agr_store WHERE key > ?1 AND key <= ?2 \
      AND CASE boot WHEN ?3 THEN ends <= ?4 ELSE wall <= ?5 END
      """)
    delete = try Statement(
      database,
      """
      DELETE FROM agr_store WHERE key > ?1 AND key <= ?2 \
      AND CASE boot WHEN ?3 THEN ends <= ?4 ELSE wall <= ?5 END
      """)
    floor = try Statement(database, "SELECT fence FROM agr_store WHERE key = x''")
    setFloor = try Statement(
      database,
      "INSERT OR REPLACE INTO agr_store VALUES(x'',0,?1,0,0,0,0,0,0,0,0,0,0,x'')")
  }

  // MARK: - Opening

  private static func openFile(_ path: UnsafePointer<CChar>) throws(Trouble) -> OpaquePointer {
    var made: OpaquePointer?
    let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE
    let code = sqlite3_open_v2(path, &made, flags, nil)
    guard let made else { throw .noMemory }
    guard code == SQLITE_OK else {
      _ = sqlite3_close_v2(made)
      throw .path("the database cannot be opened", code)
    }
    return made
  }

  private static func prepare(
    _ database: OpaquePointer, _ configuration: borrowing Configuration, creates: Bool,
    _ deadline: Int64
  ) throws(Trouble) {
    guard csqlite_defend(database) == SQLITE_OK else { throw .noMemory }
    wait(database, until: deadline)
    guard sqlite3_db_readonly(database, "main") == 0 else {
      throw .path("the database cannot be written", SQLITE_READONLY)
    }
    // Reads the file for the first time: it is told here when it is no database.
    if try pragma(database, "PRAGMA application_id") != applicationID {
      try initialize(database, creates: creates)
    }
    guard try pragma(database, "PRAGMA user_version") == version else {
      throw .path("the database is of another version of this store", 0)
    }
    try checkTable(database)
    try requireWAL(database)
    _ = try pragma(
      database, configuration.isFull ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL")
    _ = try pragma(database, "PRAGMA cell_size_check=ON")
    // Only under the lock of writers (`Executor.checkpoint`): SQLite before 3.51.3 can lose what is committed
    // while another connection moves the log into the database (sqlite.org/wal.html#walresetbug).
    _ = try pragma(database, "PRAGMA wal_autocheckpoint=0")
    _ = try pragma(database, "PRAGMA journal_size_limit=67108864")
    if configuration.maxBytes > 0 { try limit(database, configuration.maxBytes) }
  }

  /// Lets SQLite wait for others as long as the deadline allows.
  static func wait(_ database: OpaquePointer, until deadline: Int64) {
    let left = (deadline &- platform_monotonic_ns()) / 1_000_000
    _ = sqlite3_busy_timeout(database, Int32(min(max(left, 0), 3_600_000)))
  }

  /// Runs a statement and returns the number in its first row, 0 without one.
  private static func pragma(
    _ database: OpaquePointer, _ text: StaticString
  ) throws(Trouble) -> Int64 {
    do throws(Trouble) {
      let statement = try Statement(database, text)
      defer { statement.finalize() }
      return try statement.step("reading the database") ? statement.integer(0) : 0
    } catch {
      throw .path("the database cannot be read", error.code)
    }
  }

  /// Makes the table in a file with nothing in it. Several processes may try at a time.
  private static func initialize(
    _ database: OpaquePointer, creates: Bool
  ) throws(Trouble) {
    guard creates else { throw .path("the database is gone", 0) }
    try requireWAL(database)
    _ = try pragma(database, "BEGIN IMMEDIATE")
    do throws(Trouble) {
      if try pragma(database, "PRAGMA application_id") != applicationID {
        let objects = try pragma(database, "SELECT count(*) FROM sqlite_schema")
        let version = try pragma(database, "PRAGMA user_version")
        let owner = try pragma(database, "PRAGMA application_id")
        guard objects == 0 && version == 0 && owner == 0 else {
          throw Trouble.path("the database is one of something else", 0)
        }
        _ = try pragma(database, "PRAGMA application_id=1095193171")
        _ = try pragma(database, "PRAGMA user_version=1")
        _ = try pragma(database, table)
      }
      _ = try pragma(database, "COMMIT")
    } catch {
      _ = try? pragma(database, "ROLLBACK")
      throw error
    }
  }

  /// There is this table and nothing else: no trigger, no view that would do more than is asked for.
  private static func checkTable(_ database: OpaquePointer) throws(Trouble) {
    do throws(Trouble) {
      let statement = try Statement(database, "SELECT sql FROM sqlite_schema")
      defer { statement.finalize() }
      if try statement.step("reading the schema"), statement.bytes(0).isEqual(table),
        try !statement.step("reading the schema")
      {
        return
      }
    } catch {
      throw .path("the database cannot be read", error.code)
    }
    throw .path("the database is not laid out as this store does", 0)
  }

  private static func requireWAL(_ database: OpaquePointer) throws(Trouble) {
    do throws(Trouble) {
      let statement = try Statement(database, "PRAGMA journal_mode=WAL")
      defer { statement.finalize() }
      guard try statement.step("setting the journal mode") else { return }
      if statement.bytes(0).isEqual("wal") { return }
    } catch {
      throw .path("the write-ahead log cannot be made", error.code)
    }
    throw .path("the file system does not allow a write-ahead log", 0)
  }

  private static func limit(_ database: OpaquePointer, _ bytes: UInt64) throws(Trouble) {
    let size = try pragma(database, "PRAGMA page_size")
    guard size > 0 else { return }
    let pages = Int64(bytes / UInt64(size))
    // SQLite has no parameter for it, and the number must be part of the text.
    var text = DecimalText("PRAGMA max_page_count=")
    text.append(pages)
    let code = text.withPointer { sqlite3_exec(database, $0, nil, nil, nil) }
    guard code == SQLITE_OK else { throw .path("max_bytes cannot be set", code) }
  }
}

extension UnsafeRawBufferPointer {
  fileprivate func isEqual(_ text: StaticString) -> Bool {
    guard let baseAddress, count == text.utf8CodeUnitCount else { return false }
    return memcmp(baseAddress, text.utf8Start, count) == 0
  }
}

extension Trouble {
  static func path(_ message: StaticString, _ code: Int32) -> Trouble {
    let status = code & 0xff == SQLITE_NOMEM ? AGR_ERR_NO_MEMORY : AGR_ERR_STORE
    return Trouble(status, "path", message, code: code)
  }
}
