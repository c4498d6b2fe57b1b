import CAutoGLMReliability
import CSQLite
import Platform

/// Why a request was not carried out: a status, and what is said of it.
struct Trouble: Error {
  let status: Int
  let field: StaticString
  let message: StaticString
  /// The result of a SQLite function, whose own words follow the message; 0: none.
  let code: Int32

  init(_ status: Int, _ field: StaticString, _ message: StaticString, code: Int32 = 0) {
    self.status = status
    self.field = field
    self.message = message
    self.code = code
  }

  static func argument(_ field: StaticString, _ message: StaticString) -> Trouble {
    Trouble(AGR_ERR_ARGUMENT, field, message)
  }

  /// What SQLite answered while `doing` something.
  static func sqlite(_ code: Int32, _ doing: StaticString) -> Trouble {
    let status = code & 0xff == SQLITE_NOMEM ? AGR_ERR_NO_MEMORY : AGR_ERR_STORE
    return Trouble(status, "", doing, code: code)
  }

  static let noMemory = Trouble(AGR_ERR_NO_MEMORY, "", "an allocation failed")
  static let timedOut = Trouble(
    AGR_ERR_STORE, "", "timed out waiting for the database", code: SQLITE_BUSY)

  /// Whether another program has the database to itself.
  var isBusy: Bool { code & 0xff == SQLITE_BUSY }

  /// Whether the connection is better opened anew before it is used again.
  var needsNewConnection: Bool {
    switch code & 0xff {
    case SQLITE_IOERR, SQLITE_CORRUPT, SQLITE_NOTADB, SQLITE_CANTOPEN, SQLITE_PROTOCOL,
      SQLITE_MISUSE, SQLITE_SCHEMA:
      true
    default: false
    }
  }

  func report(_ error: UnsafeMutablePointer<agr_error>?) -> agr_status {
    let status = agr_status(truncatingIfNeeded: self.status)
    guard let error else { return status }
    error.pointee = agr_error()
    error.pointee.status = status
    withUnsafeMutableBytes(of: &error.pointee.field) { bytes in
      _ = append(field.utf8Start, field.utf8CodeUnitCount, bytes, 0)
    }
    withUnsafeMutableBytes(of: &error.pointee.message) { bytes in
      var end = append(message.utf8Start, message.utf8CodeUnitCount, bytes, 0)
      guard code != 0, let words = sqlite3_errstr(code) else { return }
      let separator: StaticString = ": "
      end = append(separator.utf8Start, separator.utf8CodeUnitCount, bytes, end)
      words.withMemoryRebound(to: UInt8.self, capacity: 1) { text in
        _ = append(text, strlen(words), bytes, end)
      }
    }
    return status
  }

  /// Appends a text, cut so that a NUL remains at the end; returns where the next one goes.
  private func append(
    _ text: UnsafePointer<UInt8>, _ length: Int, _ into: UnsafeMutableRawBufferPointer,
    _ start: Int
  ) -> Int {
    let room = into.count &- 1 &- start
    guard let base = into.baseAddress, room > 0, length > 0 else { return start }
    let count = min(room, length)
    memcpy(base + start, text, count)
    return start &+ count
  }
}
