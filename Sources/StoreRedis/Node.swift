import CRedis
import Platform
import Synchronization

/// One server, and the channels to it.
struct Node: ~Copyable {
  private let settings: UnsafeMutablePointer<Settings>
  /// Not used where sentinels say which server it is.
  let address: Address
  private let ownsAddress: Bool
  private let channels: UnsafeMutablePointer<Channel>
  private let channelCount: Int
  /// Failures to connect in a row, and the time until which nobody tries again.
  private let failures = Atomic<UInt32>(0)
  private let retryAt = Atomic<Int64>(0)
  /// Why the last one failed, which is said until the next.
  private let reason: UnsafeMutablePointer<Words>
  private let reasonLock = Lock()

  private static let shortestPause: UInt64 = 10_000_000
  private static let longestPause: UInt64 = 2_000_000_000
  /// A caller with less time than this has learnt nothing about the server that would make others pause.
  private static let telling: Int64 = 20_000_000

  private init(
    _ settings: UnsafeMutablePointer<Settings>, _ address: Address, ownsAddress: Bool,
    _ channels: UnsafeMutablePointer<Channel>, _ count: Int,
    _ reason: UnsafeMutablePointer<Words>
  ) {
    self.settings = settings
    self.address = address
    self.ownsAddress = ownsAddress
    self.channels = channels
    channelCount = count
    self.reason = reason
  }

  /// Makes a node at a place; false without memory, and the address is the caller's still.
  static func make(
    at place: UnsafeMutablePointer<Node>, _ settings: UnsafeMutablePointer<Settings>,
    _ address: Address, ownsAddress: Bool
  ) -> Bool {
    let count = settings.pointee.connections
    // The reason lies behind the channels.
    let size = (count &* MemoryLayout<Channel>.stride &+ 15) & ~15
    guard let memory = platform_allocate(size &+ MemoryLayout<Words>.size) else { return false }
    let channels = memory.bindMemory(to: Channel.self, capacity: count)
    let reason = (memory + size).bindMemory(to: Words.self, capacity: 1)
    reason.initialize(to: Words(""))
    for made in 0..<count {
      guard let channel = Channel() else {
        for index in 0..<made { channels[index].destroy() }
        platform_free(memory)
        return false
      }
      (channels + made).initialize(to: channel)
    }
    place.initialize(
      to: Node(settings, address, ownsAddress: ownsAddress, channels, count, reason))
    return true
  }

  deinit {
    for index in 0..<channelCount { channels[index].destroy() }
    platform_free(channels)
    if ownsAddress { address.free() }
  }

  /// Sends a command by the channel with the fewest who wait.
  func exchange(_ command: borrowing Bytes, skips: Int, deadline: Int64) -> Exchange {
    var best = 0
    var least = channels[0].load
    var index = 1
    while index < channelCount && least > 0 {
      let load = channels[index].load
      if load < least { (best, least) = (index, load) }
      index &+= 1
    }
    return channels[best].exchange(command, skips: skips, deadline: deadline) { deadline, why in
      connect(deadline, &why)
    }
  }

  /// Ends all connections: the server is not what it was.
  func reset(_ words: Words) {
    for index in 0..<channelCount { channels[index].reset(words) }
  }

  // MARK: - Connecting

  /// An authenticated connection; after failures only when the pause is over.
  private func connect(_ deadline: Int64, _ why: inout Words) -> credis_link? {
    let now = credis_now_ns()
    guard now >= retryAt.load(ordering: .relaxed) else {
      reasonLock.lock()
      why = reason.pointee
      reasonLock.unlock()
      return nil
    }
    let limited = min(deadline, now &+ settings.pointee.connectTimeout)
    let link =
      settings.pointee.sentinel == nil
      ? open(address, limited, &why) : openMaster(limited, &why)
    if link != nil {
      failures.store(0, ordering: .relaxed)
    } else if limited &- now >= Node.telling {
      let count = min(failures.wrappingAdd(1, ordering: .relaxed).oldValue, 16)
      // Full jitter below an exponential limit, and never none.
      let most = min(Node.longestPause, Node.shortestPause &<< UInt64(count))
      let pause = 1_000_000 &+ platform_entropy() % most
      reasonLock.lock()
      reason.pointee = why
      reasonLock.unlock()
      retryAt.store(credis_now_ns() &+ Int64(pause), ordering: .relaxed)
    }
    return link
  }

