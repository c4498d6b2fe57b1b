import Testing

@testable import ReliabilityCore

@Suite struct IdempotencyBoundsTests {
  typealias Harness = IdempotencyHarness

  @Test func aFullCacheRefusesNewKeysAndKeepsTheOldOnes() {
    let cache = Harness(Harness.configuration(entries: 2))
    _ = cache.begin("a", 0)
    _ = cache.complete(cache.lease, "A", 0)
    _ = cache.begin("b", 0)
    #expect(cache.begin("c", 1) == .short(.entries))
    #expect(cache.begin("a", 1) == .replay("A", .success))
    // The time of "a" is over, and that makes the place.
    #expect(cache.begin("c", 1000) == .execute(unknown: false, expiresIn: 100))
  }

  @Test func theOldestCompletedIsEvictedAndNeverOneInProgress() {
    let cache = Harness(Harness.configuration(entries: 3, evicts: true))
    _ = cache.begin("running", 0)
    for key in ["old", "new"] {
      _ = cache.begin(key, 0)
      _ = cache.complete(cache.lease, key, 0)
    }
    _ = cache.begin("third", 1)
    let third = cache.lease
    #expect(cache.state("old", 1) == .absent)
    #expect(cache.state("new", 1) == .success)
    #expect(cache.state("running", 1) == .processing)
    _ = cache.begin("fourth", 1)
    #expect(cache.begin("fifth", 1) == .short(.entries))
    #expect(cache.counters.evicted == 2)
    _ = cache.abandon(third, 2)
    #expect(cache.begin("fifth", 2) == .short(.entries))
    #expect(cache.state("third", 2) == .pending)
  }

  @Test func bytesOfKeysAndResultsAreExact() {
    let cache = Harness(Harness.configuration(entries: 4, bytes: 10))
    _ = cache.begin("abc", 0)
    #expect(cache.bytes == 3)
    #expect(cache.complete(cache.lease, "12345678", 0) == .short(.bytes))
    #expect(cache.complete(cache.lease, "12345678901", 0) == .neverFits)
    #expect(cache.state("abc", 0) == .processing)
    #expect(cache.complete(cache.lease, "1234567", 0) == .done)
    #expect(cache.bytes == 10)
    #expect(cache.begin("d", 0) == .short(.bytes))
    #expect(cache.entries == 1)
    _ = cache.begin("abc", 0)
    #expect(cache.state("abc", 1000) == .absent)
    // The pinned result still counts.
    #expect(cache.bytes == 7)
    #expect(cache.begin("abcd", 1000) == .short(.bytes))
    #expect(cache.release(cache.pin) == .done)
    #expect(cache.bytes == 0)
  }

  @Test func aLargeResultTakesThePlaceOfOlderOnes() {
    let cache = Harness(Harness.configuration(entries: 4, bytes: 12, evicts: true))
    for key in ["a", "b"] {
      _ = cache.begin(key, 0)
      _ = cache.complete(cache.lease, "123", 0)
    }
    _ = cache.begin("c", 0)
    #expect(cache.complete(cache.lease, "12345678", 0) == .done)
    #expect(cache.state("a", 0) == .absent && cache.state("b", 0) == .absent)
    #expect(cache.bytes == 9)
  }

  @Test func waitersAndPinsHaveExactBounds() {
    let cache = Harness(Harness.configuration(waiters: 2, pins: 1))
    _ = cache.begin("a", 0)
    _ = cache.join("a", 0)
    let first = cache.ticket
    _ = cache.join("a", 0)
    let second = cache.ticket
    #expect(cache.join("a", 0) == .short(.waiters))
    _ = cache.complete(cache.lease, "A", 0)
    #expect(cache.poll(first, 0) == .replay("A", .success))
    let pin = cache.pin
    #expect(cache.poll(second, 0) == .short(.pins))
    #expect(cache.begin("a", 0) == .short(.pins))
    #expect(cache.isReady(second) == true)
    _ = cache.release(pin)
    #expect(cache.poll(second, 0) == .replay("A", .success))
    #expect(cache.waiters == 0 && cache.pins == 1)
  }

  @Test func aCacheWithoutWaitersLetsNobodyJoin() {
    let cache = Harness(Harness.configuration(waiters: 0))
    #expect(cache.join("a", 0) == .execute(unknown: false, expiresIn: 100))
    #expect(cache.join("a", 0) == .short(.waiters))
    #expect(cache.begin("a", 0) == .inProgress(100))
  }

  @Test func anOperationPurgesAtMostTwoThatExpired() {
    let cache = Harness(Harness.configuration())
    for key in ["a", "b", "c", "d", "e"] {
      _ = cache.begin(key, 0)
      _ = cache.complete(cache.lease, "", 0)
    }
    #expect(cache.state("other", 5000) == .absent)
    #expect(cache.entries == 3)
    #expect(cache.state("other", 5000) == .absent)
    #expect(cache.entries == 1)
  }

  @Test func theEndOfTimeEndsNoLoop() {
    let cache = Harness(Harness.configuration(ttl: Time.max, lease: Time.max))
    _ = cache.begin("a", Time.max - 2)
    for _ in 0..<3 { _ = cache.join("a", Time.max - 2) }
    _ = cache.abandon(cache.lease, Time.max - 2)
    #expect(cache.state("a", Time.max) == .pending)
    #expect(cache.begin("a", Time.max) == .inProgress(0))
  }

  @Test func manyLeasesExpireInTheirOrder() {
    let cache = Harness(Harness.configuration(entries: 500, waiters: 0, ttl: 1))
    var stream = SplitMix64(seed: 3)
    for number in 0..<500 {
      _ = cache.begin("key \(number)", 0)
      _ = cache.renew(cache.lease, Int64(stream.next() % 1000) + 1, 0)
    }
    var last = 500
    for now in stride(from: Int64(0), through: 1010, by: 1) {
      cache.doAllChores(now)
      #expect(cache.entries <= last)
      last = cache.entries
    }
    #expect(cache.entries == 0 && cache.bytes == 0)
    #expect(cache.counters.leasesLost == 500)
  }
}
