# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
import select
import threading

import pytest

from autoglm_reliability import (
    ArgumentError,
    CapacityError,
    IdempotencyCache,
    InProgress,
    KeyState,
    Lease,
    LeaseLost,
    Mismatch,
    NeverFits,
    OnFailure,
    ReplayedFailure,
    Result,
    StateError,
    Ticket,
    WaitTimeout,
    WhenFull,
)
from autoglm_reliability.testing import ManualClock
from helpers import collect, in_threads


@pytest.fixture
def cache(clock: ManualClock) -> IdempotencyCache:
    return IdempotencyCache(ttl=100, lease=10, clock=clock)


def lease_of(cache: IdempotencyCache, key: str = "k") -> Lease:
    lease = cache.begin(key)
    assert isinstance(lease, Lease)
    return lease


def ticket_of(cache: IdempotencyCache, key: str = "k") -> Ticket:
    ticket = cache.join(key)
    assert isinstance(ticket, Ticket)
    return ticket


def test_the_first_executes_and_the_next_gets_its_result(cache: IdempotencyCache) -> None:
    lease = lease_of(cache)
    assert (lease.expires_in, lease.outcome_unknown) == (10.0, False)
    lease.complete(b"done")
    result = cache.begin("k")
    assert isinstance(result, Result)
    with result:
        assert (bytes(result), len(result), result.failed) == (b"done", 4, False)


def test_a_key_goes_through_its_states(cache: IdempotencyCache, clock: ManualClock) -> None:
    assert cache.state("k") is None
    lease = lease_of(cache)
    assert cache.state("k") is KeyState.PROCESSING
    lease.complete(b"")
    assert cache.state("k") is KeyState.SUCCESS
    clock.advance(100)
    assert cache.state("k") is None


def test_a_key_in_progress_says_until_when(cache: IdempotencyCache, clock: ManualClock) -> None:
    lease = lease_of(cache)
    clock.advance(4)
    with pytest.raises(InProgress) as caught:
        cache.begin("k")
    assert caught.value.retry_after == 6.0
    assert not lease.ended


def test_the_same_key_with_another_request_is_a_mismatch(cache: IdempotencyCache) -> None:
    cache.get_or_execute("k", lambda _: b"done", fingerprint="a")
    with pytest.raises(Mismatch):
        cache.get_or_execute("k", lambda _: b"done", fingerprint="b")
    assert cache.get_or_execute("k", lambda _: b"other", fingerprint="a") == b"done"
    assert cache.get_or_execute("k", lambda _: b"other") == b"done"
    assert cache.snapshot().mismatched == 1


def test_keys_with_zeros_in_them_are_different_keys(cache: IdempotencyCache) -> None:
    assert cache.get_or_execute(b"a\0b", lambda _: b"1\0\0") == b"1\0\0"
    assert cache.get_or_execute(b"a\0c", lambda _: b"2") == b"2"


def test_a_lease_that_was_lost_stores_nothing_and_the_next_is_told(
    cache: IdempotencyCache, clock: ManualClock
) -> None:
    late = lease_of(cache)
    clock.advance(11)
    lease = lease_of(cache)
    assert lease.outcome_unknown
    assert lease.fence > late.fence
    with pytest.raises(LeaseLost):
        late.complete(b"late")
    assert not late.renew()
    lease.complete(b"new")
    assert cache.get_or_execute("k", lambda _: b"never") == b"new"


def test_a_lease_can_be_renewed(cache: IdempotencyCache, clock: ManualClock) -> None:
    lease = lease_of(cache)
    clock.advance(9)
    assert lease.renew()
    clock.advance(9)
    assert cache.renew(lease, 60)
    clock.advance(59)
    cache.complete(lease, b"slow")
    assert not cache.renew(lease)


def test_a_lease_ends_once(cache: IdempotencyCache) -> None:
    lease = lease_of(cache)
    lease.complete(b"done")
    with pytest.raises(LeaseLost):
        lease.complete(b"again")
    with pytest.raises(LeaseLost):
        cache.fail(lease)
    assert not cache.abandon(lease)


def test_leaving_a_leases_block_abandons_it(cache: IdempotencyCache) -> None:
    with lease_of(cache):
        pass
    assert lease_of(cache).outcome_unknown


