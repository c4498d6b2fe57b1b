# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import math

import pytest

from autoglm_reliability import (
    ArgumentError,
    CapacityError,
    Component,
    NeverFits,
    RateLimited,
    RateLimiter,
    Reason,
    acquire_all,
    acquire_all_async,
    reserve_all,
    try_acquire_all,
)
from autoglm_reliability.testing import ManualClock
from helpers import in_threads


@pytest.fixture
def limiter(clock: ManualClock) -> RateLimiter:
    return RateLimiter(10, 5, clock=clock)


def test_a_full_bucket_admits_its_capacity_and_no_more(limiter: RateLimiter) -> None:
    assert [limiter.try_acquire() for _ in range(11)] == [True] * 10 + [False]
    assert limiter.available == 0


def test_a_refusal_says_who_and_when_it_clears(limiter: RateLimiter, clock: ManualClock) -> None:
    limiter.acquire(10)
    with pytest.raises(RateLimited) as caught:
        limiter.acquire(2, timeout=0)
    refusal = caught.value
    assert (refusal.retry_after, refusal.component, refusal.reason) == (
        0.4,
        Component.LIMITER,
        Reason.LIMITED,
    )
    clock.advance(0.4)
    assert limiter.try_acquire(2)


def test_acquire_waits_for_as_long_as_it_takes(limiter: RateLimiter, clock: ManualClock) -> None:
    limiter.acquire(10)
    limiter.acquire(5)
    assert clock.slept == [1.0]
    with pytest.raises(RateLimited):
        limiter.acquire(5, timeout=0.5)
    assert clock.slept == [1.0]


def test_a_coroutine_waits_as_long(limiter: RateLimiter, clock: ManualClock) -> None:
    async def twice() -> None:
        await limiter.acquire_async(10)
        await limiter.acquire_async(5)

    asyncio.run(twice())
    assert clock.slept == [1.0]


def test_a_task_that_is_cancelled_while_it_waits_gives_its_tokens_back() -> None:
    limiter = RateLimiter(10, 1, refill_interval=3600)

    async def run() -> int:
        await limiter.acquire_async(10)
        before = limiter.available
        waiter = asyncio.ensure_future(limiter.acquire_async(5))
        while limiter.available == before:
            await asyncio.sleep(0)
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
        return limiter.snapshot().open_reservations

    assert asyncio.run(run()) == 0
    assert limiter.available == 0


def test_more_than_the_bucket_holds_never_fits(limiter: RateLimiter) -> None:
    with pytest.raises(NeverFits) as caught:
        limiter.try_acquire(11)
    assert caught.value.retry_after == math.inf


def test_a_reservation_is_settled_by_its_real_cost(limiter: RateLimiter) -> None:
    with limiter.reserve(8) as hold:
        assert (hold.wait, hold.tokens) == (0.0, 8)
        assert hold.settle(actual=3)
    assert limiter.available == 7
    assert not hold.settle(2)
    assert not hold.cancel()
    assert limiter.available == 7


def test_a_reservation_may_cost_more_than_was_estimated(limiter: RateLimiter) -> None:
    assert limiter.reserve(2).settle(actual=12)
    assert limiter.available == -2


def test_a_reservation_that_nobody_settles_keeps_its_estimate(limiter: RateLimiter) -> None:
    with limiter.reserve(4):
        pass
    assert limiter.available == 6


def test_a_reservation_is_given_back_when_its_block_fails(limiter: RateLimiter) -> None:
    with pytest.raises(KeyError), limiter.reserve(4):
        raise KeyError("lost")
    assert limiter.available == 10


def test_a_bad_real_cost_leaves_the_reservation_open(limiter: RateLimiter) -> None:
    hold = limiter.reserve(4)
    with pytest.raises(ArgumentError):
        hold.settle(2**60)
    with pytest.raises(ArgumentError, match="actual"):
        hold.settle(-1)
    assert hold.cancel()
    assert limiter.available == 10


def test_open_reservations_are_bounded(clock: ManualClock) -> None:
    limiter = RateLimiter(10, 5, max_reservations=1, clock=clock)
    hold = limiter.reserve()
    with pytest.raises(CapacityError) as caught:
        limiter.reserve()
    assert caught.value.field == "max_reservations"
    hold.cancel()
    assert limiter.reserve().tokens == 1


