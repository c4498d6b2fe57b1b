import CAutoGLMReliability
import CAutoGLMReliabilityRedis
import CRedis
import Platform

/// A fault in a configuration: its field, and what is wrong.
struct Fault: Error {
  let status: Int
  let field: StaticString
  let message: StaticString

  static func argument(_ field: StaticString, _ message: StaticString) -> Fault {
    Fault(status: AGR_ERR_ARGUMENT, field: field, message: message)
  }

  static let noMemory = Fault(
    status: AGR_ERR_NO_MEMORY, field: "", message: "an allocation failed")
}

/// A checked configuration, with copies of its texts, which `free` frees.
struct Settings {
  static let mostAddresses = 16

  let connections: Int
  let database: Int64
  let connectTimeout: Int64
  let maxResultBytes: UInt64
  /// What `address` names.
  private(set) var addresses = InlineArray<16, Address?>(repeating: nil)
  private(set) var addressCount = 0
  private(set) var sentinel: Text?
  private(set) var user: Text?
  private(set) var password: Text?
  private(set) var sentinelUser: Text?
  private(set) var sentinelPassword: Text?
  private(set) var prefix: Text?
  private(set) var tls: OpaquePointer?

  static func defaults() -> agr_redis_config {
    var config = agr_redis_config()
    config.struct_size = UInt32(MemoryLayout<agr_redis_config>.size)
    config.connections = 2
    config.verify = 1
    config.connect_timeout_ns = 1_000_000_000
    config.max_result_bytes = 16 << 20
    return config
  }

  static func make(_ pointer: UnsafePointer<agr_redis_config>?) throws(Fault) -> Settings {
    let config = try read(pointer)
    try check(config)
    var settings = Settings(config)
    do throws(Fault) {
      try settings.copyTexts(config)
      return settings
    } catch {
      settings.free()
      throw error
    }
  }

  private init(_ config: agr_redis_config) {
    connections = Int(config.connections)
    database = Int64(config.database)
    connectTimeout = config.connect_timeout_ns
    maxResultBytes = config.max_result_bytes
  }

  private static func check(_ config: agr_redis_config) throws(Fault) {
    guard config.connections >= 1 && config.connections <= 64 else {
      throw .argument("connections", "must be 1 ... 64")
    }
    guard config.tls <= 1 else { throw .argument("tls", "must be 0 or 1") }
    guard config.verify <= 1 else { throw .argument("verify", "must be 0 or 1") }
    guard config.database <= 1_000_000 else {
      throw .argument("database", "must be 0 ... 1,000,000")
    }
    guard config.reserved == 0 else { throw .argument("reserved", "must be 0") }
    guard
      config.connect_timeout_ns >= 1_000_000 && config.connect_timeout_ns <= 3_600_000_000_000
    else { throw .argument("connect_timeout_ns", "must be 1 ms ... 1 h") }
    guard config.max_result_bytes < 1 << 29 else {
      throw .argument("max_result_bytes", "must be 0 ... 2^29 - 1")
    }
    guard (config.certificate_file == nil) == (config.key_file == nil) else {
      throw .argument("key_file", "must be given with certificate_file, or neither")
    }
    guard config.user == nil || config.password != nil else {
      throw .argument("password", "must be given with user")
    }
    guard config.sentinel_user == nil || config.sentinel_password != nil else {
      throw .argument("sentinel_password", "must be given with sentinel_user")
    }
  }

  private mutating func copyTexts(_ config: agr_redis_config) throws(Fault) {
    sentinel = try Settings.copy(config.sentinel, "sentinel", 255)
    user = try Settings.copy(config.user, "user", 255)
    password = try Settings.copy(config.password, "password", 1023)
    sentinelUser = try Settings.copy(config.sentinel_user, "sentinel_user", 255)
    sentinelPassword = try Settings.copy(config.sentinel_password, "sentinel_password", 1023)
    prefix = try Settings.readPrefix(config.prefix)
    try readAddresses(config.address)
    if config.tls == 1 { tls = try Settings.readTLS(config) }
  }

