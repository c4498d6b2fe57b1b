/// What a key is at. Every change goes through `canMove(to:)`, so that no order of calls can, say,
/// complete a key twice or drop one that somebody is executing.
package enum KeyState: UInt8, BitwiseCopyable {
  /// No such key.
  case absent = 0
  /// Known, and nobody is executing it.
  case pending = 1
  /// A lease is out.
  case processing = 2
  case success = 3
  case failed = 4

  package var isCompleted: Bool { self == .success || self == .failed }

  /// Whether a key may go from here to `next`.
  package func canMove(to next: KeyState) -> Bool {
    switch (self, next) {
    case (.absent, .pending): true
    case (.pending, .processing), (.pending, .absent): true
    // Back to pending: the lease was lost, or its run was abandoned.
    case (.processing, .success), (.processing, .failed), (.processing, .pending): true
    // A failure that is forgotten is tried again, or its key goes.
    case (.failed, .pending), (.failed, .absent): true
    case (.success, .absent): true
    default: false
    }
  }
}
