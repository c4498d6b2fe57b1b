import CAutoGLMReliability
import CRedis
import Platform
import Synchronization

/// The servers that the store knows, and which of them has which slot of a cluster.
///
/// A single server, or the master that sentinels watch, is node 0. Of a cluster the configured servers are the first
/// nodes; further ones are learnt when a server says that a slot has moved.
struct Servers: ~Copyable {
  private let settings: UnsafeMutablePointer<Settings>
  private let nodes: UnsafeMutablePointer<Node>
  private let count = Atomic<Int>(0)
  private let learning = Lock()
  /// By slot, the number of the node.
  private let owners: UnsafeMutablePointer<Atomic<UInt8>>

  private static let mostNodes = 128
  static let slots = 16_384

  private init(
    _ settings: UnsafeMutablePointer<Settings>, _ nodes: UnsafeMutablePointer<Node>,
    _ owners: UnsafeMutablePointer<Atomic<UInt8>>
  ) {
    self.settings = settings
    self.nodes = nodes
    self.owners = owners
  }

  /// `nil` without memory. The settings must outlive it.
  static func make(_ settings: UnsafeMutablePointer<Settings>) -> UnsafeMutablePointer<Servers>? {
    let places = platform_allocate(mostNodes &* MemoryLayout<Node>.stride)
    let table = platform_allocate(slots)
    guard let places, let table, let memory = platform_allocate(MemoryLayout<Servers>.size) else {
      platform_free(places)
      platform_free(table)
      return nil
    }
    let servers = memory.bindMemory(to: Servers.self, capacity: 1)
    let nodes = places.bindMemory(to: Node.self, capacity: mostNodes)
    servers.initialize(
      to: Servers(settings, nodes, table.bindMemory(to: Atomic<UInt8>.self, capacity: slots)))
    let known = settings.pointee.sentinel == nil ? settings.pointee.addressCount : 1
    for index in 0..<known {
      guard let address = settings.pointee.addresses[index],
        Node.make(at: nodes + index, settings, address, ownsAddress: false)
      else {
        free(servers)
        return nil
      }
      servers.pointee.count.store(index &+ 1, ordering: .relaxed)
    }
    return servers
  }

  static func free(_ servers: UnsafeMutablePointer<Servers>) {
    servers.deinitialize(count: 1)
    platform_free(servers)
  }

  deinit {
    nodes.deinitialize(count: count.load(ordering: .relaxed))
    platform_free(nodes)
    platform_free(owners)
  }

  /// The number of the node that a slot's commands go to.
  func owner(of slot: Int) -> Int {
    let index = Int(owners[slot].load(ordering: .relaxed))
    return index < count.load(ordering: .acquiring) ? index : 0
  }

  /// Whether it is known to be a cluster: several servers were named, or one has named another.
  var isCluster: Bool { count.load(ordering: .relaxed) > 1 }

  func node(_ index: Int) -> UnsafeMutablePointer<Node> { nodes + index }

  /// A node cannot be reached: the next one may know who has the slot now. False when there is no other.
  func turn(_ slot: Int, from index: Int) -> Bool {
    let known = count.load(ordering: .acquiring)
    guard known > 1 else { return false }
    owners[slot].store(UInt8(truncatingIfNeeded: (index &+ 1) % known), ordering: .relaxed)
    return true
  }

  /// Where a reply `MOVED slot host:port` or `ASK slot host:port` leads; `nil` when it makes no sense.
  func follow(
    _ reply: UnsafeMutablePointer<redisReply>, slot: Int, from index: Int, moves: Bool
  ) -> Int? {
    guard let text = reply.pointee.str else { return nil }
    let length = Int(reply.pointee.len)
    let bytes = UnsafeRawPointer(text).assumingMemoryBound(to: UInt8.self)
    var start = length
    while start > 0 && bytes[start &- 1] != 0x20 { start &-= 1 }
    // The last colon: an address of IPv6 stands without brackets.
    var colon = length
    while colon > start && bytes[colon &- 1] != 0x3a { colon &-= 1 }
    guard colon > start, colon < length, length &- colon <= 5 else { return nil }
    // An empty host is the server that answered.
    let named: Text?
    if colon &- 1 == start {
      named = Text(nodes[index].address.host.base, nodes[index].address.host.count)
    } else {
      named = Text(bytes + start, colon &- 1 &- start)
    }
    guard let host = named else { return nil }
    guard let port = Text(bytes + colon, length &- colon) else {
      host.free()
      return nil
    }
    guard let target = learn(Address(host: host, port: port)) else { return nil }
    if moves { owners[slot].store(UInt8(truncatingIfNeeded: target), ordering: .relaxed) }
    return target
  }

  /// The number of a server, which is a new one if need be. Takes the address over.
  private func learn(_ address: Address) -> Int? {
    learning.lock()
    defer { learning.unlock() }
    let known = count.load(ordering: .relaxed)
    for index in 0..<known where nodes[index].address.equals(address) {
      address.free()
      return index
    }
    guard known < Servers.mostNodes,
      Node.make(at: nodes + known, settings, address, ownsAddress: true)
    else {
      address.free()
      return nil
    }
    count.store(known &+ 1, ordering: .releasing)
    return known
  }

  /// The slot of a key with this tag: CRC-16/XMODEM, as the specification of Redis Cluster says.
  static func slot(_ bytes: UnsafePointer<UInt8>, _ count: Int) -> Int {
    var crc: UInt16 = 0
    for index in 0..<count {
      crc ^= UInt16(bytes[index]) &<< 8
      for _ in 0..<8 { crc = crc & 0x8000 != 0 ? crc &<< 1 ^ 0x1021 : crc &<< 1 }
    }
    return Int(crc) % slots
  }
}