def test_a_failure_is_forgotten_or_kept(clock: ManualClock) -> None:
    forgets = IdempotencyCache(clock=clock)
    lease_of(forgets).fail(b"why")
    assert not lease_of(forgets).outcome_unknown
    keeps = IdempotencyCache(on_failure=OnFailure.KEEP, clock=clock)
    lease_of(keeps).fail(b"why")
    assert keeps.state("k") is KeyState.FAILED
    with pytest.raises(ReplayedFailure) as caught:
        keeps.get_or_execute("k", lambda _: b"never")
    assert caught.value.data == b"why"


def test_who_joins_gets_the_result(cache: IdempotencyCache) -> None:
    lease, ticket = lease_of(cache), ticket_of(cache)
    assert ticket.expires_in == 10.0
    assert ticket.poll() is None
    descriptor = ticket.fileno()
    assert select.select([descriptor], [], [], 0)[0] == []
    lease.complete(b"done")
    assert select.select([descriptor], [], [], 0)[0] == [descriptor]
    answer = ticket.poll()
    assert isinstance(answer, Result)
    assert bytes(answer) == b"done"
    with pytest.raises(StateError):
        cache.poll(ticket)
    with pytest.raises(StateError):
        ticket.fileno()
    assert not ticket.leave()


def test_one_who_waits_and_no_other_is_promoted_when_the_run_fails(cache: IdempotencyCache) -> None:
    lease = lease_of(cache)
    first, second = ticket_of(cache), ticket_of(cache)
    lease.fail()
    assert second.poll() is None
    promoted = first.poll()
    assert isinstance(promoted, Lease)
    promoted.complete(b"second try")
    answer = second.poll()
    assert isinstance(answer, Result)
    assert bytes(answer) == b"second try"


def test_a_place_in_line_can_be_given_up(cache: IdempotencyCache) -> None:
    lease = lease_of(cache)
    first = ticket_of(cache)
    with ticket_of(cache) as second:
        assert first.leave()
        lease.fail()
        assert isinstance(second.poll(), Lease)
    with ticket_of(cache) as third:
        assert third.poll() is None
    assert cache.snapshot().waiters == 0


def test_a_wait_ends_with_the_time_given(cache: IdempotencyCache, clock: ManualClock) -> None:
    lease = lease_of(cache)
    ticket = ticket_of(cache)
    with pytest.raises(WaitTimeout):
        ticket.wait(timeout=3.1)
    assert sum(clock.slept) == pytest.approx(3.1)
    lease.complete(b"done")
    assert isinstance(ticket.wait(timeout=0), Result)


def test_a_wait_outlasts_the_lease_and_is_promoted(cache: IdempotencyCache, clock: ManualClock) -> None:
    lost = lease_of(cache)
    answer = ticket_of(cache).wait()
    assert isinstance(answer, Lease)
    assert answer.outcome_unknown
    assert sum(clock.slept) == pytest.approx(10)
    with pytest.raises(LeaseLost):
        lost.complete(b"late")


def test_threads_execute_a_key_once_and_all_get_its_result() -> None:
    cache = IdempotencyCache()
    runs: list[int] = []

    def work(index: int) -> bytes:
        def run(lease: Lease) -> bytes:
            runs.append(index)
            return b"by %d" % index

        return cache.get_or_execute("k", run)

    results = in_threads(8, work)
    assert len(runs) == 1
    assert set(results) == {b"by %d" % runs[0]}


def test_threads_whose_run_fails_take_turns_until_one_succeeds() -> None:
    cache = IdempotencyCache()
    runs = iter(range(100))

    def run(lease: Lease) -> bytes:
        if next(runs) < 3:
            raise KeyError("not yet")
        return b"done"

    def work(_: int) -> object:
        try:
            return cache.get_or_execute("k", run)
        except KeyError:
            return "failed"

    results = in_threads(8, work)
    assert results.count("failed") == 3
    assert results.count(b"done") == 5
    assert next(runs) == 4


