import CAutoGLMReliability
import Glibc
import Synchronization
import Testing

@Suite struct IdempotencyWaitTests {
  private final class Shared: Sendable {
    let executed = Atomic<Int>(0)
    let replayed = Atomic<Int>(0)
    let executing = Atomic<Int>(0)
    let overlaps = Atomic<Int>(0)
    let failures = Atomic<Int>(0)
    let stop = Atomic<Bool>(false)
  }

  @Test func aTimeoutOfZeroOnlyLooks() {
    let cache = CCache()
    let first = cache.joinNow("key")
    let second = cache.joinNow("key")
    #expect(first.status == AGR_OK && second.status == AGR_IN_PROGRESS)
    #expect(cache.wait(second.ticket, 0).status == AGR_TIMED_OUT)
    #expect(cache.wait(second.ticket, 1).status == AGR_TIMED_OUT)
    #expect(cache.wait(second.ticket, -1).status == AGR_ERR_ARGUMENT)
    #expect(Int(agr_idempotency_complete(cache.handle, first.lease, "r", 1, nil)) == AGR_OK)
    #expect(cache.wait(second.ticket, .max).text == "r")
  }

  @Test func aWaiterIsPromotedWhenTheLeaseRunsOut() {
    let cache = CCache { $0.lease_ns = 2_000_000 }
    _ = cache.joinNow("key")
    let second = cache.joinNow("key")
    // On a busy machine the lease may have run out before the second came.
    if second.status == AGR_IN_PROGRESS {
      let promoted = cache.wait(second.ticket, .max)
      #expect(promoted.status == AGR_OK && promoted.unknown)
    } else {
      #expect(second.status == AGR_OK && second.unknown)
    }
  }

  @Test func aThreadThatWaitsForATicketWhichIsGivenUpIsTold() {
    let cache = CCache()
    _ = cache.joinNow("key")
    let ticket = cache.joinNow("key").ticket
    let stale = Shared()
    let thread = startThread {
      if cache.wait(ticket, .max).status == AGR_STALE {
        stale.executed.wrappingAdd(1, ordering: .relaxed)
      }
    }
    #expect(cache.leave(ticket, agr_now_ns()) == AGR_OK)
    pthread_join(thread, nil)
    #expect(stale.executed.load(ordering: .relaxed) == 1)
  }

  @Test func ofManyThreadsExactlyOneExecutesAndAllGetTheResult() {
    let cache = CCache { $0.max_entries = 2048 }
    for round in 0..<200 {
      let shared = Shared()
      onThreads(6) { _ in
        var answer = cache.joinNow("key \(round)")
        if answer.status == AGR_IN_PROGRESS { answer = cache.wait(answer.ticket, .max) }
        if answer.status == AGR_OK {
          shared.executed.wrappingAdd(1, ordering: .relaxed)
          let status = agr_idempotency_complete(cache.handle, answer.lease, "result", 6, nil)
          if Int(status) != AGR_OK { shared.failures.wrappingAdd(1, ordering: .relaxed) }
        } else if answer.status == AGR_REPLAY && answer.text == "result" {
          shared.replayed.wrappingAdd(1, ordering: .relaxed)
          _ = cache.release(answer.pin)
        } else {
          shared.failures.wrappingAdd(1, ordering: .relaxed)
        }
      }
      #expect(shared.executed.load(ordering: .relaxed) == 1)
      #expect(shared.replayed.load(ordering: .relaxed) == 5)
      #expect(shared.failures.load(ordering: .relaxed) == 0)
    }
    #expect(cache.snapshot.waiters == 0 && cache.snapshot.pins == 0)
  }

  @Test func whenRunsFailTheWaitersExecuteOneAfterTheOther() {
    let cache = CCache()
    let shared = Shared()
    let owner = cache.joinNow("key")
    let tickets = (0..<8).map { _ in cache.joinNow("key").ticket }
    let waiters = tickets.map { ticket in
      startThread {
        let answer = cache.wait(ticket, .max)
        guard answer.status == AGR_OK else {
          shared.failures.wrappingAdd(1, ordering: .relaxed)
          return
        }
        shared.executed.wrappingAdd(1, ordering: .relaxed)
        if shared.executing.wrappingAdd(1, ordering: .relaxed).newValue != 1 {
          shared.overlaps.wrappingAdd(1, ordering: .relaxed)
        }
        sched_yield()
        shared.executing.wrappingSubtract(1, ordering: .relaxed)
        _ = agr_idempotency_fail(cache.handle, answer.lease, nil, 0, nil)
      }
    }
    #expect(Int(agr_idempotency_fail(cache.handle, owner.lease, nil, 0, nil)) == AGR_OK)
    for waiter in waiters { pthread_join(waiter, nil) }
    #expect(shared.executed.load(ordering: .relaxed) == 8)
    #expect(shared.overlaps.load(ordering: .relaxed) == 0)
    #expect(shared.failures.load(ordering: .relaxed) == 0)
    #expect(cache.snapshot.entries == 0 && cache.snapshot.promoted == 8)
  }

  @Test func theDescriptorIsReadableWhenThereIsAnAnswerAndClosedWithTheTicket() {
    let cache = CCache { $0.lease_ns = 1000 }
    let owner = cache.begin("key", 0)
    let ticket = cache.join("key", 0).ticket
    let next = cache.join("key", 0).ticket
    let (status, fd) = cache.descriptor(ticket)
    #expect(status == AGR_OK && fd >= 0)
    #expect(cache.descriptor(ticket) == (AGR_OK, fd))
    #expect(!isReadable(fd))
    #expect(cache.abandon(owner.lease, 0) == AGR_OK)
    #expect(isReadable(fd))
    // He does not come: it is the other's turn, and this one has no answer any more.
    let promoted = cache.poll(next, 1000)
    #expect(promoted.status == AGR_OK)
    #expect(!isReadable(fd))
    #expect(cache.complete(promoted.lease, "result", 1001) == AGR_OK)
    #expect(isReadable(fd))
    #expect(cache.poll(ticket, 1001).text == "result")
    #expect(cache.descriptor(ticket).status == AGR_STALE)
  }

  @Test func aDescriptorAskedForLateIsReadableAtOnce() {
    let cache = CCache()
    let owner = cache.begin("key", 0)
    let ticket = cache.join("key", 0).ticket
    #expect(cache.complete(owner.lease, "", 0) == AGR_OK)
    #expect(isReadable(cache.descriptor(ticket).fd))
    #expect(cache.leave(ticket, 0) == AGR_OK)
  }

  @Test func moreWaitersThanOneBatchAreAllTold() {
    let cache = CCache()
    let owner = cache.begin("key", 0)
    let tickets = (0..<100).map { _ in cache.join("key", 0).ticket }
    let descriptors = tickets.map { cache.descriptor($0).fd }
    #expect(cache.complete(owner.lease, "result", 0) == AGR_OK)
    #expect(descriptors.allSatisfy(isReadable))
    #expect(tickets.allSatisfy { cache.poll($0, 0).text == "result" })
  }
}
