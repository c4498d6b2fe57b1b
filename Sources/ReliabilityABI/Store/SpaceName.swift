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
    var tag = Tag()
    while count <= SpaceName.most && text[count] != 0 {
      let character = UInt8(bitPattern: text[count])
      guard tag.take(character) || StoreName.isAllowed(character) else {
        throw .argument("name", "must be of A-Z a-z 0-9 . _ - and at most one {tag}")
      }
      count &+= 1
    }
    guard count >= 1 && count <= SpaceName.most else {
      throw .argument("name", "must be 1 ... 63 characters")
    }
    // All of it in braces would be the key of the object that has the name without them.
    guard tag.isWhole(of: count) else {
      throw .argument("name", "{tag} must not be empty, nor the whole name")
    }
    guard let base = platform_allocate_block(SpaceName.most &+ 1) else { throw .noMemory }
    memcpy(base, text, count)
    self.base = base
    self.count = count
  }

  deinit { platform_free(base) }

  /// The part of a name that stands in braces, as it is read.
  private struct Tag {
    private enum State { case before, inside, behind }
    private var state = State.before
    /// Characters between the braces.
    private var length = 0

    /// Whether a character is a brace in its place.
    mutating func take(_ character: UInt8) -> Bool {
      switch (state, character) {
      case (.before, 0x7b): state = .inside
      case (.inside, 0x7d): state = .behind
      case (.inside, _):
        length &+= 1
        return false
      default: return false
      }
      return true
    }

    func isWhole(of count: Int) -> Bool {
      switch state {
      case .before: true
      case .inside: false
      case .behind: length >= 1 && length &+ 2 < count
      }
    }
  }
}
