import Platform
import Synchronization

/// A result in memory of its own, counted by its key, by those it was delivered to, and by pins.
///
/// The header is a word each for the references, the length and the state; the data follows it,
/// aligned to 16 bytes. Its bytes count against the cache's bound until the last reference goes.
package struct ResultBlock: BitwiseCopyable {
  private let base: UnsafeMutableRawPointer

  private static let headerBytes = 32

  /// A copy of `data` with one reference, or `nil` when there is no memory for it. The caller has
  /// reserved its bytes.
  package static func make(
    _ data: UnsafeRawPointer?, _ length: Int, _ state: KeyState
  ) -> ResultBlock? {
    guard let base = platform_allocate_block(headerBytes &+ length) else { return nil }
    base.storeBytes(of: 1, as: UInt64.self)
    base.storeBytes(of: length, toByteOffset: 8, as: Int.self)
    base.storeBytes(of: state.rawValue, toByteOffset: 16, as: UInt8.self)
    if let data, length > 0 { memcpy(base + headerBytes, data, length) }
    return ResultBlock(base: base)
  }

  private init(base: UnsafeMutableRawPointer) { self.base = base }

  /// The same block again, from `address`.
  init?(address: UInt64) {
    guard let base = UnsafeMutableRawPointer(bitPattern: UInt(truncatingIfNeeded: address)) else {
      return nil
    }
    self.base = base
  }

  var address: UInt64 { UInt64(truncatingIfNeeded: UInt(bitPattern: base)) }
  var data: UnsafeRawPointer { UnsafeRawPointer(base) + ResultBlock.headerBytes }
  package var length: Int { base.load(fromByteOffset: 8, as: Int.self) }
  var state: KeyState {
    KeyState(rawValue: base.load(fromByteOffset: 16, as: UInt8.self)) ?? .absent
  }

  private var references: UnsafeMutablePointer<Atomic<UInt64>> {
    base.assumingMemoryBound(to: Atomic<UInt64>.self)
  }

  func retain() { references.pointee.wrappingAdd(1, ordering: .relaxed) }

  /// Drops a reference; the last one frees the block and its bytes.
  package func release(_ shared: borrowing IdempotencyShared) {
    guard references.pointee.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0
    else { return }
    let bytes = length
    platform_free(base)
    shared.releaseBytes(bytes)
  }
}
