import CAutoGLMReliability
import CRedis
import Platform

/// The driver's state. It lies behind the driver's table of functions, and the names of the scripts behind it.
struct Store {
  let settings: UnsafeMutablePointer<Settings>
  private let known: UnsafeMutablePointer<Servers>
  let names: ScriptNames

  var servers: Servers { _read { yield known.pointee } }

  /// `nil` without memory, and then the settings are the caller's still.
  init?(_ settings: UnsafeMutablePointer<Settings>, names memory: UnsafeMutableRawPointer) {
    guard let names = ScriptNames(memory), let servers = Servers.make(settings) else { return nil }
    self.settings = settings
    self.names = names
    known = servers
  }

  func free() {
    Servers.free(known)
    settings.pointee.free()
    platform_free(settings)
  }
}

extension Store {
  /// Runs a call whose reply is an array that begins with a status.
  func run(
    _ call: borrowing Call, _ timeout: Int64, _ error: UnsafeMutablePointer<agr_error>?,
    _ body: (_ status: Int, Reply) -> Int
  ) -> Int {
    run(call, timeout, error) { reply in
      guard let array = Reply(array: reply), let status = array.integer(0) else {
        return garbled(error)
      }
      return body(Int(status), array)
    }
  }

  /// Runs a call until it is answered or its time is over.
  func run(
    _ call: borrowing Call, _ timeout: Int64, _ error: UnsafeMutablePointer<agr_error>?,
    _ body: (UnsafeMutablePointer<redisReply>) -> Int
  ) -> Int {
    if let fault = call.fault {
      return fail(error, fault.status, fault.message, field: fault.field)
    }
    if call.crossesSlots && servers.isCluster { return failSpread(error) }
    let deadline = credis_now_ns() &+ min(max(timeout, 1), 1 << 60)
    var node = servers.owner(of: call.slot)
    var isAsking = false
    var isWhole = false
    var pause: Int64 = 1_000_000
    var failures = 0
    while true {
      var command = Bytes()
      write(call, isAsking: isAsking, isWhole: isWhole, &command)
      let exchange = servers.node(node).pointee.exchange(
        command, skips: isAsking ? 1 : 0, deadline: deadline)
      isAsking = false
      switch exchange {
      case .noMemory: return failNoMemory(error)
      case .failed(let words, let isSent):
        // Once more: the connection may have been an old one, the server of a cluster another.
        failures &+= 1
        let turned = servers.turn(call.slot, from: node)
        guard failures < (turned ? 4 : 2), call.isRepeatable || !isSent,
          credis_now_ns() < deadline
        else { return fail(error, AGR_ERR_STORE, words) }
        node = servers.owner(of: call.slot)
      case .reply(let reply):
        defer { freeReplyObject(reply) }
        guard reply.pointee.type == REDIS_REPLY_ERROR else { return body(reply) }
        switch Refusal(reply) {
        case .unknownScript where !isWhole: isWhole = true
        case .moved:
          guard
            let target = servers.follow(reply, slot: call.slot, from: node, moves: true),
            bounded(&failures)
          else { return fail(error, AGR_ERR_STORE, words(of: reply)) }
          node = target
        case .ask:
          guard
            let target = servers.follow(reply, slot: call.slot, from: node, moves: false),
            bounded(&failures)
          else { return fail(error, AGR_ERR_STORE, words(of: reply)) }
          node = target
          isAsking = true
        case .replica:
          // The connection leads to what is no master any more.
          servers.node(node).pointee.reset(words(of: reply))
          fallthrough
        case .busy:
          // Passes by: a slot that is moving, a cluster that elects, a server that loads.
          guard credis_now_ns() &+ pause < deadline else {
            return fail(error, AGR_ERR_STORE, words(of: reply))
          }
          platform_sleep_until_ns(credis_now_ns() &+ pause)
          pause = min(pause &* 2, 100_000_000)
        case .crossesSlots: return failSpread(error)
        case .full: return fail(error, AGR_ERR_CAPACITY, words(of: reply))
        default: return fail(error, AGR_ERR_STORE, words(of: reply))
        }
      }
    }
  }

  /// Buckets that a cluster does not have together.
  private func failSpread(_ error: UnsafeMutablePointer<agr_error>?) -> Int {
    fail(
      error, AGR_ERR_ARGUMENT,
      "are in different slots of the cluster: names that share a {tag} are in one, as a{x} and b{x}",
      field: "buckets")
  }

  /// A reply that the script does not give.
  func garbled(_ error: UnsafeMutablePointer<agr_error>?) -> Int {
    fail(error, AGR_ERR_STORE, "the reply is not what the script answers")
  }

  /// A status that must be AGR_OK or one other.
  func answer(_ status: Int, or other: Int, _ error: UnsafeMutablePointer<agr_error>?) -> Int {
    status == AGR_OK || status == other ? status : garbled(error)
  }

  private func bounded(_ count: inout Int) -> Bool {
    count &+= 1
    return count < 16
  }

  private func words(of reply: UnsafeMutablePointer<redisReply>) -> Words {
    var words = Words("")
    words.append(reply.pointee.str, Int(reply.pointee.len))
    return words
  }

