# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_reliability import (
    ArgumentError,
    CapacityError,
    KeyedRateLimiter,
    NeverFits,
    RateLimited,
    WhenFull,
)
from autoglm_reliability.testing import ManualClock
from helpers import in_threads


@pytest.fixture
def limiter(clock: ManualClock) -> KeyedRateLimiter:
    return KeyedRateLimiter(3, 1, max_keys=64, clock=clock)


def test_every_key_has_a_bucket_of_its_own(limiter: KeyedRateLimiter) -> None:
    assert [limiter.try_acquire("a") for _ in range(4)] == [True, True, True, False]
    assert limiter.try_acquire("b")
    assert (limiter.available("a"), limiter.available("b"), limiter.available("c")) == (0, 2, 3)


def test_text_and_its_utf8_are_the_same_key(limiter: KeyedRateLimiter) -> None:
    limiter.acquire("ä", 3)
    assert limiter.available("ä".encode()) == 0


def test_a_key_waits_for_its_own_tokens(limiter: KeyedRateLimiter, clock: ManualClock) -> None:
    limiter.acquire(b"a", 3)
    limiter.acquire(b"a", 2)
    asyncio.run(limiter.acquire_async(b"a"))
    assert clock.slept == [2.0, 1.0]
    with pytest.raises(RateLimited) as caught:
        limiter.acquire(b"a", timeout=0)
    assert caught.value.retry_after == 1.0


def test_a_reservation_knows_its_key(limiter: KeyedRateLimiter) -> None:
    with limiter.reserve("a", 3) as hold:
        hold.settle(1)
    assert (limiter.available("a"), limiter.available("b")) == (2, 3)
    hold = limiter.reserve("b", 3)
    assert hold.cancel()
    assert not hold.cancel()
    assert limiter.available("b") == 3


def test_a_key_that_is_full_again_takes_no_place(limiter: KeyedRateLimiter, clock: ManualClock) -> None:
    limiter.acquire("a", 3)
    assert limiter.snapshot().busy_keys == 1
    clock.advance(3)
    assert limiter.snapshot().busy_keys == 0


def test_what_can_never_be_is_refused(limiter: KeyedRateLimiter) -> None:
    with pytest.raises(NeverFits):
        limiter.try_acquire("a", 4)
    with pytest.raises(ArgumentError, match="key"):
        limiter.try_acquire(b"k" * 1025)
    with pytest.raises(TypeError, match="key"):
        limiter.try_acquire(7)  # type: ignore[arg-type]


def test_a_full_table_refuses_or_evicts_as_it_was_told(clock: ManualClock) -> None:
    refusing = KeyedRateLimiter(3, 1, max_keys=4, clock=clock)
    with pytest.raises(CapacityError):
        for number in range(1000):
            refusing.try_acquire(f"k{number}")
    assert refusing.snapshot().no_place == 1
    evicting = KeyedRateLimiter(3, 1, max_keys=4, when_full=WhenFull.EVICT, clock=clock)
    assert all(evicting.try_acquire(f"k{number}") for number in range(1000))
    assert evicting.snapshot().evicted > 900


def test_reconfiguring_changes_all_keys(limiter: KeyedRateLimiter) -> None:
    limiter.reconfigure(capacity=5)
    assert limiter.available("a") == 5


@given(st.dictionaries(st.binary(max_size=20), st.integers(0, 3), max_size=20))
def test_keys_do_not_share(counts: dict[bytes, int]) -> None:
    limiter = KeyedRateLimiter(3, 1, max_keys=4096, clock=ManualClock())
    for key, count in counts.items():
        limiter.acquire(key, count)
    assert {key: limiter.available(key) for key in counts} == {
        key: 3 - count for key, count in counts.items()
    }


def test_threads_share_the_buckets_exactly() -> None:
    limiter = KeyedRateLimiter(100, 1, refill_interval=3600)
    keys = [f"k{index % 5}" for index in range(1000)]
    taken = in_threads(4, lambda _: sum(limiter.try_acquire(key) for key in keys))
    assert sum(taken) == 500
