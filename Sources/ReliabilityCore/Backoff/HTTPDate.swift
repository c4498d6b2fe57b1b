/// The three date formats of RFC 9110, section 5.6.7.
enum HTTPDate {
  /// Nanoseconds since 1970, or `nil` when it is none of them.
  static func parse(_ text: inout ASCIICursor) -> Int64? {
    text.skipLetters()
    if text.take(", ") {
      guard let day = text.number(digits: 2) else { return nil }
      if text.take(" ") { return imfFixdate(&text, day) }
      if text.take("-") { return rfc850(&text, day) }
      return nil
    }
    guard text.take(" ") else { return nil }
    return asctime(&text)
  }

  /// "Sun, 06 Nov 1994 08:49:37 GMT"
  private static func imfFixdate(_ text: inout ASCIICursor, _ day: Int64) -> Int64? {
    guard let month = month(&text), text.take(" "), let year = text.number(digits: 4),
      text.take(" "), let time = timeOfDay(&text), text.take(" GMT"), text.isAtEnd
    else { return nil }
    return combine(year, month, day, time)
  }

  /// "Sunday, 06-Nov-94 08:49:37 GMT"; the year lies in 1970 ... 2069.
  private static func rfc850(_ text: inout ASCIICursor, _ day: Int64) -> Int64? {
    guard let month = month(&text), text.take("-"), let short = text.number(digits: 2),
      text.take(" "), let time = timeOfDay(&text), text.take(" GMT"), text.isAtEnd
    else { return nil }
    return combine(short < 70 ? 2000 &+ short : 1900 &+ short, month, day, time)
  }

  /// "Sun Nov  6 08:49:37 1994"
  private static func asctime(_ text: inout ASCIICursor) -> Int64? {
    guard let month = month(&text), text.take(" "),
      let day = text.take(" ") ? text.number(digits: 1) : text.number(digits: 2),
      text.take(" "), let time = timeOfDay(&text), text.take(" "),
      let year = text.number(digits: 4), text.isAtEnd
    else { return nil }
    return combine(year, month, day, time)
  }

  private static func month(_ text: inout ASCIICursor) -> Int64? {
    if text.take("Jan") { return 1 }
    if text.take("Feb") { return 2 }
    if text.take("Mar") { return 3 }
    if text.take("Apr") { return 4 }
    if text.take("May") { return 5 }
    if text.take("Jun") { return 6 }
    if text.take("Jul") { return 7 }
    if text.take("Aug") { return 8 }
    if text.take("Sep") { return 9 }
    if text.take("Oct") { return 10 }
    if text.take("Nov") { return 11 }
    if text.take("Dec") { return 12 }
    return nil
  }

  /// Seconds since midnight; a leap second counts as the one after it.
  private static func timeOfDay(_ text: inout ASCIICursor) -> Int64? {
    guard let hour = text.number(digits: 2), hour < 24, text.take(":"),
      let minute = text.number(digits: 2), minute < 60, text.take(":"),
      let second = text.number(digits: 2), second <= 60
    else { return nil }
    return hour &* 3600 &+ minute &* 60 &+ second
  }

  private static func combine(
    _ year: Int64, _ month: Int64, _ day: Int64, _ time: Int64
  ) -> Int64? {
    guard day >= 1 && day <= daysIn(month, year) else { return nil }
    let seconds = daysSince1970(year, month, day) &* 86_400 &+ time
    guard seconds > -Time.max / Time.second else { return nil }
    return seconds >= Time.max / Time.second ? Time.max : seconds &* Time.second
  }

  private static func daysIn(_ month: Int64, _ year: Int64) -> Int64 {
    switch month {
    case 2: isLeap(year) ? 29 : 28
    case 4, 6, 9, 11: 30
    default: 31
    }
  }

  private static func isLeap(_ year: Int64) -> Bool {
    year % 4 == 0 && (year % 100 != 0 || year % 400 == 0)
  }

  /// The proleptic Gregorian calendar, with years that begin in March.
  private static func daysSince1970(_ year: Int64, _ month: Int64, _ day: Int64) -> Int64 {
    let y = month <= 2 ? year &- 1 : year
    let era = (y >= 0 ? y : y &- 399) / 400
    let yearOfEra = y &- era &* 400
    let dayOfYear = (153 &* (month > 2 ? month &- 3 : month &+ 9) &+ 2) / 5 &+ day &- 1
    let dayOfEra = yearOfEra &* 365 &+ yearOfEra / 4 &- yearOfEra / 100 &+ dayOfYear
    return era &* 146_097 &+ dayOfEra &- 719_468
  }
}
