import CAutoGLMReliability
import CAutoGLMReliabilitySQLite
import CSQLite
import Platform

/// A checked configuration. The path is a copy, which the store owns.
struct Configuration {
  static let longestPath = 1023

  let path: UnsafeMutablePointer<CChar>
  let isFull: Bool
  let maxResultBytes: UInt64
  let maxBytes: UInt64
  let maxBatch: Int

  static func defaults() -> agr_sqlite_config {
    var config = agr_sqlite_config()
    config.struct_size = UInt32(MemoryLayout<agr_sqlite_config>.size)
    config.synchronous = Int32(AGR_SQLITE_FULL)
    config.max_result_bytes = 16 << 20
    config.max_batch = 64
    return config
  }

  init(_ pointer: UnsafePointer<agr_sqlite_config>?) throws(Trouble) {
    let config = try Configuration.read(pointer)
    guard config.synchronous == AGR_SQLITE_FULL || config.synchronous == AGR_SQLITE_NORMAL else {
      throw .argument("synchronous", "must be AGR_SQLITE_FULL or AGR_SQLITE_NORMAL")
    }
    guard config.max_result_bytes <= 1 << 29 else {
      throw .argument("max_result_bytes", "must be 0 ... 2^29")
    }
    guard config.max_bytes == 0 || (config.max_bytes >= 65_536 && config.max_bytes <= 1 << 46)
    else { throw .argument("max_bytes", "must be 0, or 64 KiB ... 2^46") }
    guard config.max_batch >= 1 && config.max_batch <= 1024 else {
      throw .argument("max_batch", "must be 1 ... 1024")
    }
    guard config.reserved == 0 else { throw .argument("reserved", "must be 0") }
    isFull = config.synchronous == AGR_SQLITE_FULL
    maxResultBytes = config.max_result_bytes
    maxBytes = config.max_bytes
    maxBatch = Int(config.max_batch)
    path = try Configuration.copy(config.path)
  }

  /// A structure of this or another version, with the defaults of what it does not have.
  private static func read(
    _ pointer: UnsafePointer<agr_sqlite_config>?
  ) throws(Trouble) -> agr_sqlite_config {
    guard let pointer else { throw .argument("config", "must not be NULL") }
    let raw = UnsafeRawPointer(pointer)
    let size = raw.loadUnaligned(as: UInt32.self)
    guard size >= 8 && size <= 4096 && size % 8 == 0 else {
      throw .argument("struct_size", "struct_size must be the sizeof of the structure")
    }
    let known = MemoryLayout<agr_sqlite_config>.size
    var offset = known
    while offset < Int(size) {
      guard raw.load(fromByteOffset: offset, as: UInt8.self) == 0 else {
        throw .argument("struct_size", "fields of a later version must be zero")
      }
      offset &+= 1
    }
    var value = defaults()
    memcpy(&value, raw, min(known, Int(size)))
    return value
  }

  private static func copy(
    _ path: UnsafePointer<CChar>?
  ) throws(Trouble) -> UnsafeMutablePointer<CChar> {
    guard let path else { throw .argument("path", "must not be NULL") }
    var length = 0
    while length <= longestPath && path[length] != 0 { length &+= 1 }
    guard length >= 1 && length <= longestPath else {
      throw .argument("path", "must be 1 ... 1023 bytes")
    }
    // SQLite takes these for something else than a file.
    guard path[0] != 0x3a && !Configuration.isAddress(path) else {
      throw .argument("path", "must be a path of a file, and no file: address")
    }
    guard let memory = platform_allocate(length &+ 1) else { throw .noMemory }
    memcpy(memory, path, length)
    return memory.bindMemory(to: CChar.self, capacity: length &+ 1)
  }

  private static func isAddress(_ path: UnsafePointer<CChar>) -> Bool {
    let scheme: StaticString = "file:"
    return memcmp(path, scheme.utf8Start, min(strlen(path), 5)) == 0 && strlen(path) >= 5
  }
}

func initialize(
  _ config: UnsafeMutablePointer<agr_sqlite_config>?, _ size: UInt32
) {
  guard let config, size >= 8, size <= 4096 else { return }
  let raw = UnsafeMutableRawPointer(config)
  var defaults = Configuration.defaults()
  memset(raw, 0, Int(size))
  memcpy(raw, &defaults, min(Int(size), MemoryLayout<agr_sqlite_config>.size))
  raw.storeBytes(of: size, as: UInt32.self)
}
