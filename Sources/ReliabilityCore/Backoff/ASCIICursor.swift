/// Reads a short text of a caller's from left to right. Every access is checked against its end.
struct ASCIICursor {
  private var bytes: UnsafeRawPointer
  private var count: Int

  init(_ bytes: UnsafeRawPointer, _ count: Int) {
    self.bytes = bytes
    self.count = count
  }

  var isAtEnd: Bool { count <= 0 }

  /// The byte ahead; 0 at the end.
  var peek: UInt8 { count > 0 ? bytes.load(as: UInt8.self) : 0 }

  var isAtDigit: Bool { peek >= UInt8(ascii: "0") && peek <= UInt8(ascii: "9") }

  mutating func skip() {
    guard count > 0 else { return }
    bytes += 1
    count &-= 1
  }

  /// Drops blanks and tabs around the text.
  mutating func trim() {
    while peek == UInt8(ascii: " ") || peek == UInt8(ascii: "\t") { skip() }
    while count > 0 {
      let last = (bytes + (count &- 1)).load(as: UInt8.self)
      guard last == UInt8(ascii: " ") || last == UInt8(ascii: "\t") else { return }
      count &-= 1
    }
  }

  /// Takes an exact text if it is next.
  mutating func take(_ text: StaticString) -> Bool {
    let length = text.utf8CodeUnitCount
    guard count >= length else { return false }
    for index in 0..<length
    where (bytes + index).load(as: UInt8.self) != text.utf8Start[index] {
      return false
    }
    bytes += length
    count &-= length
    return true
  }

  /// Takes letters up to the first that is none.
  mutating func skipLetters() {
    while (peek | 0x20) >= UInt8(ascii: "a") && (peek | 0x20) <= UInt8(ascii: "z") { skip() }
  }

  /// A whole number of `digits` digits exactly.
  mutating func number(digits: Int) -> Int64? {
    var value: Int64 = 0
    for _ in 0..<digits {
      guard isAtDigit else { return nil }
      value = value &* 10 &+ Int64(peek &- UInt8(ascii: "0"))
      skip()
    }
    return value
  }

  /// A number such as "12", "1.5" or ".5" times `unit`, rounded up, at most `Time.max`.
  mutating func decimal(unit: Int64) -> Int64? {
    guard isAtDigit || peek == UInt8(ascii: ".") else { return nil }
    var whole: Int64 = 0
    var any = false
    while isAtDigit {
      // Beyond this the product is the maximum anyway, and the sum cannot overflow.
      whole = whole > Time.max / 16 ? Time.max : whole &* 10 &+ Int64(peek &- UInt8(ascii: "0"))
      any = true
      skip()
    }
    var result =
      whole > Time.max / unit ? Time.max : whole &* unit
    if peek == UInt8(ascii: ".") {
      skip()
      var place = unit
      var rest = false
      while isAtDigit {
        let digit = Int64(peek &- UInt8(ascii: "0"))
        // What is lost below one nanosecond is made up for by rounding up.
        let product = digit &* place
        result = Time.add(result, product / 10)
        if product % 10 != 0 { rest = true }
        place = place / 10
        if place == 0 && digit != 0 { rest = true }
        any = true
        skip()
      }
      if rest { result = Time.add(result, 1) }
    }
    return any ? result : nil
  }
}
