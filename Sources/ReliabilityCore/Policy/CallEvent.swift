/// What happened to a call, as the event ring keeps it.
package struct CallEvent: BitwiseCopyable {
  package enum Kind: Int32, BitwiseCopyable {
    case attempt = 1
    case retry, refused, done
  }

  package var kind: Int32 = 0
  package var reason: Int32 = 0
  package var component: Int32 = 0
  package var domain: Int32 = 0
  package var code: Int32 = 0
  package var errorClass: Int32 = 0
  package var attempt: UInt32 = 0
  package var observed = false
  package var priority: Int32 = 0
  package var call: UInt64 = 0
  package var time: Int64 = 0
  package var backoff: Int64 = 0
  package var latency: Int64 = 0
  package var retryAfter: Int64 = 0
  package var trace = TraceID()

  @inline(__always)
  package init() {}

  package static let wordCount = 16

  /// As the ring keeps it.
  @inline(__always)
  package var words: InlineArray<16, UInt64> {
    [
      pair(kind, reason), pair(component, domain), pair(code, errorClass),
      pair(Int32(bitPattern: attempt), priority), call, UInt64(bitPattern: time),
      UInt64(bitPattern: backoff),
      // The top bit is free: a latency is never negative.
      UInt64(bitPattern: latency) &<< 1 | (observed ? 1 : 0), UInt64(bitPattern: retryAfter),
      trace.words[0], trace.words[1], trace.words[2], trace.words[3], trace.words[4],
      trace.words[5], trace.words[6],
    ]
  }

  package mutating func set(_ index: Int, _ word: UInt64) {
    let low = Int32(truncatingIfNeeded: word)
    let high = Int32(truncatingIfNeeded: word &>> 32)
    switch index {
    case 0: (kind, reason) = (low, high)
    case 1: (component, domain) = (low, high)
    case 2: (code, errorClass) = (low, high)
    case 3: (attempt, priority) = (UInt32(bitPattern: low), high)
    case 4: call = word
    case 5: time = Int64(bitPattern: word)
    case 6: backoff = Int64(bitPattern: word)
    case 7: (latency, observed) = (Int64(bitPattern: word &>> 1), word & 1 == 1)
    case 8: retryAfter = Int64(bitPattern: word)
    default: trace.words[index &- 9] = word
    }
  }

  @inline(__always)
  private func pair(_ low: Int32, _ high: Int32) -> UInt64 {
    UInt64(UInt32(bitPattern: low)) | UInt64(UInt32(bitPattern: high)) &<< 32
  }
}

/// The caller's name for a call: up to 55 bytes in events, ending with NUL.
package struct TraceID: BitwiseCopyable {
  package static let maximumLength = 55

  fileprivate(set) package var words = InlineArray<7, UInt64>(repeating: 0)

  @inline(__always)
  package init() {}

  /// Takes over the beginning of a text, or nothing.
  @inline(__always)
  package mutating func set(_ text: UnsafeRawPointer?, _ length: Int) {
    for index in 0..<7 { words[index] = 0 }
    if let text, length > 0 { copy(text, length) }
  }

  private mutating func copy(_ text: UnsafeRawPointer, _ length: Int) {
    for index in 0..<Swift.min(length, TraceID.maximumLength) {
      let byte = UInt64((text + index).load(as: UInt8.self))
      words[index / 8] |= byte &<< UInt64(truncatingIfNeeded: index % 8 &* 8)
    }
  }

  /// The byte at an index below 56; 0 behind the end.
  package func byte(_ index: Int) -> UInt8 {
    UInt8(truncatingIfNeeded: words[index / 8] &>> UInt64(truncatingIfNeeded: index % 8 &* 8))
  }
}
