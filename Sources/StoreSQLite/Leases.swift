import CAutoGLMReliability
import Platform

// Leases, one request at a time within a transaction. Who holds one is in the row's bytes, 32 for each.

/// Who holds a lease, as the table has it.
private struct Holder: BitwiseCopyable {
  var owner: (UInt64, UInt64)
  var fence: UInt64
  /// Since the boot of the row; a reboot ends them all.
  var until: Int64
}

/// A row of leases: its holders without those whose time has ended, and room for one more.
private struct HeldRow: ~Copyable {
  var row: Row
  private let base: UnsafeMutablePointer<Holder>
  private(set) var count: Int

  init(_ table: borrowing Table, _ key: RowKey) throws(Trouble) {
    var memory: UnsafeMutableRawPointer?
    var found = 0
    var row = Row()
    let now = table.now
    do throws(Trouble) {
      row = try table.find(key) { (row, bytes) throws(Trouble) in
        let whole = row.state == Row.State.leases && row.boot == now.boot
        let count = whole ? bytes.count / MemoryLayout<Holder>.stride : 0
        memory = platform_allocate((count &+ 1) &* MemoryLayout<Holder>.stride)
        guard let memory else { throw .noMemory }
        guard let from = bytes.baseAddress, count > 0 else { return }
        memcpy(memory, from, count &* MemoryLayout<Holder>.stride)
        found = count
      }
    } catch {
      platform_free(memory)
      throw error
    }
    if memory == nil { memory = platform_allocate(MemoryLayout<Holder>.stride) }
    guard let memory else { throw .noMemory }
    let holders = memory.bindMemory(to: Holder.self, capacity: found &+ 1)
    var count = 0
    for index in 0..<found where holders[index].until > now.sinceBoot {
      holders[count] = holders[index]
      count &+= 1
    }
    base = holders
    self.count = count
    self.row = row
  }

  deinit { platform_free(base) }

  subscript(index: Int) -> UnsafeMutablePointer<Holder> { base + index }

  /// Once at the most.
  mutating func append(_ holder: Holder) {
    base[count] = holder
    count &+= 1
  }

  mutating func remove(_ index: Int) {
    count &-= 1
    base[index] = base[count]
  }

  func index(of owner: (UInt64, UInt64)) -> Int? {
    for index in 0..<count where base[index].owner == owner { return index }
    return nil
  }

  /// When the first of them ends.
  var firstEnd: Int64 {
    var first = StoreTime.max
    for index in 0..<count { first = min(first, base[index].until) }
    return first
  }

  /// The row ends with the last of them.
  mutating func put(_ table: borrowing Table, _ key: RowKey) throws(Trouble) {
    var last = table.now.sinceBoot
    for index in 0..<count { last = max(last, base[index].until) }
    row.state = Row.State.leases
    row.boot = table.now.boot
    row.end = table.now.end(in: last &- table.now.sinceBoot)
    let bytes = UnsafeRawBufferPointer(
      start: base, count: count &* MemoryLayout<Holder>.stride)
    try table.put(key, row, bytes)
  }
}

extension Work {
  private static let leaseGroup: UInt8 = 0x6c

  mutating func acquire(
    _ lease: agr_store_lease, _ outFence: UnsafeMutablePointer<UInt64>,
    _ outRetryAfter: UnsafeMutablePointer<Int64>
  ) throws(Trouble) -> Int {
    guard lease.limit >= 1 && lease.limit <= 1 << 20 else {
      throw .argument("limit", "must be 1 ... 1,048,576")
    }
    let key = try RowKey(Work.leaseGroup, lease.key, keys)
    var held = try HeldRow(table, key)
    let until = table.now.end(in: lease.ttl_ns).sinceBoot
    if let mine = held.index(of: lease.owner) {
      held[mine].pointee.until = until
      outFence.pointee = held[mine].pointee.fence
    } else {
      guard held.count < Int(lease.limit) else {
        outRetryAfter.pointee = held.firstEnd &- table.now.sinceBoot
        return AGR_LIMITED
      }
      added &+= held.row.isStored ? 0 : 1
      held.row.fence = try table.nextFence(held.row)
      held.append(Holder(owner: lease.owner, fence: held.row.fence, until: until))
      outFence.pointee = held.row.fence
    }
    try held.put(table, key)
    return AGR_OK
  }

  func extend(_ lease: agr_store_lease) throws(Trouble) -> Int {
    let key = try RowKey(Work.leaseGroup, lease.key, keys)
    var held = try HeldRow(table, key)
    guard let mine = held.index(of: lease.owner) else { return AGR_STALE }
    held[mine].pointee.until = table.now.end(in: lease.ttl_ns).sinceBoot
    try held.put(table, key)
    return AGR_OK
  }

  func release(_ lease: agr_store_lease) throws(Trouble) -> Int {
    let key = try RowKey(Work.leaseGroup, lease.key, keys)
    var held = try HeldRow(table, key)
    guard let mine = held.index(of: lease.owner) else { return AGR_STALE }
    held.remove(mine)
    try held.put(table, key)
    return AGR_OK
  }
}
