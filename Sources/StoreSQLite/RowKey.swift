import CAutoGLMReliability
import CSQLite
import Platform

/// A key as the table has it, in memory which the store lends for one request: the group's letter, the
/// space, NUL, and the bytes of the key.
struct RowKey {
  static let longest = 1 << 20

  let base: UnsafeMutableRawPointer
  let count: Int

  init(
    _ group: UInt8, _ key: agr_store_key, _ buffer: KeyBuffer
  ) throws(Trouble) {
    guard let space = key.space, key.space_length >= 1, key.space_length <= 63 else {
      throw .argument("space", "must be 1 ... 63 bytes")
    }
    guard key.length <= RowKey.longest else {
      throw Trouble(AGR_ERR_NEVER_FITS, "key_length", "must be 0 ... 1,048,576")
    }
    guard key.data != nil || key.length == 0 else {
      throw .argument("key", "must not be NULL with a length")
    }
    count = 2 &+ key.space_length &+ key.length
    base = try buffer.room(count)
    base.storeBytes(of: group, as: UInt8.self)
    memcpy(base + 1, space, key.space_length)
    base.storeBytes(of: 0, toByteOffset: 1 &+ key.space_length, as: UInt8.self)
    if let data = key.data { memcpy(base + (2 &+ key.space_length), data, key.length) }
  }
}

/// Memory for keys, which grows with them. Its owner frees it.
struct KeyBuffer {
  private struct Place {
    var base: UnsafeMutableRawPointer
    var count: Int
  }

  private let place: UnsafeMutablePointer<Place>

  init() throws(Trouble) {
    guard let memory = platform_allocate(MemoryLayout<Place>.size) else { throw .noMemory }
    guard let base = platform_allocate(512) else {
      platform_free(memory)
      throw .noMemory
    }
    place = memory.bindMemory(to: Place.self, capacity: 1)
    place.initialize(to: Place(base: base, count: 512))
  }

  func free() {
    platform_free(place.pointee.base)
    platform_free(place)
  }

  var base: UnsafeMutableRawPointer { place.pointee.base }

  /// At least so many bytes; what was in it is gone when it had less.
  func room(_ count: Int) throws(Trouble) -> UnsafeMutableRawPointer {
    if count > place.pointee.count {
      guard let base = platform_allocate(count) else { throw .noMemory }
      platform_free(place.pointee.base)
      place.pointee = Place(base: base, count: count)
    }
    return place.pointee.base
  }
}
