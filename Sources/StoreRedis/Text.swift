import Platform

/// A text of the configuration, copied, with a NUL at its end.
struct Text {
  let base: UnsafeMutablePointer<CChar>
  let count: Int

  /// `nil` without memory.
  init?(_ bytes: UnsafeRawPointer, _ count: Int) {
    guard let memory = platform_allocate_block(count &+ 1) else { return nil }
    memcpy(memory, bytes, count)
    memory.storeBytes(of: 0, toByteOffset: count, as: UInt8.self)
    base = memory.bindMemory(to: CChar.self, capacity: count &+ 1)
    self.count = count
  }

  func free() { platform_free(base) }

  subscript(index: Int) -> UInt8 { UInt8(bitPattern: base[index]) }

  func equals(_ other: Text) -> Bool {
    count == other.count && memcmp(base, other.base, count) == 0
  }
}

/// Where a server is: a host and a port, or the path of a socket.
struct Address {
  let host: Text
  let port: Text?

  func free() {
    host.free()
    port?.free()
  }

  func equals(_ other: Address) -> Bool {
    guard host.equals(other.host) else { return false }
    guard let port, let theirs = other.port else { return port == nil && other.port == nil }
    return port.equals(theirs)
  }

  /// Reads `host`, `host:port`, `[v6]:port` or `unix:/path`.
  init(
    _ bytes: UnsafePointer<UInt8>, _ count: Int, defaultPort: StaticString
  ) throws(Fault) {
    let unreadable = Fault.argument(
      "address", "must be host, host:port, [v6]:port or unix:/path")
    let scheme: StaticString = "unix:"
    if count > 5, memcmp(bytes, scheme.utf8Start, 5) == 0 {
      // Longer paths fit into no address of a socket.
      guard count < 5 + 108 else { throw unreadable }
      guard let path = Text(bytes + 5, count &- 5) else { throw .noMemory }
      host = path
      port = nil
      return
    }
    var hostStart = 0
    var hostEnd = count
    var portStart = -1
    if count > 2 && bytes[0] == 0x5b {
      hostStart = 1
      guard let close = Address.find(0x5d, bytes, count) else { throw unreadable }
      hostEnd = close
      if close &+ 1 < count {
        guard bytes[close &+ 1] == 0x3a else { throw unreadable }
        portStart = close &+ 2
      }
    } else if let colon = Address.find(0x3a, bytes, count) {
      hostEnd = colon
      portStart = colon &+ 1
    }
    guard hostEnd > hostStart, hostEnd &- hostStart <= 255 else { throw unreadable }
    if portStart >= 0 {
      var value = 0
      guard portStart < count, count &- portStart <= 5 else { throw unreadable }
      for index in portStart..<count {
        guard bytes[index] >= 0x30 && bytes[index] <= 0x39 else { throw unreadable }
        value = value &* 10 &+ Int(bytes[index] &- 0x30)
      }
      guard value >= 1 && value <= 65_535 else { throw unreadable }
    }
    guard let host = Text(bytes + hostStart, hostEnd &- hostStart) else { throw .noMemory }
    let made =
      portStart >= 0
      ? Text(bytes + portStart, count &- portStart)
      : Text(defaultPort.utf8Start, defaultPort.utf8CodeUnitCount)
    guard let made else {
      host.free()
      throw .noMemory
    }
    self.host = host
    port = made
  }

  init(host: Text, port: Text) {
    self.host = host
    self.port = port
  }

  private static func find(_ byte: UInt8, _ bytes: UnsafePointer<UInt8>, _ count: Int) -> Int? {
    for index in 0..<count where bytes[index] == byte { return index }
    return nil
  }
}

extension Words {
  mutating func append(_ address: Address) {
    append(address.host.base)
    guard let port = address.port else { return }
    append(":")
    append(port.base)
  }
}
