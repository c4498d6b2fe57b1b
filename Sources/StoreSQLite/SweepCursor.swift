import Platform

/// How far the search for rows that have ended has come: the rows after `from`, up to and with `to`.
struct SweepCursor: ~Copyable {
  private let fromBytes: KeyBuffer
  private let toBytes: KeyBuffer
  private var fromCount = 0
  private var toCount = 0

  init() throws(Trouble) {
    let fromBytes = try KeyBuffer()
    do throws(Trouble) {
      toBytes = try KeyBuffer()
    } catch {
      fromBytes.free()
      throw error
    }
    self.fromBytes = fromBytes
  }

  deinit {
    fromBytes.free()
    toBytes.free()
  }

  var from: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: fromBytes.base, count: fromCount)
  }
  var to: UnsafeRawBufferPointer {
    UnsafeRawBufferPointer(start: toBytes.base, count: toCount)
  }

  mutating func set(_ key: UnsafeRawBufferPointer) throws(Trouble) {
    let room = try toBytes.room(max(1, key.count))
    if let base = key.baseAddress { memcpy(room, base, key.count) }
    toCount = key.count
  }

  /// Above every key: all of them begin with a letter.
  mutating func setLast() {
    toBytes.base.storeBytes(of: 0xff, as: UInt8.self)
    toCount = 1
  }

  mutating func move(isLast: Bool) {
    guard !isLast, let room = try? fromBytes.room(max(1, toCount)) else {
      fromCount = 0
      return
    }
    memcpy(room, toBytes.base, toCount)
    fromCount = toCount
  }
}
