import Platform

/// Rows of a cache line each, for what threads keep apart so that they do not meet. A thread has one of them, by its
/// identity; several threads may have the same.
enum ThreadRows {
  static let count = 16
  /// Words a row.
  static let stride = 8

  /// Where a thread's row begins. Identities are addresses, whose low bits and high bits are alike.
  @inline(__always)
  static func start(of thread: UInt64) -> Int {
    Int(truncatingIfNeeded: (thread &* 0x9E37_79B9_7F4A_7C15) &>> 60) &* stride
  }
}
