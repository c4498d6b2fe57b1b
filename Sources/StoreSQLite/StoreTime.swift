import CSQLite

/// Now, on the two scales that a row keeps its times on.
///
/// The machine's own clock since its boot never jumps, and is the same for all processes; it is what
/// counts. After another boot only the wall clock can tell how old a row is.
struct StoreTime {
  let sinceBoot: Int64
  let wall: Int64
  /// Which boot this is.
  let boot: Int64

  static let max: Int64 = 1 << 62 &- 1

  init(boot: Int64) {
    self.boot = boot
    wall = csqlite_realtime_ns()
    // Where the kernel does not tell one boot from another, the wall clock has to do.
    sinceBoot = boot == 0 ? wall : csqlite_boottime_ns()
  }

  static func later(_ time: Int64, _ duration: Int64) -> Int64 {
    let (sum, overflows) = time.addingReportingOverflow(duration)
    return overflows || sum > max ? max : sum
  }

  func end(in duration: Int64) -> RowEnd {
    RowEnd(
      sinceBoot: StoreTime.later(sinceBoot, duration), wall: StoreTime.later(wall, duration))
  }
}

/// When a row ends.
struct RowEnd {
  var sinceBoot: Int64 = 0
  var wall: Int64 = 0

  /// How long it lasts still, for a row of the given boot; 0 or less: it has ended.
  func remaining(_ now: StoreTime, boot: Int64) -> Int64 {
    boot == now.boot ? sinceBoot &- now.sinceBoot : wall &- now.wall
  }
}
