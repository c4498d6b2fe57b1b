import CRedis
import Platform
import Synchronization

/// A command that was handed to a channel, and its reply. On the heap, and counted: of whoever waits, who may leave
/// before the reply is there, and of the channel.
struct Request: ~Copyable {
  /// What whoever waits finds in `state`.
  static let waiting: UInt32 = 0
  /// The reply is there.
  static let answered: UInt32 = 1
  /// The channel failed; `isSent` says whether the command may have been carried out.
  static let failed: UInt32 = 2
  /// Read on for all: the one who did has its reply.
  static let reads: UInt32 = 3

  let state = Atomic<UInt32>(Request.waiting)
  private let references = Atomic<UInt32>(2)

  /// What is guarded by the channel's lock until the state says that it is over. It lies behind the request.
  struct Held {
    var next: UnsafeMutablePointer<Request>?
    var reply: UnsafeMutablePointer<redisReply>?
    /// Replies that come before the one that counts.
    var skips: Int
    var isSent = false
    var isWaitedFor = true
  }

  fileprivate static let heldOffset = 16

  private init() {}

  static func make(skips: Int) -> UnsafeMutablePointer<Request>? {
    guard let memory = platform_allocate_block(heldOffset &+ MemoryLayout<Held>.size) else {
      return nil
    }
    let request = memory.bindMemory(to: Request.self, capacity: 1)
    request.initialize(to: Request())
    (memory + heldOffset).bindMemory(to: Held.self, capacity: 1).initialize(to: Held(skips: skips))
    return request
  }

  static func release(_ request: UnsafeMutablePointer<Request>) {
    guard
      request.pointee.references.wrappingSubtract(1, ordering: .acquiringAndReleasing).newValue == 0
    else { return }
    if let reply = request.held.pointee.reply { freeReplyObject(reply) }
    request.deinitialize(count: 1)
    platform_free(request)
  }

  /// Wakes all of a list that were answered, and lets go of them.
  static func wake(_ list: UnsafeMutablePointer<Request>?) {
    var request = list
    while let one = request {
      request = one.held.pointee.next
      // Of two references the other is of whoever waits, if anybody still does.
      if one.pointee.references.load(ordering: .relaxed) > 1 {
        withUnsafePointer(to: one.pointee.state) { platform_futex_wake($0, 1) }
      }
      release(one)
    }
  }

  /// Says how it stands, and wakes whoever waits.
  static func tell(_ request: UnsafeMutablePointer<Request>, _ state: UInt32) {
    request.pointee.state.store(state, ordering: .releasing)
    guard request.held.pointee.isWaitedFor else { return }
    withUnsafePointer(to: request.pointee.state) { platform_futex_wake($0, 1) }
  }
}

extension UnsafeMutablePointer where Pointee == Request {
  var held: UnsafeMutablePointer<Request.Held> {
    (UnsafeMutableRawPointer(self) + Request.heldOffset).assumingMemoryBound(
      to: Request.Held.self)
  }
}