  /// Connects to a server and names the user and the database; `accepts` may look at it first.
  private func open(
    _ address: Address, _ deadline: Int64, _ why: inout Words,
    _ accepts: (inout Handshake, inout Words) -> Bool = { _, _ in true }
  ) -> credis_link? {
    guard
      var handshake = Handshake(address, tls: settings.pointee.tls, deadline: deadline, &why)
    else { return nil }
    if handshake.authenticate(settings.pointee.user, settings.pointee.password, &why),
      accepts(&handshake, &why), select(&handshake, &why)
    {
      return handshake.take()
    }
    handshake.close()
    return nil
  }

  private func select(_ handshake: inout Handshake, _ why: inout Words) -> Bool {
    guard settings.pointee.database > 0 else { return true }
    var command = Bytes()
    command.command(2)
    command.part("SELECT")
    command.part(settings.pointee.database)
    return handshake.ask(command, &why)
  }

  // MARK: - Sentinels

  /// Asks one sentinel after the other for the master, and the master whether it is one.
  private func openMaster(_ deadline: Int64, _ why: inout Words) -> credis_link? {
    var index = 0
    while index < settings.pointee.addressCount {
      guard let sentinel = settings.pointee.addresses[index] else { break }
      index &+= 1
      guard let master = findMaster(sentinel, deadline, &why) else { continue }
      defer { master.free() }
      if let link = open(master, deadline, &why, { isMaster(&$0, &$1) }) { return link }
    }
    return nil
  }

  private func findMaster(
    _ sentinel: Address, _ deadline: Int64, _ why: inout Words
  ) -> Address? {
    guard let name = settings.pointee.sentinel,
      var handshake = Handshake(sentinel, tls: settings.pointee.tls, deadline: deadline, &why)
    else { return nil }
    defer { handshake.close() }
    guard
      handshake.authenticate(
        settings.pointee.sentinelUser, settings.pointee.sentinelPassword, &why)
    else { return nil }
    var command = Bytes()
    command.command(3)
    command.part("SENTINEL")
    command.part("get-master-addr-by-name")
    command.part(name.base)
    var found: Address?
    let isAnswered = handshake.ask(command, &why) { reply in
      guard reply.pointee.type == REDIS_REPLY_ARRAY, reply.pointee.elements == 2,
        let elements = reply.pointee.element, let host = elements[0], let port = elements[1],
        host.pointee.type == REDIS_REPLY_STRING, port.pointee.type == REDIS_REPLY_STRING,
        let hostText = Text(host.pointee.str, Int(host.pointee.len))
      else { return false }
      guard let portText = Text(port.pointee.str, Int(port.pointee.len)) else {
        hostText.free()
        return false
      }
      found = Address(host: hostText, port: portText)
      return true
    }
    if !isAnswered || found == nil { why = Words("the sentinels do not know the master") }
    return found
  }

  private func isMaster(_ handshake: inout Handshake, _ why: inout Words) -> Bool {
    var command = Bytes()
    command.command(1)
    command.part("ROLE")
    let master: StaticString = "master"
    let isMaster = handshake.ask(command, &why) { reply in
      guard reply.pointee.type == REDIS_REPLY_ARRAY, reply.pointee.elements > 0,
        let elements = reply.pointee.element, let role = elements[0],
        role.pointee.type == REDIS_REPLY_STRING, role.pointee.len == 6
      else { return false }
      return memcmp(role.pointee.str, master.utf8Start, 6) == 0
    }
    if !isMaster { why = Words("the sentinels' master is not one (any more)") }
    return isMaster
  }
}
