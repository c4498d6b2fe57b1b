/// What servers say about when to come back.
package enum Hint: Int32 {
  case retryAfter = 1
  case retryAfterMilliseconds
  case duration

  package static let maximumLength = 128

  /// The delay that a text asks for, or `nil` when it is not in the format.
  package func parse(_ text: UnsafeRawPointer, _ length: Int, wallClock: Int64) -> Int64? {
    var text = ASCIICursor(text, length)
    text.trim()
    switch self {
    case .retryAfter:
      if text.isAtDigit || text.peek == UInt8(ascii: ".") {
        return Hint.number(&text, unit: Time.second)
      }
      guard let date = HTTPDate.parse(&text) else { return nil }
      return Swift.max(0, date &- wallClock)
    case .retryAfterMilliseconds: return Hint.number(&text, unit: Time.millisecond)
    case .duration: return Hint.duration(&text)
    }
  }

  /// One number and nothing behind it.
  private static func number(_ text: inout ASCIICursor, unit: Int64) -> Int64? {
    guard let value = text.decimal(unit: unit), text.isAtEnd else { return nil }
    return value
  }

  /// "1h2m3.5s": numbers with units, at least one of them.
  private static func duration(_ text: inout ASCIICursor) -> Int64? {
    guard !text.isAtEnd else { return nil }
    var total: Int64 = 0
    while !text.isAtEnd {
      let start = text
      guard text.decimal(unit: 1) != nil, let unit = unit(&text) else { return nil }
      // Once more from the number's beginning, now that its unit is known.
      var number = start
      guard let value = number.decimal(unit: unit) else { return nil }
      total = Time.add(total, value)
    }
    return total
  }

  private static func unit(_ text: inout ASCIICursor) -> Int64? {
    if text.take("ms") { return Time.millisecond }
    if text.take("us") || text.take("µs") { return 1000 }
    if text.take("ns") { return 1 }
    if text.take("h") { return Time.hour }
    if text.take("m") { return Time.minute }
    if text.take("s") { return Time.second }
    return nil
  }
}