  func free() {
    for index in 0..<addressCount { addresses[index]?.free() }
    sentinel?.free()
    user?.free()
    password?.free()
    sentinelUser?.free()
    sentinelPassword?.free()
    prefix?.free()
    if let tls { SSL_CTX_free(tls) }
  }

  /// A structure of this or another version, with the defaults of what it does not have.
  private static func read(
    _ pointer: UnsafePointer<agr_redis_config>?
  ) throws(Fault) -> agr_redis_config {
    guard let pointer else { throw .argument("config", "must not be NULL") }
    let raw = UnsafeRawPointer(pointer)
    let size = raw.loadUnaligned(as: UInt32.self)
    guard size >= 8 && size <= 4096 && size % 8 == 0 else {
      throw .argument("struct_size", "struct_size must be the sizeof of the structure")
    }
    let known = MemoryLayout<agr_redis_config>.size
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
    _ text: UnsafePointer<CChar>?, _ field: StaticString, _ most: Int
  ) throws(Fault) -> Text? {
    guard let text else { return nil }
    let length = strnlen(text, most &+ 1)
    guard length >= 1 && length <= most else {
      throw .argument(field, "is empty or too long")
    }
    guard let copy = Text(text, length) else { throw .noMemory }
    return copy
  }

  private static func readPrefix(_ text: UnsafePointer<CChar>?) throws(Fault) -> Text? {
    let usual: StaticString = "agr"
    guard let text else {
      guard let copy = Text(usual.utf8Start, 3) else { throw .noMemory }
      return copy
    }
    let length = strnlen(text, 64)
    var isGood = length >= 1 && length <= 63
    for index in 0..<length {
      let byte = UInt8(bitPattern: text[index])
      isGood =
        isGood
        && (byte >= 0x30 && byte <= 0x39 || byte >= 0x41 && byte <= 0x5a
          || byte >= 0x61 && byte <= 0x7a || byte == 0x2e || byte == 0x5f || byte == 0x2d)
    }
    guard isGood else { throw .argument("prefix", "must be 1 ... 63 of A-Z a-z 0-9 . _ -") }
    guard let copy = Text(text, length) else { throw .noMemory }
    return copy
  }

  private mutating func readAddresses(_ text: UnsafePointer<CChar>?) throws(Fault) {
    let usual: StaticString = "127.0.0.1"
    let port: StaticString = sentinel == nil ? "6379" : "26379"
    guard let text else {
      addresses[0] = try Address(usual.utf8Start, usual.utf8CodeUnitCount, defaultPort: port)
      addressCount = 1
      return
    }
    let length = strnlen(text, 1024)
    guard length >= 1 && length <= 1023 else {
      throw .argument("address", "must be 1 ... 1023 bytes")
    }
    let bytes = UnsafeRawPointer(text).assumingMemoryBound(to: UInt8.self)
    var start = 0
    for end in 0...length where end == length || bytes[end] == 0x2c {
      guard addressCount < Settings.mostAddresses else {
        throw .argument("address", "must be 16 addresses at the most")
      }
      addresses[addressCount] = try Address(bytes + start, end &- start, defaultPort: port)
      addressCount &+= 1
      start = end &+ 1
    }
  }

  private static func readTLS(_ config: agr_redis_config) throws(Fault) -> OpaquePointer {
    var part: Int32 = 0
    if let context = credis_tls(
      config.ca_file, config.certificate_file, config.key_file, Int32(config.verify), &part)
    {
      return context
    }
    switch part {
    case 2: throw .argument("ca_file", "cannot be read, or holds no certificate")
    case 3: throw .argument("certificate_file", "cannot be read, or holds no certificate")
    case 4: throw .argument("key_file", "cannot be read, or is not the certificate's")
    default: throw .argument("tls", "OpenSSL cannot be used")
    }
  }
}

func initialize(_ config: UnsafeMutablePointer<agr_redis_config>?, _ size: UInt32) {
  guard let config, size >= 8, size <= 4096 else { return }
  let raw = UnsafeMutableRawPointer(config)
  var defaults = Settings.defaults()
  memset(raw, 0, Int(size))
  memcpy(raw, &defaults, min(Int(size), MemoryLayout<agr_redis_config>.size))
  raw.storeBytes(of: size, as: UInt32.self)
}
