import CAutoGLMReliability
import Glibc
import Testing

/// An idempotency cache through the C entry points, as a C program uses it.
final class CCache: @unchecked Sendable {
  let handle: OpaquePointer

  struct Answer: Equatable {
    var status: Int
    var lease: UInt64 = 0
    var fence: UInt64 = 0
    var expiresIn: Int64 = 0
    var unknown = false
    var text: String?
    var state: Int32 = 0
    var pin: UInt64 = 0
    var ticket: UInt64 = 0
    var field = ""
  }

  static func configuration(
    _ change: (inout agr_idempotency_config) -> Void = { _ in }
  ) -> agr_idempotency_config {
    var config = agr_idempotency_config()
    agr_idempotency_config_init(&config, UInt32(MemoryLayout<agr_idempotency_config>.size))
    config.max_entries = 64
    change(&config)
    return config
  }

  init(_ change: (inout agr_idempotency_config) -> Void = { _ in }) {
    var config = CCache.configuration(change)
    var made: OpaquePointer?
    let status = agr_idempotency_create(&config, &made, nil)
    #expect(Int(status) == AGR_OK)
    handle = made!
  }

  deinit { agr_idempotency_destroy(handle) }

  private func answer(
    _ call: (
      UnsafeMutablePointer<agr_lease>, UnsafeMutablePointer<agr_result>,
      UnsafeMutablePointer<agr_error>
    ) -> agr_status
  ) -> Answer {
    var (lease, result, error) = (agr_lease(), agr_result(), agr_error())
    var answer = Answer(status: Int(call(&lease, &result, &error)))
    answer.lease = lease.id
    answer.fence = lease.fence
    answer.expiresIn = lease.expires_in_ns
    answer.unknown = lease.outcome_unknown == 1
    if let data = result.data {
      #expect(Int(bitPattern: data) & 15 == 0)
      answer.text = String(
        decoding: UnsafeRawBufferPointer(start: data, count: result.length), as: UTF8.self)
    }
    answer.state = result.state
    answer.pin = result.pin
    if answer.status < 0 { answer.field = text(of: error.field) }
    return answer
  }

  /// The lease, with an answer of AGR_OK.
  func begin(_ key: String, fingerprint: String = "", _ now: Int64) -> Answer {
    answer {
      agr_idempotency_begin_at(
        handle, key, key.utf8.count, fingerprint, fingerprint.utf8.count, now, $0, $1, $2)
    }
  }

  func join(_ key: String, fingerprint: String = "", _ now: Int64) -> Answer {
    var ticket: UInt64 = .max
    var answer = answer {
      agr_idempotency_join_at(
        handle, key, key.utf8.count, fingerprint, fingerprint.utf8.count, now, &ticket, $0, $1, $2)
    }
    answer.ticket = ticket
    return answer
  }

  /// On the clock.
  func joinNow(_ key: String) -> Answer { join(key, agr_now_ns()) }

  func poll(_ ticket: UInt64, _ now: Int64) -> Answer {
    answer { agr_idempotency_poll_at(handle, ticket, now, $0, $1, $2) }
  }

  func wait(_ ticket: UInt64, _ timeout: Int64) -> Answer {
    answer { agr_idempotency_wait(handle, ticket, timeout, $0, $1, $2) }
  }

  func complete(_ lease: UInt64, _ text: String, _ now: Int64) -> Int {
    Int(agr_idempotency_complete_at(handle, lease, text, text.utf8.count, now, nil))
  }

  func fail(_ lease: UInt64, _ text: String, _ now: Int64) -> Int {
    Int(agr_idempotency_fail_at(handle, lease, text, text.utf8.count, now, nil))
  }

  func abandon(_ lease: UInt64, _ now: Int64) -> Int {
    Int(agr_idempotency_abandon_at(handle, lease, now, nil))
  }

  func renew(_ lease: UInt64, _ time: Int64, _ now: Int64) -> Int {
    Int(agr_idempotency_renew_at(handle, lease, time, now, nil))
  }

  func leave(_ ticket: UInt64, _ now: Int64) -> Int {
    Int(agr_idempotency_leave_at(handle, ticket, now, nil))
  }

  func release(_ pin: UInt64) -> Int { Int(agr_idempotency_release(handle, pin, nil)) }

  func descriptor(_ ticket: UInt64) -> (status: Int, fd: Int32) {
    var fd: Int32 = 0
    let status = agr_idempotency_ticket_fd(handle, ticket, &fd, nil)
    return (Int(status), fd)
  }

  func state(_ key: String, _ now: Int64) -> (status: Int, state: Int32) {
    var state: Int32 = -1
    let status = agr_idempotency_state_at(handle, key, key.utf8.count, now, &state, nil)
    return (Int(status), state)
  }

  var snapshot: agr_idempotency_snapshot {
    var snapshot = agr_idempotency_snapshot()
    snapshot.struct_size = UInt32(MemoryLayout<agr_idempotency_snapshot>.size)
    _ = agr_idempotency_snapshot_read(handle, &snapshot, nil)
    return snapshot
  }
}

/// The text of a fixed array of `char`.
func text<T>(of array: T) -> String {
  withUnsafeBytes(of: array) { bytes in
    String(decoding: bytes.prefix { $0 != 0 }, as: UTF8.self)
  }
}

/// Whether a descriptor is readable at once.
func isReadable(_ fd: Int32) -> Bool {
  var poller = pollfd(fd: fd, events: Int16(POLLIN), revents: 0)
  return poll(&poller, 1, 0) == 1 && poller.revents & Int16(POLLIN) != 0
}

private final class Job {
  let body: @Sendable () -> Void
  init(_ body: @escaping @Sendable () -> Void) { self.body = body }
}

/// A thread of the system's, which runs its body.
func startThread(_ body: @escaping @Sendable () -> Void) -> pthread_t {
  var thread = pthread_t()
  let job = Unmanaged.passRetained(Job(body)).toOpaque()
  let status = pthread_create(
    &thread, nil,
    { job in
      Unmanaged<Job>.fromOpaque(job!).takeRetainedValue().body()
      return nil
    }, job)
  #expect(status == 0)
  return thread
}

/// Runs a body on `count` threads, and waits for all.
func onThreads(_ count: Int, _ body: @escaping @Sendable (Int) -> Void) {
  let threads = (0..<count).map { number in startThread { body(number) } }
  for thread in threads { pthread_join(thread, nil) }
}

/// The exit status of a child that runs a body, or the signal that ended it. One that hangs,
/// because of a lock that nobody will release, is killed.
func runInChild(_ body: () -> Int32) -> Int32 {
  let child = fork()
  if child == 0 {
    // The threads of the test runner may block the signal.
    var all = sigset_t()
    sigfillset(&all)
    sigprocmask(SIG_UNBLOCK, &all, nil)
    alarm(60)
    _exit(body())
  }
  var status: Int32 = -1
  while waitpid(child, &status, 0) == -1 && errno == EINTR {}
  return status
}
