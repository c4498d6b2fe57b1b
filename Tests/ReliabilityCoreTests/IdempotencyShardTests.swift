import Testing

@testable import ReliabilityCore

@Suite struct IdempotencyShardTests {
  typealias Harness = IdempotencyHarness

  private func make(
    entries: Int = 8, bytes: Int = 1 << 20, waiters: Int = 8, pins: Int = 8, evicts: Bool = false,
    ttl: Int64 = 1000, lease: Int64 = 100
  ) -> Harness {
    Harness(
      Harness.configuration(
        entries: entries, bytes: bytes, waiters: waiters, pins: pins, evicts: evicts, ttl: ttl,
        lease: lease))
  }

  @Test func theFirstExecutesAndAllOthersGetTheResultUntilItsTimeIsOver() {
    let cache = make()
    #expect(cache.begin("a", 0) == .execute(unknown: false, expiresIn: 100))
    #expect(cache.begin("a", 40) == .inProgress(60))
    #expect(cache.state("a", 40) == .processing)
    #expect(cache.complete(cache.lease, "result", 50) == .done)
    #expect(cache.begin("a", 1049) == .replay("result", .success))
    #expect(cache.state("a", 1049) == .success)
    #expect(cache.state("a", 1050) == .absent)
    #expect(cache.begin("a", 1050) == .execute(unknown: false, expiresIn: 100))
  }

  @Test func aSecondCompletionChangesNothingAndIsCounted() {
    let cache = make()
    _ = cache.begin("a", 0)
    #expect(cache.complete(cache.lease, "one", 1) == .done)
    #expect(cache.complete(cache.lease, "two", 2) == .stale)
    #expect(cache.giveBack(cache.lease, 2) == .stale)
    #expect(cache.abandon(cache.lease, 2) == .stale)
    #expect(cache.renew(cache.lease, 100, 2) == .stale)
    #expect(cache.counters.illegal == 3)
    #expect(cache.begin("a", 3) == .replay("one", .success))
  }

  @Test func aLostLeaseTellsTheNextAndRefusesTheLateOwner() {
    let cache = make()
    _ = cache.begin("a", 0)
    let (late, fence) = (cache.lease, cache.fence)
    #expect(cache.begin("a", 99) == .inProgress(1))
    #expect(cache.begin("a", 100) == .execute(unknown: true, expiresIn: 100))
    #expect(cache.fence > fence)
    #expect(cache.complete(late, "late", 101) == .stale)
    #expect(cache.renew(late, 100, 101) == .stale)
    #expect(cache.counters.leasesLost == 1)
    #expect(cache.complete(cache.lease, "second", 102) == .done)
    #expect(cache.begin("a", 103) == .replay("second", .success))
  }

  @Test func aLostLeaseIsRememberedForTheTimeToLive() {
    let cache = make()
    _ = cache.begin("a", 0)
    #expect(cache.state("a", 100) == .pending)
    #expect(cache.state("a", 1099) == .pending)
    #expect(cache.state("a", 1100) == .absent)
    _ = cache.begin("b", 2000)
    #expect(cache.begin("b", 5000) == .execute(unknown: false, expiresIn: 100))
    #expect(cache.entries == 1)
  }

  @Test func aLeaseThatIsRenewedLastsLonger() {
    let cache = make()
    _ = cache.begin("a", 0)
    #expect(cache.renew(cache.lease, 500, 99) == .done)
    #expect(cache.begin("a", 598) == .inProgress(1))
    #expect(cache.renew(cache.lease, 1, 598) == .done)
    #expect(cache.complete(cache.lease, "", 599) == .stale)
  }

  @Test func whoJoinedGetsTheResultEvenWhenTheKeyIsGone() {
    let cache = make(ttl: 10)
    _ = cache.begin("a", 0)
    #expect(cache.join("a", 1) == .inProgress(99))
    let ticket = cache.ticket
    #expect(cache.poll(ticket, 2) == .inProgress(98))
    #expect(cache.isReady(ticket) == false)
    #expect(cache.complete(cache.lease, "result", 3) == .done)
    #expect(cache.takeChanges() == 1)
    #expect(cache.state("a", 50) == .absent)
    #expect(cache.bytes == 6)
    #expect(cache.poll(ticket, 50) == .replay("result", .success))
    #expect(cache.poll(ticket, 50) == .stale)
    #expect(cache.leave(ticket, 50) == .stale)
    #expect(cache.bytes == 6)
    #expect(cache.release(cache.pin) == .done)
    #expect(cache.release(cache.pin) == .stale)
    #expect(cache.bytes == 0)
  }

