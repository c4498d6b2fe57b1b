import CAutoGLMReliability
import Glibc
import Testing

@Suite struct IdempotencyABITests {
  @Test func aKeyIsExecutedOnceAndItsResultReplayed() {
    let cache = CCache()
    let first = cache.begin("key", 0)
    #expect(first.status == AGR_OK && first.lease != 0 && first.fence != 0 && !first.unknown)
    #expect(first.expiresIn == 60_000_000_000)
    let second = cache.begin("key", 10)
    #expect(second == .init(status: AGR_IN_PROGRESS, expiresIn: 59_999_999_990))
    #expect(cache.state("key", 10) == (AGR_OK, Int32(AGR_KEY_PROCESSING)))
    #expect(cache.complete(first.lease, "result", 20) == AGR_OK)
    let third = cache.begin("key", 30)
    #expect(third.status == AGR_REPLAY && third.text == "result" && third.lease == 0)
    #expect(third.state == AGR_KEY_SUCCESS)
    #expect(cache.release(third.pin) == AGR_OK)
    #expect(cache.release(third.pin) == AGR_STALE)
    #expect(cache.complete(first.lease, "again", 40) == AGR_STALE)
    let counts = cache.snapshot
    #expect(counts.executed == 1 && counts.replayed == 1 && counts.illegal == 1)
    #expect(counts.entries == 1 && counts.bytes == 9 && counts.pins == 0 && counts.waiters == 0)
  }

  @Test func everyAnswerAndErrorHasItsStatus() {
    let cache = CCache {
      $0.max_entries = 2
      $0.max_bytes = 20
      $0.max_waiters = 1
      $0.max_pins = 1
      $0.lease_ns = 100
    }
    let lease = cache.begin("a", fingerprint: "one", 0)
    #expect(cache.begin("a", fingerprint: "two", 0).status == AGR_MISMATCH)
    #expect(cache.state("b", 0) == (AGR_NOT_FOUND, 0))
    let joined = cache.join("a", 0)
    #expect(joined.status == AGR_IN_PROGRESS && joined.ticket != 0)
    let tooMany = cache.join("a", 0)
    #expect(tooMany.status == AGR_ERR_CAPACITY && tooMany.field == "max_waiters")
    #expect(tooMany.ticket == 0)
    #expect(cache.poll(joined.ticket, 0).status == AGR_IN_PROGRESS)
    #expect(cache.complete(lease.lease, "more than twenty bytes", 0) == AGR_ERR_NEVER_FITS)
    #expect(cache.complete(lease.lease, "exactly twenty bytes", 0) == AGR_ERR_CAPACITY)
    #expect(cache.renew(lease.lease, 0, 50) == AGR_OK)
    #expect(cache.renew(lease.lease, -1, 50) == AGR_ERR_ARGUMENT)
    #expect(cache.renew(lease.lease, .max, 50) == AGR_ERR_ARGUMENT)
    #expect(cache.complete(lease.lease, "result", 149) == AGR_OK)
    let replay = cache.begin("a", 149)
    #expect(replay.status == AGR_REPLAY)
    let pins = cache.poll(joined.ticket, 149)
    #expect(pins.status == AGR_ERR_CAPACITY && pins.field == "max_pins")
    #expect(cache.release(replay.pin) == AGR_OK)
    #expect(cache.poll(joined.ticket, 149).text == "result")
    #expect(cache.poll(joined.ticket, 149).status == AGR_STALE)
    #expect(cache.leave(joined.ticket, 149) == AGR_STALE)
    #expect(cache.wait(joined.ticket, 0).status == AGR_STALE)
    #expect(cache.descriptor(joined.ticket) == (AGR_STALE, -1))
    #expect(cache.begin("b", 149).status == AGR_OK)
    let full = cache.begin("c", 149)
    #expect(full.status == AGR_ERR_CAPACITY && full.field == "max_entries")
    #expect(cache.renew(lease.lease, 0, 149) == AGR_STALE)
    #expect(cache.abandon(lease.lease, 149) == AGR_STALE)
    #expect(cache.fail(lease.lease, "", 149) == AGR_STALE)
    #expect(cache.snapshot.refused == 4)
  }

