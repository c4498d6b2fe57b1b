import CAutoGLMReliability
import Platform
import ReliabilityCore

/// The names around a store: its own, which the driver's table has, and those of objects in it.
struct StoreName {
  /// Ends with NUL, and stays as long as the driver.
  let text: UnsafePointer<CChar>
  private let count: Int

  private static let most = 31

  init(_ text: UnsafePointer<CChar>?) throws(Failure) {
    guard let text else { throw .argument("name", "must not be NULL") }
    var count = 0
    while count <= StoreName.most && text[count] != 0 {
      guard StoreName.isAllowed(UInt8(bitPattern: text[count])) else {
        throw .argument("name", "must be of the characters A-Z a-z 0-9 . _ -")
      }
      count &+= 1
    }
    guard count >= 1 && count <= StoreName.most else {
      throw .argument("name", "must be 1 ... 31 characters")
    }
    self.text = text
    self.count = count
  }

  static func isAllowed(_ character: UInt8) -> Bool {
    switch character {
    case 0x30...0x39, 0x41...0x5a, 0x61...0x7a, 0x2d, 0x2e, 0x5f: true
    default: false
    }
  }

  /// Ends what a driver wrote of an error, and says what it did not: that it was this store.
  func complete(_ error: inout agr_error) {
    withUnsafeMutableBytes(of: &error.field) { field in
      guard let last = field.indices.last else { return }
      field[last] = 0
      guard field[0] == 0, let base = field.baseAddress else { return }
      memcpy(base, text, min(count, last))
    }
    withUnsafeMutableBytes(of: &error.message) { message in
      guard let last = message.indices.last else { return }
      message[last] = 0
      if message[0] == 0 { copyText("the store failed and did not say why", message) }
    }
  }
}