@pytest.mark.parametrize(
    ("error", "unknown"),
    [(ValueError("bad"), False), (TimeoutError(), True), (KeyboardInterrupt(), True)],
)
def test_how_a_run_fails_decides_whether_its_outcome_is_known(
    cache: IdempotencyCache, error: BaseException, unknown: bool
) -> None:
    def run(lease: Lease) -> bytes:
        raise error

    with pytest.raises(type(error)):
        cache.get_or_execute("k", run)
    assert lease_of(cache).outcome_unknown is unknown


def test_a_result_that_is_no_bytes_leaves_the_outcome_unknown(cache: IdempotencyCache) -> None:
    with pytest.raises(TypeError, match="result"):
        cache.get_or_execute("k", lambda _: 7)  # type: ignore[arg-type,return-value]
    assert lease_of(cache).outcome_unknown


def test_bounds_are_kept_and_named(clock: ManualClock) -> None:
    cache = IdempotencyCache(max_entries=1, max_bytes=200, max_waiters=0, clock=clock)
    lease = lease_of(cache)
    with pytest.raises(CapacityError) as caught:
        cache.begin("other")
    assert caught.value.field == "max_entries"
    with pytest.raises(CapacityError) as caught:
        cache.join("k")
    assert caught.value.field == "max_waiters"
    with pytest.raises(NeverFits):
        lease.complete(b"x" * 201)
    lease.complete(b"fits")
    assert cache.snapshot().refused >= 1


def test_pins_are_bounded(clock: ManualClock) -> None:
    cache = IdempotencyCache(max_pins=1, clock=clock)
    cache.get_or_execute("k", lambda _: b"done")
    result = cache.begin("k")
    with pytest.raises(CapacityError) as caught:
        cache.begin("k")
    assert caught.value.field == "max_pins"
    assert isinstance(result, Result)
    result.release()
    collect()
    assert cache.get_or_execute("k", lambda _: b"never") == b"done"


def test_a_full_cache_evicts_what_is_completed(clock: ManualClock) -> None:
    cache = IdempotencyCache(max_entries=8, when_full=WhenFull.EVICT, clock=clock)
    running = lease_of(cache, "running")
    for number in range(50):
        cache.get_or_execute(f"k{number}", lambda _: b"done")
    assert cache.snapshot().evicted > 0
    running.complete(b"kept")
    assert cache.get_or_execute("running", lambda _: b"never") == b"kept"


@pytest.mark.parametrize("key", [b"", b"k" * 256])
def test_a_key_has_a_length(cache: IdempotencyCache, key: bytes) -> None:
    with pytest.raises(ArgumentError, match="key"):
        cache.begin(key)


def test_an_empty_result_is_a_result(cache: IdempotencyCache) -> None:
    assert cache.get_or_execute("k", lambda _: b"") == b""
    result = cache.begin("k")
    assert isinstance(result, Result)
    assert len(result.view) == 0


def test_a_view_is_the_memory_of_the_cache_and_read_only(cache: IdempotencyCache) -> None:
    cache.get_or_execute("k", lambda _: b"0123456789")
    with cache.begin("k") as first, cache.begin("k") as second:
        assert isinstance(first, Result)
        assert isinstance(second, Result)
        assert first.view == second.view
        assert first.view.readonly
    with pytest.raises(StateError):
        _ = first.view
    collect()
    assert cache.snapshot().pins == 0


def test_a_view_survives_what_becomes_of_the_key(cache: IdempotencyCache, clock: ManualClock) -> None:
    cache.get_or_execute("k", lambda _: b"old")
    result = cache.begin("k")
    clock.advance(1000)
    assert cache.get_or_execute("k", lambda _: b"new") == b"new"
    assert isinstance(result, Result)
    assert bytes(result.view) == b"old"


def test_a_thread_that_waits_is_woken_by_the_result() -> None:
    cache = IdempotencyCache()
    lease = lease_of(cache)
    joined = threading.Event()
    results: list[bytes] = []

    def wait() -> None:
        ticket = ticket_of(cache)
        joined.set()
        answer = ticket.wait(math.inf)
        assert isinstance(answer, Result)
        results.append(bytes(answer))

    thread = threading.Thread(target=wait)
    thread.start()
    joined.wait()
    lease.complete(b"done")
    thread.join()
    assert results == [b"done"]
