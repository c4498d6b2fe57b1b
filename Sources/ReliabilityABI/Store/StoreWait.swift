import ReliabilityCore

/// How long a store is waited for: the time that the object says, or until the caller's deadline if that is sooner.
struct StoreWait: BitwiseCopyable {
  /// On the system's clock.
  let deadline: Int64
  /// It is the caller's deadline.
  let isCut: Bool
  /// The caller has so little time that no answer is no sign of a store which fails.
  let isHurried: Bool

  /// What a store that is well needs at the most, but for the worst of days.
  static let telling = 20 * Time.millisecond

  @inline(never)
  init(_ timeout: Int64, until limit: Int64 = Time.forever) {
    let start = systemNow()
    let own = Time.add(start, timeout)
    deadline = Swift.min(own, limit)
    isCut = limit < own
    isHurried = limit < own && limit &- start < StoreWait.telling
  }

  /// Never 0: a driver that is asked too late says so itself.
  var left: Int64 { Swift.max(1, Time.subtract(deadline, systemNow())) }

  var isOver: Bool { systemNow() >= deadline }
}
