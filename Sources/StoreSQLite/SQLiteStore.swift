import CAutoGLMReliability
import CSQLite
import Platform
import Synchronization

/// The store behind a driver: what `self` of its functions points to.
struct SQLiteStore: ~Copyable {
  let group: GroupCommit
  /// The process that may use it: a fork that ran no handlers left it behind.
  let process: Atomic<Int32>
  var previous: UnsafeMutablePointer<SQLiteStore>?
  var next: UnsafeMutablePointer<SQLiteStore>?

  init(_ configuration: Configuration) throws(Trouble) {
    var executor = try Executor(configuration)
    let made = csqlite_make_private(configuration.path)
    // What is wrong with the path, SQLite says better.
    let deadline = platform_monotonic_ns() &+ 10_000_000_000
    try executor.open(creates: made == 0, deadline: deadline)
    group = try GroupCommit(executor)
    process = Atomic(csqlite_process())
  }

  /// Asks, and waits for the answer.
  func ask(
    _ question: Question, _ timeout: Int64, _ error: UnsafeMutablePointer<agr_error>?
  ) -> agr_status {
    guard process.load(ordering: .relaxed) == csqlite_process() else {
      return Trouble(
        AGR_ERR_STORE, "", "opened before a fork that ran no handlers: open it anew"
      ).report(error)
    }
    // An all-zero word is a valid Atomic<UInt32>.
    var word: UInt32 = 0
    return withUnsafeMutablePointer(to: &word) { word in
      let turn = UnsafeMutableRawPointer(word).assumingMemoryBound(to: Atomic<UInt32>.self)
      var request = Request(
        question: question, deadline: StoreTime.later(platform_monotonic_ns(), timeout), turn: turn)
      withUnsafeMutablePointer(to: &request) { group.submit($0) }
      if let trouble = request.trouble { return trouble.report(error) }
      return agr_status(truncatingIfNeeded: request.status)
    }
  }
}
