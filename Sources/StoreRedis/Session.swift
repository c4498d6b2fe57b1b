import CRedis
import Platform

/// An open connection. Counted, under the channel's lock: of the channel, and of the threads that send and read on
/// it, so that it is closed by the last of them.
struct Session: ~Copyable {
  let link: UnsafeMutablePointer<credis_link>
  let reader: UnsafeMutablePointer<redisReader>
  let buffer: UnsafeMutableRawPointer
  /// OpenSSL's objects are used by one thread at a time.
  private let tls = Lock()

  /// What is guarded by the channel's lock. It lies behind the session, and the link behind that.
  struct Held {
    var isReading = false
    fileprivate var references = 1
  }

  fileprivate static let heldOffset = 64
  private static let linkOffset = 96
  private static let size = 128
  static let bufferSize = 1 << 14

  private init(
    _ link: UnsafeMutablePointer<credis_link>, _ reader: UnsafeMutablePointer<redisReader>,
    _ buffer: UnsafeMutableRawPointer
  ) {
    self.link = link
    self.reader = reader
    self.buffer = buffer
  }

  deinit {
    credis_close(link)
    redisReaderFree(reader)
    platform_free(buffer)
  }

  /// Takes the link over; `nil` without memory, and then it is closed.
  static func make(_ open: credis_link) -> UnsafeMutablePointer<Session>? {
    let reader = credis_reader()
    let buffer = platform_allocate_block(bufferSize)
    if let reader, let buffer, let memory = platform_allocate_block(size) {
      let link = (memory + linkOffset).bindMemory(to: credis_link.self, capacity: 1)
      link.initialize(to: open)
      (memory + heldOffset).bindMemory(to: Held.self, capacity: 1).initialize(to: Held())
      let session = memory.bindMemory(to: Session.self, capacity: 1)
      session.initialize(to: Session(link, reader, buffer))
      return session
    }
    var open = open
    credis_close(&open)
    if let reader { redisReaderFree(reader) }
    platform_free(buffer)
    return nil
  }

  static func retain(_ session: UnsafeMutablePointer<Session>) {
    session.held.pointee.references &+= 1
  }

  static func release(_ session: UnsafeMutablePointer<Session>) {
    session.held.pointee.references &-= 1
    guard session.held.pointee.references == 0 else { return }
    session.deinitialize(count: 1)
    platform_free(session)
  }

  // MARK: - Without the channel's lock

  /// Writes all of it in time.
  static func write(
    _ session: UnsafeMutablePointer<Session>, _ base: UnsafePointer<UInt8>?, _ length: Int,
    _ deadline: Int64
  ) -> Bool {
    var sent = 0
    while let base, sent < length {
      var events: Int16 = 0
      let secured = session.pointee.link.pointee.ssl != nil
      if secured { session.pointee.tls.lock() }
      let count = credis_write(session.pointee.link, base + sent, length &- sent, &events)
      if secured { session.pointee.tls.unlock() }
      if count < 0 { return false }
      sent &+= count
      if count == 0 && credis_wait(session.pointee.link.pointee.fd, events, deadline) == 0 {
        return false
      }
    }
    return true
  }

  /// What came: a number of bytes in the buffer, 0 when nothing came in time, or below 0.
  static func read(_ session: UnsafeMutablePointer<Session>, _ deadline: Int64) -> Int {
    while true {
      var events: Int16 = 0
      let secured = session.pointee.link.pointee.ssl != nil
      if secured { session.pointee.tls.lock() }
      let count = credis_read(
        session.pointee.link, session.pointee.buffer, bufferSize, &events)
      if secured { session.pointee.tls.unlock() }
      if count != 0 { return count }
      if credis_wait(session.pointee.link.pointee.fd, events, deadline) == 0 { return 0 }
    }
  }
}

extension UnsafeMutablePointer where Pointee == Session {
  var held: UnsafeMutablePointer<Session.Held> {
    (UnsafeMutableRawPointer(self) + Session.heldOffset).assumingMemoryBound(
      to: Session.Held.self)
  }
}
