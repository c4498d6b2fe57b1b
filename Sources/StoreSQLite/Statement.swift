import CAutoGLMReliability
import CSQLite

/// A prepared statement. Whoever uses one resets it before anybody else does.
struct Statement {
  let pointer: OpaquePointer

  init(_ database: OpaquePointer, _ text: StaticString) throws(Trouble) {
    var made: OpaquePointer?
    let code = text.utf8Start.withMemoryRebound(to: CChar.self, capacity: text.utf8CodeUnitCount) {
      sqlite3_prepare_v3(
        database, $0, Int32(truncatingIfNeeded: text.utf8CodeUnitCount),
        UInt32(SQLITE_PREPARE_PERSISTENT), &made, nil)
    }
    guard code == SQLITE_OK, let made else { throw .sqlite(code, "preparing a statement") }
    pointer = made
  }

  func finalize() { _ = sqlite3_finalize(pointer) }

  /// Steps once: `true` with a row, which is good until `reset`.
  func step(_ doing: StaticString) throws(Trouble) -> Bool {
    let code = sqlite3_step(pointer)
    if code == SQLITE_ROW { return true }
    if code == SQLITE_DONE { return false }
    let extended = sqlite3_extended_errcode(sqlite3_db_handle(pointer))
    throw .sqlite(extended == SQLITE_OK ? code : extended, doing)
  }

  /// Runs a statement that has no rows.
  func run(_ doing: StaticString) throws(Trouble) {
    defer { reset() }
    _ = try step(doing)
  }

  func reset() { _ = sqlite3_reset(pointer) }

  // Binding fails only for want of memory, or with an index of the store's own making.

  func bind(_ index: Int32, _ value: Int64) throws(Trouble) {
    let code = sqlite3_bind_int64(pointer, index, value)
    guard code == SQLITE_OK else { throw .sqlite(code, "binding a value") }
  }

  func bind(_ index: Int32, _ value: UInt64) throws(Trouble) {
    try bind(index, Int64(bitPattern: value))
  }

  /// The bytes are not copied: they stay until the statement is bound anew.
  func bind(_ index: Int32, _ bytes: UnsafeRawPointer?, _ count: Int) throws(Trouble) {
    let code =
      count == 0
      ? sqlite3_bind_zeroblob(pointer, index, 0)
      : sqlite3_bind_blob64(pointer, index, bytes, UInt64(count), nil)
    guard code == SQLITE_OK else { throw .sqlite(code, "binding bytes") }
  }

  func integer(_ column: Int32) -> Int64 { sqlite3_column_int64(pointer, column) }
  func unsigned(_ column: Int32) -> UInt64 { UInt64(bitPattern: integer(column)) }

  /// Bytes of the present row; they stay until the statement is stepped or reset.
  func bytes(_ column: Int32) -> UnsafeRawBufferPointer {
    let base = sqlite3_column_blob(pointer, column)
    let count = Int(sqlite3_column_bytes(pointer, column))
    return UnsafeRawBufferPointer(start: base, count: base == nil ? 0 : max(0, count))
  }
}
