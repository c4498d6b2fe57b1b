import CRedis
import Platform

/// A connection that is just being made, used by one thread: commands one after the other. Its end is `take` or
/// `close`.
struct Handshake {
  private var link: credis_link
  private let reader: UnsafeMutablePointer<redisReader>
  private let deadline: Int64

  /// Connects to a server; says why not.
  init?(
    _ address: Address, tls: OpaquePointer?, deadline: Int64, _ why: inout Words
  ) {
    guard let reader = credis_reader() else {
      why = Words("an allocation failed")
      return nil
    }
    var failed: Int32 = 0
    link = credis_link(
      fd: credis_connect(address.host.base, address.port?.base, deadline, &failed), ssl: nil)
    self.reader = reader
    self.deadline = deadline
    if link.fd < 0 {
      why = Words("connecting to ")
      why.append(address)
      if failed == 0 { why.append(": no such host") } else { why.append(errno: failed) }
      close()
      return nil
    }
    guard let tls, address.port != nil else { return }
    let result = credis_secure(&link, tls, address.host.base, deadline)
    if result == 0 { return }
    why = Words("TLS with ")
    why.append(address)
    if result > 0 { why.append(errno: result) } else { why.append(": refused") }
    close()
    return nil
  }

  mutating func close() {
    credis_close(&link)
    redisReaderFree(reader)
  }

  /// The link, for others to use.
  func take() -> credis_link {
    redisReaderFree(reader)
    return link
  }

  /// Sends a command and hands its reply over; false when there is none, or it is an error.
  mutating func ask(
    _ command: borrowing Bytes, _ why: inout Words,
    _ body: (UnsafeMutablePointer<redisReply>) -> Bool = { _ in true }
  ) -> Bool {
    guard !command.isVoid, write(command), let reply = read() else {
      why = Words("the connection failed while it was made")
      return false
    }
    defer { freeReplyObject(reply) }
    if reply.pointee.type == REDIS_REPLY_ERROR {
      why = Words("")
      why.append(reply.pointee.str, reply.pointee.len)
      return false
    }
    return body(reply)
  }

  /// Names the user; nothing without a password.
  mutating func authenticate(_ user: Text?, _ password: Text?, _ why: inout Words) -> Bool {
    guard let password else { return true }
    var command = Bytes()
    command.command(user == nil ? 2 : 3)
    command.part("AUTH")
    if let user { command.part(user.base) }
    command.part(password.base)
    return ask(command, &why)
  }

  private mutating func write(_ command: borrowing Bytes) -> Bool {
    var sent = 0
    while let base = command.base, sent < command.count {
      var events: Int16 = 0
      let count = credis_write(&link, base + sent, command.count &- sent, &events)
      if count < 0 { return false }
      sent &+= count
      if count == 0 && credis_wait(link.fd, events, deadline) == 0 { return false }
    }
    return true
  }

  private mutating func read() -> UnsafeMutablePointer<redisReply>? {
    var buffer = InlineArray<512, UInt8>(repeating: 0)
    while true {
      var reply: UnsafeMutablePointer<redisReply>?
      let result = credis_next_reply(reader, &reply)
      if result != 0 { return reply }
      var events: Int16 = 0
      let count = withUnsafeMutableBytes(of: &buffer) { raw in
        let count = credis_read(&link, raw.baseAddress, raw.count, &events)
        if count > 0 && redisReaderFeed(reader, raw.baseAddress, count) != REDIS_OK { return -1 }
        return count
      }
      if count < 0 { return nil }
      if count == 0 && credis_wait(link.fd, events, deadline) == 0 { return nil }
    }
  }
}