  private func write(
    _ call: borrowing Call, isAsking: Bool, isWhole: Bool, _ command: inout Bytes
  ) {
    if isAsking {
      command.command(1)
      command.part("ASKING")
    }
    command.command(call.parts &+ 2)
    if isWhole {
      command.part("EVAL")
      command.part(call.script.text)
    } else {
      command.part("EVALSHA")
      command.part(names.name(call.script), 40)
    }
    command.append(call.tail)
  }

  func ping(_ timeout: Int64, _ error: UnsafeMutablePointer<agr_error>?) -> Int {
    let deadline = credis_now_ns() &+ min(max(timeout, 1), 1 << 60)
    var command = Bytes()
    command.command(1)
    command.part("PING")
    switch servers.node(0).pointee.exchange(command, skips: 0, deadline: deadline) {
    case .noMemory: return failNoMemory(error)
    case .failed(let words, _): return fail(error, AGR_ERR_STORE, words)
    case .reply(let reply):
      defer { freeReplyObject(reply) }
      if reply.pointee.type == REDIS_REPLY_STATUS { return AGR_OK }
      return fail(error, AGR_ERR_STORE, words(of: reply))
    }
  }
}

/// What an error reply says.
enum Refusal {
  case unknownScript, moved, ask, busy, replica, crossesSlots, full, other

  init(_ reply: UnsafeMutablePointer<redisReply>) {
    func begins(_ text: StaticString) -> Bool {
      guard let start = reply.pointee.str, Int(reply.pointee.len) >= text.utf8CodeUnitCount
      else { return false }
      return memcmp(start, text.utf8Start, text.utf8CodeUnitCount) == 0
    }
    self =
      if begins("NOSCRIPT") { .unknownScript } else if begins("MOVED ") {
        .moved
      } else if begins("ASK ") {
        .ask
      } else if begins("TRYAGAIN") || begins("CLUSTERDOWN") || begins("LOADING")
        || begins("BUSY") || begins("MASTERDOWN")
      { .busy } else if begins("READONLY") || begins("UNBLOCKED") {
        .replica
      } else if begins("CROSSSLOT") { .crossesSlots } else if begins("OOM") { .full } else {
        .other
      }
  }
}

/// An array that a script answered.
struct Reply {
  /// AGR_TIME_MAX_NS, the longest duration of all.
  static let longest: Int64 = 1 << 62 &- 1

  private let elements: UnsafeMutablePointer<UnsafeMutablePointer<redisReply>?>
  let count: Int

  init?(array reply: UnsafeMutablePointer<redisReply>) {
    guard reply.pointee.type == REDIS_REPLY_ARRAY, let elements = reply.pointee.element else {
      return nil
    }
    self.elements = elements
    count = Int(reply.pointee.elements)
  }

  /// A number, or a text of digits.
  func integer(_ index: Int) -> Int64? {
    guard index < count, let element = elements[index] else { return nil }
    if element.pointee.type == REDIS_REPLY_INTEGER { return element.pointee.integer }
    guard let bytes = bytes(index), bytes.count >= 1, bytes.count <= 18 else { return nil }
    var value: Int64 = 0
    for byte in bytes {
      guard byte >= 0x30 && byte <= 0x39 else { return nil }
      value = value &* 10 &+ Int64(byte &- 0x30)
    }
    return value
  }

  func bytes(_ index: Int) -> UnsafeRawBufferPointer? {
    guard index < count, let element = elements[index],
      element.pointee.type == REDIS_REPLY_STRING
    else { return nil }
    return UnsafeRawBufferPointer(start: element.pointee.str, count: Int(element.pointee.len))
  }

  /// A duration in microseconds as nanoseconds.
  func duration(_ index: Int) -> Int64 {
    let value = max(0, integer(index) ?? 0)
    return min(value, Reply.longest / 1000) &* 1000
  }
}

/// Numbers that a script packed into a text.
struct Doubles {
  private let base: UnsafeRawPointer

  init?(_ reply: UnsafeMutablePointer<redisReply>, _ count: Int) {
    guard reply.pointee.type == REDIS_REPLY_STRING, let text = reply.pointee.str,
      Int(reply.pointee.len) == count &* 8
    else { return nil }
    base = UnsafeRawPointer(text)
  }

  private func number(_ index: Int) -> Double {
    Double(bitPattern: base.loadUnaligned(fromByteOffset: index &* 8, as: UInt64.self))
  }

  /// Whether the first is one that `take` answers: 0 or 1.
  var isStatus: Bool { number(0) == 0 || number(0) == 1 }

  /// Rounded down; 0 for what is no number of tokens.
  func whole(_ index: Int) -> Int64 {
    let number = number(index).rounded(.down)
    return Int64(exactly: number) ?? 0
  }

  /// Microseconds as nanoseconds, rounded up.
  func duration(_ index: Int) -> Int64 {
    let nanoseconds = (number(index) * 1000).rounded(.up)
    guard nanoseconds > 0 else { return 0 }
    return min(Int64(exactly: nanoseconds) ?? Reply.longest, Reply.longest)
  }
}
