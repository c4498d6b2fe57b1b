import Platform

/// Bytes that grow. An allocation that failed is remembered, and makes what is in it void.
struct Bytes: ~Copyable {
  private(set) var base: UnsafeMutablePointer<UInt8>?
  private(set) var count = 0
  private var capacity = 0
  private(set) var isVoid = false

  init() {}

  deinit { platform_free(base) }

  mutating func append(_ bytes: UnsafeRawPointer?, _ length: Int) {
    guard length > 0, let bytes, reserve(length), let base else { return }
    memcpy(base + count, bytes, length)
    count &+= length
  }

  mutating func append(_ text: StaticString) { append(text.utf8Start, text.utf8CodeUnitCount) }

  mutating func append(_ bytes: borrowing Bytes) {
    append(bytes.base, bytes.count)
    if bytes.isVoid { isVoid = true }
  }

  mutating func append(byte: UInt8) {
    var byte = byte
    append(&byte, 1)
  }

  mutating func append(decimal number: Int64) {
    var digits = InlineArray<20, UInt8>(repeating: 0)
    var rest = number.magnitude
    var first = 20
    repeat {
      first &-= 1
      digits[first] = UInt8(truncatingIfNeeded: 0x30 &+ rest % 10)
      rest /= 10
    } while rest > 0 && first > 1
    if number < 0 {
      first &-= 1
      digits[first] = 0x2d
    }
    withUnsafeBytes(of: digits) { raw in
      guard let start = raw.baseAddress else { return }
      append(start + first, 20 &- first)
    }
  }

  mutating func makeVoid() { isVoid = true }

  /// Empties it, and keeps the memory unless it is much.
  mutating func clear() {
    count = 0
    isVoid = false
    guard capacity > 1 << 20 else { return }
    platform_free(base)
    base = nil
    capacity = 0
  }

  /// Exchanges what two of them hold.
  mutating func swap(_ other: inout Bytes) {
    let held = (base, count, capacity, isVoid)
    (base, count, capacity, isVoid) = (other.base, other.count, other.capacity, other.isVoid)
    (other.base, other.count, other.capacity, other.isVoid) = held
  }

  private mutating func reserve(_ more: Int) -> Bool {
    if isVoid { return false }
    let (needed, overflows) = count.addingReportingOverflow(more)
    if !overflows && needed <= capacity { return true }
    let room = overflows ? 0 : max(needed, max(256, capacity &* 2))
    guard room > 0, let memory = realloc(base, room) else {
      isVoid = true
      return false
    }
    base = memory.assumingMemoryBound(to: UInt8.self)
    capacity = room
    return true
  }
}

/// A command in the protocol of the server: an array of bulk strings, whose number is known before.
extension Bytes {
  mutating func command(_ count: Int) {
    append(byte: 0x2a)
    append(decimal: Int64(count))
    append("\r\n")
  }

  mutating func part(_ bytes: UnsafeRawPointer?, _ length: Int) {
    append(byte: 0x24)
    append(decimal: Int64(length))
    append("\r\n")
    append(bytes, length)
    append("\r\n")
  }

  mutating func part(_ text: StaticString) { part(text.utf8Start, text.utf8CodeUnitCount) }

  mutating func part(_ text: UnsafePointer<CChar>) { part(text, strlen(text)) }

  mutating func part(_ number: Int64) {
    var text = Bytes()
    text.append(decimal: number)
    part(text.base, text.count)
    if text.isVoid { isVoid = true }
  }
}