  @Test func failuresAreForgottenOrKept() {
    let forgetting = CCache()
    let first = forgetting.begin("key", 0)
    #expect(forgetting.fail(first.lease, "why", 1) == AGR_OK)
    #expect(forgetting.state("key", 1) == (AGR_NOT_FOUND, 0))
    #expect(forgetting.snapshot.bytes == 0)

    let keeping = CCache { $0.on_failure = Int32(AGR_ON_FAILURE_KEEP) }
    let second = keeping.begin("key", 0)
    #expect(keeping.fail(second.lease, "why", 1) == AGR_OK)
    let replay = keeping.begin("key", 2)
    #expect(replay.status == AGR_REPLAY && replay.text == "why" && replay.state == AGR_KEY_FAILED)
  }

  @Test func anAbandonedRunIsToldToTheNext() {
    let cache = CCache()
    let first = cache.begin("key", 0)
    #expect(cache.abandon(first.lease, 1) == AGR_OK)
    #expect(cache.state("key", 1) == (AGR_OK, Int32(AGR_KEY_PENDING)))
    let second = cache.begin("key", 2)
    #expect(second.status == AGR_OK && second.unknown && second.fence > first.fence)
  }

  @Test func aPinSurvivesEvictionAndItsBytesCount() {
    let cache = CCache {
      $0.max_entries = 1
      $0.when_full = Int32(AGR_WHEN_FULL_EVICT)
    }
    let first = cache.begin("first", 0)
    #expect(cache.complete(first.lease, "a result that stays", 0) == AGR_OK)
    var (lease, result) = (agr_lease(), agr_result())
    let status = agr_idempotency_begin_at(
      cache.handle, "first", 5, nil, 0, 1, &lease, &result, nil)
    #expect(Int(status) == AGR_REPLAY)
    #expect(cache.begin("second", 2).status == AGR_OK)
    #expect(cache.snapshot.evicted == 1 && cache.snapshot.bytes == 19 + 6)
    let bytes = UnsafeRawBufferPointer(start: result.data, count: result.length)
    #expect(String(decoding: bytes, as: UTF8.self) == "a result that stays")
    #expect(cache.release(result.pin) == AGR_OK)
    #expect(cache.snapshot.bytes == 6)
  }

  @Test func anEmptyResultHasAnAddress() {
    let cache = CCache()
    let first = cache.begin("key", 0)
    #expect(Int(agr_idempotency_complete_at(cache.handle, first.lease, nil, 0, 1, nil)) == AGR_OK)
    #expect(cache.begin("key", 2).text == "")
  }

  @Test func theBoundsHoldOverAllShards() {
    for evicts in [false, true] {
      let cache = CCache {
        $0.max_entries = 2000
        $0.max_bytes = 100_000
        $0.when_full = Int32(evicts ? AGR_WHEN_FULL_EVICT : AGR_WHEN_FULL_REFUSE)
        $0.seed = 7
      }
      for number in 0..<2000 {
        let lease = cache.begin("key \(number)", 0)
        #expect(lease.status == AGR_OK)
        #expect(cache.complete(lease.lease, "result", 0) == AGR_OK)
      }
      #expect(cache.snapshot.entries == 2000)
      for number in 0..<500 {
        let more = cache.begin("more \(number)", 1)
        #expect(more.status == (evicts ? AGR_OK : AGR_ERR_CAPACITY))
        if evicts && number == 499 {
          // It takes the place of what lies under other locks, too.
          let large = String(repeating: "x", count: 80_000)
          #expect(cache.complete(more.lease, large, 2) == AGR_OK)
        }
      }
      #expect(cache.snapshot.entries <= 2000 && cache.snapshot.bytes <= 100_000)
    }
  }

  @Test func whatHasExpiredUnderOtherLocksMakesRoom() {
    let cache = CCache {
      $0.max_entries = 1024
      $0.ttl_ns = 10
      $0.seed = 7
    }
    for number in 0..<1024 {
      let lease = cache.begin("key \(number)", 0)
      #expect(cache.complete(lease.lease, "", 0) == AGR_OK)
    }
    for number in 0..<1024 { #expect(cache.begin("new \(number)", 10).status == AGR_OK) }
  }

  @Test func aClockThatIsSetBackKeepsWhatIsThere() {
    let cache = CCache()
    let day: Int64 = 86_400_000_000_000
    let lease = cache.begin("key", 100 * day)
    #expect(cache.begin("key", 5).status == AGR_IN_PROGRESS)
    #expect(cache.complete(lease.lease, "result", 10) == AGR_OK)
    #expect(cache.begin("key", 20).text == "result")
  }
}
