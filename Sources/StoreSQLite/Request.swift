import CAutoGLMReliability
import Platform
import Synchronization

/// What a caller asks for. All pointers are the caller's, who waits until it is done.
enum Question {
  case ping
  case begin(
    UnsafePointer<agr_store_run>, UnsafePointer<agr_store_sink>,
    UnsafeMutablePointer<agr_store_run_state>)
  case read(
    UnsafePointer<agr_store_key>, UnsafePointer<agr_store_sink>,
    UnsafeMutablePointer<agr_store_run_state>)
  case renew(UnsafePointer<agr_store_key>, fence: UInt64, lease: Int64, ttl: Int64)
  case complete(
    UnsafePointer<agr_store_key>, fence: UInt64, state: Int32, UnsafeRawBufferPointer, ttl: Int64)
  case giveBack(UnsafePointer<agr_store_key>, fence: UInt64, outcomeUnknown: Bool, ttl: Int64)
  case acquire(
    UnsafePointer<agr_store_lease>, UnsafeMutablePointer<UInt64>, UnsafeMutablePointer<Int64>)
  case extend(UnsafePointer<agr_store_lease>)
  case release(UnsafePointer<agr_store_lease>)

  var onlyReads: Bool {
    switch self {
    case .ping, .read: true
    default: false
    }
  }
}

/// A request on its caller's stack, in the queue of the store.
struct Request {
  /// What the word of a request says.
  enum Turn {
    static let waiting: UInt32 = 0
    /// The caller is to carry out what is queued.
    static let leads: UInt32 = 1
    static let done: UInt32 = 2
  }

  typealias Pointer = UnsafeMutablePointer<Request>

  let question: Question
  /// On the scale of CLOCK_MONOTONIC.
  let deadline: Int64
  /// What the caller sleeps on, as long as it is `waiting`.
  let turn: UnsafeMutablePointer<Atomic<UInt32>>
  var next: Pointer?
  /// The answer, or why there is none.
  var status = AGR_ERR_STORE
  var trouble: Trouble?

  mutating func settle(_ trouble: Trouble) {
    status = trouble.status
    self.trouble = trouble
  }

  mutating func settle(_ status: Int) {
    self.status = status
    trouble = nil
  }
}

/// Requests in a row.
struct RequestList {
  private(set) var first: Request.Pointer?
  private var last: Request.Pointer?
  private(set) var count = 0

  mutating func append(_ request: Request.Pointer) {
    request.pointee.next = nil
    if let last { last.pointee.next = request } else { first = request }
    last = request
    count &+= 1
  }

  mutating func popFirst() -> Request.Pointer? {
    guard let request = first else { return nil }
    first = request.pointee.next
    if first == nil { last = nil }
    request.pointee.next = nil
    count &-= 1
    return request
  }

  /// Puts others in front, in their order.
  mutating func prepend(_ others: RequestList) {
    var all = others
    while let request = popFirst() { all.append(request) }
    self = all
  }

  /// Takes a request out; says `false` when it is not in the row.
  mutating func remove(_ request: Request.Pointer) -> Bool {
    var kept = RequestList()
    var found = false
    while let one = popFirst() {
      if one == request { found = true } else { kept.append(one) }
    }
    self = kept
    return found
  }

  func forEach(_ body: (Request.Pointer) -> Void) {
    var request = first
    while let one = request {
      // What is done may be gone when its caller was told.
      request = one.pointee.next
      body(one)
    }
  }
}
