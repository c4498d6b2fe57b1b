import CSQLite

/// A short text with a number at its end, in place.
struct DecimalText {
  private var bytes = InlineArray<64, UInt8>(repeating: 0)
  private var count = 0

  init(_ text: StaticString) {
    while count < min(text.utf8CodeUnitCount, 32) {
      bytes[count] = text.utf8Start[count]
      count &+= 1
    }
  }

  mutating func append(_ number: Int64) {
    var digits = 1
    var scale: Int64 = 1
    while digits < 19 && number / scale >= 10 {
      scale &*= 10
      digits &+= 1
    }
    for _ in 0..<digits {
      bytes[count] = UInt8(truncatingIfNeeded: 0x30 &+ (number / scale) % 10)
      count &+= 1
      scale /= 10
      if scale == 0 { break }
    }
  }

  func withPointer(_ body: (UnsafePointer<CChar>) -> Int32) -> Int32 {
    withUnsafeBytes(of: bytes) { raw in
      guard let base = raw.baseAddress else { return SQLITE_NOMEM }
      return body(base.assumingMemoryBound(to: CChar.self))
    }
  }
}