def test_without_reservations_a_wait_is_made_by_the_library() -> None:
    limiter = RateLimiter(1, 1000, max_reservations=0)
    for _ in range(3):
        limiter.acquire()
    with pytest.raises(RateLimited):
        RateLimiter(1, 0, initial_tokens=0, max_reservations=0).acquire()


def test_reconfiguring_changes_what_is_named_and_nothing_else(
    limiter: RateLimiter, clock: ManualClock
) -> None:
    limiter.acquire(4)
    limiter.reconfigure(capacity=20)
    assert (limiter.available, limiter.snapshot().capacity) == (6, 20)
    limiter.reconfigure(refill_tokens=1)
    clock.advance(2)
    assert limiter.available == 8
    with pytest.raises(ArgumentError, match="capacity"):
        limiter.reconfigure(capacity=0)
    clock.advance(1)
    assert limiter.available == 9


def test_an_observing_limiter_refuses_nobody_and_counts(clock: ManualClock) -> None:
    limiter = RateLimiter(1, 1, observe=True, clock=clock)
    assert [limiter.try_acquire() for _ in range(3)] == [True] * 3
    assert limiter.snapshot().would_refuse == 2


def test_a_decorated_function_takes_its_tokens_first(limiter: RateLimiter) -> None:
    @limiter
    def one() -> int:
        return limiter.available

    @limiter.limit(tokens=3)
    def three() -> int:
        return limiter.available

    @limiter.limit(tokens=2, timeout=0)
    async def two() -> int:
        return limiter.available

    assert (one(), three(), asyncio.run(two())) == (9, 6, 4)
    limiter.acquire(3)
    with pytest.raises(RateLimited):
        asyncio.run(two())


def test_a_generator_cannot_be_decorated(limiter: RateLimiter) -> None:
    with pytest.raises(TypeError, match="generator"):

        @limiter
        def numbers():  # type: ignore[no-untyped-def]
            yield 1


def test_several_buckets_give_all_or_nothing(limiter: RateLimiter, clock: ManualClock) -> None:
    tokens = RateLimiter(100, 10, clock=clock)
    assert try_acquire_all([(limiter, 1), (tokens, 60)])
    assert not try_acquire_all([(limiter, 1), (tokens, 60)])
    assert (limiter.available, tokens.available) == (9, 40)
    with pytest.raises(RateLimited) as caught:
        reserve_all([(limiter, 1), (tokens, 60)], max_wait=1)
    assert caught.value.retry_after == pytest.approx(1.0)
    holds = reserve_all([(limiter, 1), (tokens, 60)])
    assert [hold.wait for hold in holds] == [0.0, 2.0]
    for hold in holds:
        hold.cancel()
    acquire_all([(limiter, 1), (tokens, 60)])
    assert clock.slept == [2.0]
    asyncio.run(acquire_all_async([(limiter, 1), (tokens, 10)]))
    assert clock.slept == [2.0, 1.0]


def test_demands_that_make_no_sense_are_refused(limiter: RateLimiter) -> None:
    with pytest.raises(ArgumentError):
        try_acquire_all([])
    with pytest.raises(ArgumentError):
        try_acquire_all([(limiter, 1), (limiter, 1)])
    with pytest.raises(ArgumentError, match="clocks"):
        try_acquire_all([(limiter, 1), (RateLimiter(1, 1), 1)])
    with pytest.raises(NeverFits):
        try_acquire_all([(limiter, 11)])
    with pytest.raises(ArgumentError):
        acquire_all([])


def test_threads_share_one_bucket_exactly() -> None:
    limiter = RateLimiter(1000, 0)
    taken = in_threads(8, lambda _: sum(limiter.try_acquire() for _ in range(300)))
    assert sum(taken) == 1000


def test_a_thread_waits_in_the_library() -> None:
    limiter = RateLimiter(1, 1000)
    assert in_threads(4, lambda _: limiter.acquire()) == [None] * 4
    assert limiter.snapshot().open_reservations == 0


def test_a_window_admits_at_most_the_capacity_and_what_flows_in_meanwhile() -> None:
    """One token an hour: two within an hour need a full bucket, and then the whole hour."""
    clock = ManualClock(3599)
    limiter = RateLimiter(1, 1, refill_interval=3600, clock=clock)
    assert limiter.try_acquire()
    clock.advance(2)
    assert not limiter.try_acquire()
