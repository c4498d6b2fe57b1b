import CAutoGLMReliability

/// What is known of a key. A row that has ended is as good as none, but for its fence.
struct Row {
  /// Beside the states of results, which are those of the header.
  enum State {
    static let forgotten: Int64 = 0
    static let running: Int64 = 10
    static let lost: Int64 = 11
    static let leases: Int64 = 12
  }

  var state: Int64 = State.forgotten
  var fence: UInt64 = 0
  /// The fence of a run that was lost; 0: none was.
  var lost: UInt64 = 0
  var boot: Int64 = 0
  /// When the lease of a run ends, since the boot.
  var until: Int64 = 0
  var end = RowEnd()
  var owner: (UInt64, UInt64) = (0, 0)
  var print: (UInt64, UInt64) = (0, 0)
  var resultBytes: UInt64 = 0
  /// Whether there is a row in the table at all.
  var isStored = false

  var isResult: Bool { state == Int64(AGR_KEY_SUCCESS) || state == Int64(AGR_KEY_FAILED) }

  func isRun(_ fence: UInt64) -> Bool { state == State.running && self.fence == fence }

  func leaseRemaining(_ now: StoreTime) -> Int64 {
    boot == now.boot ? until &- now.sinceBoot : 0
  }
}
