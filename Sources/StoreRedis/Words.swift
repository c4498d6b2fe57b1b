import CAutoGLMReliability
import CRedis
import Platform

/// A short text in place, for what is said of an error; what is too long is cut.
struct Words {
  private var bytes = InlineArray<120, UInt8>(repeating: 0)
  private var count = 0

  init(_ text: StaticString) { append(text.utf8Start, text.utf8CodeUnitCount) }

  mutating func append(_ text: UnsafeRawPointer?, _ length: Int) {
    guard let text else { return }
    let source = text.assumingMemoryBound(to: UInt8.self)
    for index in 0..<max(0, min(length, 119 &- count)) {
      // Nothing that a server says moves the cursor of a terminal.
      bytes[count] = source[index] < 0x20 ? 0x20 : source[index]
      count &+= 1
    }
  }

  mutating func append(_ text: StaticString) { append(text.utf8Start, text.utf8CodeUnitCount) }

  mutating func append(_ text: UnsafePointer<CChar>?) {
    if let text { append(text, strlen(text)) }
  }

  /// The system's words for an errno.
  mutating func append(errno number: Int32) {
    append(": ")
    var text = InlineArray<64, CChar>(repeating: 0)
    withUnsafeMutableBytes(of: &text) { raw in
      guard let base = raw.baseAddress?.assumingMemoryBound(to: CChar.self) else { return }
      credis_words(number, base, raw.count)
      append(UnsafePointer(base))
    }
  }

  func write(_ into: inout agr_error) {
    withUnsafeMutableBytes(of: &into.message) { target in
      withUnsafeBytes(of: bytes) { source in
        guard let to = target.baseAddress, let from = source.baseAddress else { return }
        let length = min(count, target.count &- 1)
        memcpy(to, from, length)
        to.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
      }
    }
  }
}

/// Fills in an error, and returns its status.
func fail(
  _ error: UnsafeMutablePointer<agr_error>?, _ status: Int, _ words: Words,
  field: StaticString = ""
) -> Int {
  guard let error else { return status }
  words.write(&error.pointee)
  withUnsafeMutableBytes(of: &error.pointee.field) { target in
    let length = min(field.utf8CodeUnitCount, target.count &- 1)
    guard let to = target.baseAddress, length > 0 else { return }
    memcpy(to, field.utf8Start, length)
    to.storeBytes(of: 0, toByteOffset: length, as: UInt8.self)
  }
  return status
}

func fail(
  _ error: UnsafeMutablePointer<agr_error>?, _ status: Int, _ text: StaticString,
  field: StaticString = ""
) -> Int {
  fail(error, status, Words(text), field: field)
}

func failNoMemory(_ error: UnsafeMutablePointer<agr_error>?) -> Int {
  fail(error, AGR_ERR_NO_MEMORY, "an allocation failed")
}
