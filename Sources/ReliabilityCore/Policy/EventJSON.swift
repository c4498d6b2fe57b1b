/// Renders an event as one line of JSON (RFC 8259).
package enum EventJSON {
  /// Writes as much as fits, and returns the whole length.
  package static func write(
    _ event: CallEvent, to buffer: UnsafeMutableRawPointer?, capacity: Int
  ) -> Int {
    var text = TextWriter(buffer, capacity)
    text.write("{\"event\":\"")
    text.write(name(event.kind))
    text.write("\",\"call\":")
    text.write(event.call)
    if event.trace.byte(0) != 0 {
      text.write(",\"trace_id\":\"")
      writeTrace(event.trace, &text)
      text.write("\"")
    }
    text.write(",\"attempt\":")
    text.write(UInt64(event.attempt))
    text.write(",\"reason\":\"")
    text.write(Reason(rawValue: event.reason)?.name ?? "unknown")
    text.write("\",\"component\":\"")
    text.write(Component(rawValue: event.component)?.name ?? "unknown")
    text.write("\"")
    if event.domain != Domain.none.rawValue {
      text.write(",\"domain\":\"")
      text.write(domainName(event.domain))
      text.write("\",\"code\":")
      text.write(signed: Int64(event.code))
    }
    if event.errorClass != 0 {
      text.write(",\"class\":\"")
      text.write(className(event.errorClass))
      text.write("\"")
    }
    text.write(",\"backoff_ms\":")
    text.write(milliseconds: event.backoff)
    text.write(",\"latency_ms\":")
    text.write(milliseconds: event.latency)
    if event.retryAfter == Time.forever {
      text.write(",\"retry_after_ms\":null")
    } else if event.retryAfter > 0 {
      text.write(",\"retry_after_ms\":")
      text.write(milliseconds: event.retryAfter)
    }
    if event.priority != 0 {
      text.write(",\"priority\":")
      text.write(signed: Int64(event.priority))
    }
    if event.observed { text.write(",\"observed\":true") }
    text.write(",\"time_ns\":")
    text.write(signed: event.time)
    text.write("}")
    return text.length
  }

  private static func name(_ kind: Int32) -> StaticString {
    switch CallEvent.Kind(rawValue: kind) {
    case .attempt: "attempt"
    case .retry: "retry"
    case .refused: "refused"
    case .done: "done"
    case nil: "unknown"
    }
  }

  private static func domainName(_ domain: Int32) -> StaticString {
    switch Domain(rawValue: domain) {
    case .http: "http"
    case .errno: "errno"
    case .user: "user"
    case .some(.none), nil: "none"
    }
  }

  private static func className(_ value: Int32) -> StaticString {
    switch ErrorClass(rawValue: value) {
    case .success: "success"
    case .transient: "transient"
    case .temporary: "temporary"
    case .permanent: "permanent"
    case .cancelled: "cancelled"
    case .unknown: "unknown"
    case nil: "none"
    }
  }

  /// A caller's bytes may be anything: quotes and control characters are escaped, and what is not
  /// ASCII is written as if it were Latin-1, so that the line is JSON whatever they are.
  private static func writeTrace(_ trace: TraceID, _ text: inout TextWriter) {
    for index in 0..<TraceID.maximumLength {
      let byte = trace.byte(index)
      if byte == 0 { return }
      if byte == UInt8(ascii: "\"") || byte == UInt8(ascii: "\\") {
        text.write(byte: UInt8(ascii: "\\"))
        text.write(byte: byte)
      } else if byte < 0x20 || byte >= 0x7f {
        text.write("\\u00")
        text.write(hexDigit: byte &>> 4)
        text.write(hexDigit: byte & 15)
      } else {
        text.write(byte: byte)
      }
    }
  }
}
