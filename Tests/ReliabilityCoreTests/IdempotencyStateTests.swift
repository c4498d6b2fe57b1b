import Testing

@testable import ReliabilityCore

@Suite struct IdempotencyStateTests {
  private static let states: [KeyState] = [.absent, .pending, .processing, .success, .failed]

  @Test func onlyTheMovesOfTheMachineAreLegal() {
    let legal: [KeyState: [KeyState]] = [
      .absent: [.pending], .pending: [.processing, .absent],
      .processing: [.success, .failed, .pending], .success: [.absent],
      .failed: [.pending, .absent],
    ]
    for from in Self.states {
      for to in Self.states {
        #expect(from.canMove(to: to) == (legal[from] ?? []).contains(to), "\(from) to \(to)")
      }
    }
  }

  @Test(
    arguments: [
      ("max_entries", 0, 1, 1, 1, 1, 1, 1), ("max_entries", 1 << 27, 1, 1, 1, 1, 1, 1),
      ("max_bytes", 1, 0, 1, 1, 1, 1, 1), ("max_bytes", 1, 1 << 51, 1, 1, 1, 1, 1),
      ("max_key_bytes", 1, 1, 0, 1, 1, 1, 1), ("max_key_bytes", 1, 1, (1 << 20) + 1, 1, 1, 1, 1),
      ("max_waiters", 1, 1, 1, -1, 1, 1, 1), ("max_waiters", 1, 1, 1, (1 << 20) + 1, 1, 1, 1),
      ("max_pins", 1, 1, 1, 1, 0, 1, 1), ("max_pins", 1, 1, 1, 1, (1 << 20) + 1, 1, 1),
      ("ttl_ns", 1, 1, 1, 1, 1, 0, 1), ("ttl_ns", 1, 1, 1, 1, 1, .max, 1),
      ("lease_ns", 1, 1, 1, 1, 1, 1, 0), ("lease_ns", 1, 1, 1, 1, 1, 1, .max),
    ] as [(String, Int, Int, Int, Int, Int, Int, Int)])
  func aValueOutOfRangeIsRefusedByName(
    _ field: String, _ entries: Int, _ bytes: Int, _ key: Int, _ waiters: Int, _ pins: Int,
    _ ttl: Int, _ lease: Int
  ) {
    do throws(Failure) {
      _ = try IdempotencyConfiguration(
        maxEntries: entries, maxBytes: bytes, maxKeyBytes: key, maxWaiters: waiters, maxPins: pins,
        evicts: false, keepsFailures: false, timeToLive: Int64(ttl), leaseTime: Int64(lease))
      Issue.record("\(field) was accepted")
    } catch { #expect(error.field.description == field) }
  }

  @Test func aPoolGivesEachSlotOnceAndExactlyItsCount() throws {
    let pool = try SlotPool(count: 3)
    let first = [pool.take(), pool.take(), pool.take(), pool.take()]
    #expect(first == [0, 1, 2, nil])
    pool.giveBack(1)
    let again = [pool.take(), pool.take()]
    #expect(again == [1, nil])
    let used = pool.used
    #expect(used == 3)
  }

  @Test func idsOfAnotherCacheAreStale() {
    let one = IdempotencyHarness(IdempotencyHarness.configuration(), seed: 1)
    let other = IdempotencyHarness(IdempotencyHarness.configuration(), seed: 2)
    _ = one.begin("key", 0)
    _ = other.begin("key", 0)
    _ = one.join("key", 0)
    _ = other.join("key", 0)
    #expect(other.complete(one.lease, "result", 0) == .stale)
    #expect(other.poll(one.ticket, 0) == .stale)
    #expect(other.release(1) == .stale)
    #expect(other.complete(0, "", 0) == .stale)
    #expect(other.complete(.max, "", 0) == .stale)
    #expect(other.poll(.max, 0) == .stale)
    #expect(other.release(.max) == .stale)
  }
}
