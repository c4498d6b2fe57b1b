/// Writes text into a caller's buffer, and counts what does not fit.
struct TextWriter {
  private let base: UnsafeMutableRawPointer?
  private let capacity: Int
  private(set) var length = 0

  init(_ base: UnsafeMutableRawPointer?, _ capacity: Int) {
    self.base = base
    self.capacity = base == nil ? 0 : capacity
  }

  mutating func write(byte: UInt8) {
    if length < capacity, let base {
      base.storeBytes(of: byte, toByteOffset: length, as: UInt8.self)
    }
    length &+= 1
  }

  mutating func write(_ text: StaticString) {
    for index in 0..<text.utf8CodeUnitCount { write(byte: text.utf8Start[index]) }
  }

  mutating func write(_ number: UInt64) {
    var divisor: UInt64 = 1
    while number / divisor >= 10 { divisor &*= 10 }
    while divisor > 0 {
      write(byte: UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: number / divisor % 10))
      divisor /= 10
    }
  }

  mutating func write(signed number: Int64) {
    if number < 0 { write(byte: UInt8(ascii: "-")) }
    write(number.magnitude)
  }

  /// Nanoseconds, at least 0, as milliseconds with three decimals.
  mutating func write(milliseconds nanoseconds: Int64) {
    let microseconds = Swift.max(0, nanoseconds).magnitude / 1000
    write(microseconds / 1000)
    write(byte: UInt8(ascii: "."))
    var rest = microseconds % 1000
    for _ in 0..<3 {
      write(byte: UInt8(ascii: "0") &+ UInt8(truncatingIfNeeded: rest / 100))
      rest = rest % 100 &* 10
    }
  }

  mutating func write(hexDigit: UInt8) {
    write(byte: hexDigit < 10 ? UInt8(ascii: "0") &+ hexDigit : UInt8(ascii: "a") &+ hexDigit &- 10)
  }
}
