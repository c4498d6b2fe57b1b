import CAutoGLMReliability
import CSQLite

// Idempotency, one request at a time within a transaction. Each function answers a status of the header
// and has written nothing when it throws, or all that it wrote goes with the transaction.

/// What the requests of a transaction have in common.
struct Work: ~Copyable {
  let table: Table
  let maxResultBytes: UInt64
  let keys: KeyBuffer
  /// Rows that were added.
  var added: Int64 = 0

  private static let group: UInt8 = 0x72
  private static var nothing: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: nil, count: 0)
  }

  func ping() throws(Trouble) -> Int {
    _ = try table.floor()
    return AGR_OK
  }

  mutating func begin(
    _ run: agr_store_run, _ sink: agr_store_sink, _ out: UnsafeMutablePointer<agr_store_run_state>
  ) throws(Trouble) -> Int {
    guard run.result_bytes <= maxResultBytes else {
      throw Trouble(AGR_ERR_NEVER_FITS, "result_bytes", "more than the store's max_result_bytes")
    }
    let key = try RowKey(Work.group, run.key, keys)
    let row = try find(key, sink, out, print: run.fingerprint)
    out.pointee = agr_store_run_state()
    if Work.differ(row.print, run.fingerprint) && row.state != Row.State.forgotten {
      return AGR_MISMATCH
    }
    if row.isResult { return replay(row, out) }
    let isOwner = row.owner == run.owner
    if row.state == Row.State.running && !isOwner { return inProgress(row, out) }
    return try start(key, row, run, out)
  }

  private mutating func start(
    _ key: RowKey, _ known: Row, _ run: agr_store_run,
    _ out: UnsafeMutablePointer<agr_store_run_state>
  ) throws(Trouble) -> Int {
    let isRepeat = known.state == Row.State.running
    var row = known
    row.state = Row.State.running
    row.boot = table.now.boot
    row.until = table.now.end(in: run.lease_ns).sinceBoot
    row.end = table.now.end(in: StoreTime.later(run.lease_ns, run.ttl_ns))
    if isRepeat {
      try table.extend(key, row)
    } else {
      row.fence = try table.nextFence(known)
      row.owner = run.owner
      row.resultBytes = run.result_bytes
      if row.print == (0, 0) { row.print = run.fingerprint }
      try table.put(key, row, Work.nothing)
      added &+= known.isStored ? 0 : 1
    }
    out.pointee.fence = row.fence
    out.pointee.lost_fence = row.lost
    out.pointee.outcome_unknown = row.lost != 0 ? 1 : 0
    out.pointee.remaining_ns = row.until &- table.now.sinceBoot
    return AGR_OK
  }

  mutating func read(
    _ key: agr_store_key, _ sink: agr_store_sink,
    _ out: UnsafeMutablePointer<agr_store_run_state>
  ) throws(Trouble) -> Int {
    let row = try find(RowKey(Work.group, key, keys), sink, out, print: (0, 0))
    out.pointee = agr_store_run_state()
    if row.isResult { return replay(row, out) }
    if row.state == Row.State.running { return inProgress(row, out) }
    out.pointee.lost_fence = row.lost
    out.pointee.outcome_unknown = row.lost != 0 ? 1 : 0
    return AGR_NOT_FOUND
  }

  func renew(
    _ key: agr_store_key, _ fence: UInt64, lease: Int64, ttl: Int64
  ) throws(Trouble) -> Int {
    let key = try RowKey(Work.group, key, keys)
    var row = try table.find(key)
    guard row.isRun(fence) else { return AGR_STALE }
    row.boot = table.now.boot
    row.until = table.now.end(in: lease).sinceBoot
    row.end = table.now.end(in: StoreTime.later(lease, ttl))
    try table.extend(key, row)
    return AGR_OK
  }

  func complete(
    _ key: agr_store_key, _ fence: UInt64, _ state: Int32, _ data: UnsafeRawBufferPointer,
    ttl: Int64
  ) throws(Trouble) -> Int {
    guard state == AGR_KEY_SUCCESS || state == AGR_KEY_FAILED else {
      throw .argument("state", "must be AGR_KEY_SUCCESS or AGR_KEY_FAILED")
    }
    let key = try RowKey(Work.group, key, keys)
    var row = try table.find(key)
    if row.isResult && row.fence == fence { return AGR_OK }
    guard row.isRun(fence) else { return AGR_STALE }
    guard UInt64(data.count) <= min(row.resultBytes, maxResultBytes) else {
      throw Trouble(AGR_ERR_NEVER_FITS, "length", "more than the run began with")
    }
    row.state = Int64(state)
    row.lost = 0
    row.boot = table.now.boot
    row.end = table.now.end(in: ttl)
    try table.end(key, row, data)
    return AGR_OK
  }

  /// A row that is forgotten stays, ended, for its fence, until it is swept away.
  func giveBack(
    _ key: agr_store_key, _ fence: UInt64, outcomeUnknown: Bool, ttl: Int64
  ) throws(Trouble) -> Int {
    let key = try RowKey(Work.group, key, keys)
    var row = try table.find(key)
    guard row.isRun(fence) else { return AGR_STALE }
    if outcomeUnknown { row.lost = fence }
    row.boot = table.now.boot
    if row.lost != 0 {
      row.state = Row.State.lost
      row.end = table.now.end(in: ttl)
    } else {
      row.state = Row.State.forgotten
      row.end = RowEnd(sinceBoot: table.now.sinceBoot, wall: table.now.wall)
    }
    try table.end(key, row, Work.nothing)
    return AGR_OK
  }

  // MARK: - Answers

  /// Finds a row, and hands a result of the request with this fingerprint to the sink.
  private func find(
    _ key: RowKey, _ sink: agr_store_sink, _ out: UnsafeMutablePointer<agr_store_run_state>,
    print: (UInt64, UInt64)
  ) throws(Trouble) -> Row {
    try table.find(key) { (row, bytes) throws(Trouble) in
      guard row.isResult, !Work.differ(row.print, print) else { return }
      guard let reserve = sink.reserve, let room = reserve(sink.context, bytes.count) else {
        throw Trouble(AGR_ERR_NO_MEMORY, "", "there is no room for the result")
      }
      if let base = bytes.baseAddress { memcpy(room, base, bytes.count) }
    }
  }

  private func replay(_ row: Row, _ out: UnsafeMutablePointer<agr_store_run_state>) -> Int {
    out.pointee.fence = row.fence
    out.pointee.state = Int32(truncatingIfNeeded: row.state)
    out.pointee.remaining_ns = row.end.remaining(table.now, boot: row.boot)
    return AGR_REPLAY
  }

  private func inProgress(_ row: Row, _ out: UnsafeMutablePointer<agr_store_run_state>) -> Int {
    out.pointee.fence = row.fence
    out.pointee.remaining_ns = row.leaseRemaining(table.now)
    return AGR_IN_PROGRESS
  }

  private static func differ(_ a: (UInt64, UInt64), _ b: (UInt64, UInt64)) -> Bool {
    a != (0, 0) && b != (0, 0) && a != b
  }
}
