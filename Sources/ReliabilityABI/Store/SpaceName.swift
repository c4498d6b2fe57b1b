import CAutoGLMReliability
import Platform
import ReliabilityCore

/// The name of an object in a store, as a copy in place. Its owner frees it.
struct SpaceName: ~Copyable {
  let base: UnsafeMutableRawPointer
  let count: Int

  private static let most = 63

  init(_ text: UnsafePointer<CChar>?) throws(Failure) {
    guard let text else { throw .argument("name", "must not be NULL") }
    var count = 0
    while count <= SpaceName.most && text[count] != 0 {
      guard StoreName.isAllowed(UInt8(bitPattern: text[count])) else {
        throw .argument("name", "must be of the characters A-Z a-z 0-9 . _ -")
      }
      count &+= 1
    }
    guard count >= 1 && count <= SpaceName.most else {
      throw .argument("name", "must be 1 ... 63 characters")
    }
    guard let base = platform_allocate_block(SpaceName.most &+ 1) else { throw .noMemory }
    memcpy(base, text, count)
    self.base = base
    self.count = count
  }

  deinit { platform_free(base) }
}