  /// The ways in which a run ends without a result, and what the promoted one is told.
  @Test(arguments: ["fail", "abandon", "lost"])
  func exactlyOneIsPromotedInTheOrderOfComing(_ end: String) {
    let cache = make()
    _ = cache.begin("a", 0)
    let tickets = (0..<3).map { _ -> UInt64 in
      _ = cache.join("a", 0)
      return cache.ticket
    }
    var now: Int64 = 10
    switch end {
    case "fail": #expect(cache.giveBack(cache.lease, now) == .done)
    case "abandon": #expect(cache.abandon(cache.lease, now) == .done)
    default:
      now = 100
      #expect(cache.state("a", now) == .pending)
    }
    #expect(cache.takeChanges() == 1)
    #expect(tickets.map { cache.isReady($0) } == [true, false, false])
    #expect(cache.state("a", now) == .pending)
    #expect(cache.begin("a", now) == .inProgress(100))
    #expect(cache.poll(tickets[1], now) == .inProgress(100))
    #expect(cache.poll(tickets[0], now) == .execute(unknown: end != "fail", expiresIn: 100))
    #expect(cache.poll(tickets[0], now) == .stale)
    #expect(cache.poll(tickets[1], now) == .inProgress(100))
    #expect(cache.counters.promoted == 1)
    #expect(cache.complete(cache.lease, "second run", now) == .done)
    #expect(cache.poll(tickets[1], now) == .replay("second run", .success))
    #expect(cache.poll(tickets[2], now) == .replay("second run", .success))
    #expect(cache.waiters == 0)
  }

  @Test func whoDoesNotComeForHisPromotionIsPassedOver() {
    let cache = make()
    _ = cache.begin("a", 0)
    _ = cache.join("a", 0)
    let first = cache.ticket
    _ = cache.join("a", 0)
    let second = cache.ticket
    _ = cache.abandon(cache.lease, 10)
    #expect(cache.poll(second, 109) == .inProgress(1))
    #expect(cache.poll(second, 110) == .execute(unknown: true, expiresIn: 100))
    #expect(cache.isReady(first) == false)
    #expect(cache.poll(first, 111) == .inProgress(99))
    // Now he is the only one, and again does not come: the next who asks gets the key.
    _ = cache.abandon(cache.lease, 120)
    #expect(cache.begin("a", 219) == .inProgress(1))
    #expect(cache.begin("a", 220) == .execute(unknown: true, expiresIn: 100))
    #expect(cache.isReady(first) == false)
    #expect(cache.poll(first, 221) == .inProgress(99))
    #expect(cache.complete(cache.lease, "result", 222) == .done)
    #expect(cache.poll(first, 222) == .replay("result", .success))
  }

  @Test func whoIsLateForHisPromotionAndAloneMayStillHaveIt() {
    let cache = make()
    _ = cache.begin("a", 0)
    _ = cache.join("a", 0)
    _ = cache.giveBack(cache.lease, 10)
    #expect(cache.poll(cache.ticket, 100_000) == .execute(unknown: false, expiresIn: 100))
  }

  @Test func thePromotionOfOneWhoLeavesGoesToTheNext() {
    let cache = make()
    _ = cache.begin("a", 0)
    _ = cache.join("a", 0)
    let first = cache.ticket
    _ = cache.join("a", 0)
    let second = cache.ticket
    _ = cache.giveBack(cache.lease, 10)
    #expect(cache.leave(first, 20) == .done)
    #expect(cache.isReady(second) == true)
    #expect(cache.leave(second, 30) == .done)
    #expect(cache.state("a", 30) == .absent)
    #expect(cache.entries == 0 && cache.waiters == 0 && cache.bytes == 0)
  }

  @Test func whenAllLeaveTheUnknownOutcomeIsRemembered() {
    let cache = make()
    _ = cache.begin("a", 0)
    _ = cache.join("a", 0)
    _ = cache.abandon(cache.lease, 10)
    #expect(cache.leave(cache.ticket, 20) == .done)
    #expect(cache.state("a", 1019) == .pending)
    #expect(cache.begin("a", 1019) == .execute(unknown: true, expiresIn: 100))
  }

  @Test func aKeyThatFailedIsForgottenOrItsFailureReplayed() {
    let cache = make()
    _ = cache.begin("a", 0)
    #expect(cache.giveBack(cache.lease, 1) == .done)
    #expect(cache.entries == 0 && cache.bytes == 0)
    _ = cache.begin("a", 2)
    #expect(cache.complete(cache.lease, "why", 3, state: .failed) == .done)
    #expect(cache.state("a", 3) == .failed)
    #expect(cache.begin("a", 4) == .replay("why", .failed))
  }

  @Test func anotherFingerprintIsAMismatchWhereBothAreGiven() {
    let cache = make()
    _ = cache.begin("a", fingerprint: 7, 0)
    #expect(cache.begin("a", fingerprint: 8, 1) == .mismatch)
    #expect(cache.begin("a", fingerprint: 0, 1) == .inProgress(99))
    _ = cache.complete(cache.lease, "", 2)
    #expect(cache.begin("a", fingerprint: 8, 3) == .mismatch)
    #expect(cache.begin("a", fingerprint: 7, 3) == .replay("", .success))
    #expect(cache.counters.mismatched == 2)
  }
}
