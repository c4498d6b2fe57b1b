/// One result as a window counts it.
package struct CallResult {
  let failed: Bool
  let slow: Bool

  @inline(__always)
  package init(failed: Bool, slow: Bool) {
    self.failed = failed
    self.slow = slow
  }

  /// It can raise a rate; a quick success cannot.
  @inline(__always)
  var isAlarming: Bool { failed || slow }
}

/// What is in a window.
package struct WindowCounts {
  package var total: UInt64 = 0
  package var failures: UInt64 = 0
  package var slow: UInt64 = 0

  package init() {}
}
