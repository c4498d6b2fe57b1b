import CAutoGLMReliability
import CSQLite
import Platform

/// The table, within a transaction.
struct Table: ~Copyable {
  let connection: Connection
  let now: StoreTime

  /// Reads a key's row, and while it is there, what `body` takes from its bytes.
  func find(
    _ key: RowKey, _ body: (Row, UnsafeRawBufferPointer) throws(Trouble) -> Void = { _, _ in }
  ) throws(Trouble) -> Row {
    let statement = connection.find
    try statement.bind(1, key.base, key.count)
    defer { statement.reset() }
    guard try statement.step("reading a row") else { return Row() }
    var row = Row(
      state: statement.integer(1), fence: statement.unsigned(2), lost: statement.unsigned(3),
      boot: statement.integer(4), until: statement.integer(5),
      end: RowEnd(sinceBoot: statement.integer(6), wall: statement.integer(7)),
      owner: (statement.unsigned(8), statement.unsigned(9)),
      print: (statement.unsigned(10), statement.unsigned(11)),
      resultBytes: statement.unsigned(12), isStored: true)
    if row.end.remaining(now, boot: row.boot) <= 0 {
      row = Row(fence: row.fence, isStored: true)
    } else if row.state == Row.State.running && row.leaseRemaining(now) <= 0 {
      // A run whose lease has ended is lost, from that moment on.
      row.state = Row.State.lost
      row.lost = row.fence
    }
    try body(row, statement.bytes(13))
    return row
  }

  /// Writes a whole row.
  func put(_ key: RowKey, _ row: Row, _ bytes: UnsafeRawBufferPointer) throws(Trouble) {
    let statement = connection.insert
    try statement.bind(1, key.base, key.count)
    try statement.bind(2, row.state)
    try statement.bind(3, row.fence)
    try statement.bind(4, row.lost)
    try statement.bind(5, row.boot)
    try statement.bind(6, row.until)
    try statement.bind(7, row.end.sinceBoot)
    try statement.bind(8, row.end.wall)
    try statement.bind(9, row.owner.0)
    try statement.bind(10, row.owner.1)
    try statement.bind(11, row.print.0)
    try statement.bind(12, row.print.1)
    try statement.bind(13, row.resultBytes)
    try statement.bind(14, bytes.baseAddress, bytes.count)
    try statement.run("writing a row")
  }

  /// Changes what a run ends with.
  func end(_ key: RowKey, _ row: Row, _ bytes: UnsafeRawBufferPointer) throws(Trouble) {
    let statement = connection.update
    try statement.bind(1, key.base, key.count)
    try statement.bind(2, row.state)
    try statement.bind(3, row.lost)
    try statement.bind(4, row.boot)
    try statement.bind(5, row.end.sinceBoot)
    try statement.bind(6, row.end.wall)
    try statement.bind(7, bytes.baseAddress, bytes.count)
    try statement.run("writing a result")
  }

  /// Changes when a run's lease ends.
  func extend(_ key: RowKey, _ row: Row) throws(Trouble) {
    let statement = connection.extend
    try statement.bind(1, key.base, key.count)
    try statement.bind(2, row.boot)
    try statement.bind(3, row.until)
    try statement.bind(4, row.end.sinceBoot)
    try statement.bind(5, row.end.wall)
    try statement.run("extending a lease")
  }

  /// A fence for a key, above all that it had: above its row's, or above those of all rows that are
  /// gone.
  func nextFence(_ row: Row) throws(Trouble) -> UInt64 {
    max(row.isStored ? row.fence : 0, try floor()) &+ 1
  }

  func floor() throws(Trouble) -> UInt64 {
    let statement = connection.floor
    defer { statement.reset() }
    return try statement.step("reading the fences' floor") ? statement.unsigned(0) : 0
  }

  /// Removes those of the `count` rows after the cursor that have ended, and moves it on. The fences of what
  /// goes stay known as a floor for all keys.
  func sweep(_ cursor: inout SweepCursor, count: Int64) throws(Trouble) {
    let isLast = try bound(&cursor, count)
    let floor = try self.floor()
    let highest = connection.highest
    defer { highest.reset() }
    try bindRange(highest, cursor)
    if try highest.step("looking for rows that have ended") {
      // The answer is 0 when there are none.
      let fence = highest.unsigned(0)
      if fence > 0 {
        try bindRange(connection.delete, cursor)
        try connection.delete.run("removing rows")
        if fence > floor {
          try connection.setFloor.bind(1, fence)
          try connection.setFloor.run("writing the fences' floor")
        }
      }
    }
    cursor.move(isLast: isLast)
  }

  /// Finds how far the sweep goes; says whether that is to the end.
  private func bound(_ cursor: inout SweepCursor, _ count: Int64) throws(Trouble) -> Bool {
    let statement = connection.scan
    defer { statement.reset() }
    try statement.bind(1, cursor.from.baseAddress, cursor.from.count)
    try statement.bind(2, count)
    let isLast = try !statement.step("looking for rows that have ended")
    if isLast { cursor.setLast() } else { try cursor.set(statement.bytes(0)) }
    return isLast
  }

  private func bindRange(
    _ statement: Statement, _ cursor: borrowing SweepCursor
  ) throws(Trouble) {
    try statement.bind(1, cursor.from.baseAddress, cursor.from.count)
    try statement.bind(2, cursor.to.baseAddress, cursor.to.count)
    try statement.bind(3, now.boot)
    try statement.bind(4, now.sinceBoot)
    try statement.bind(5, now.wall)
  }
}
