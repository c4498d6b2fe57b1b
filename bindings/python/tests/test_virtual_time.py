# SPDX-License-Identifier: Apache-2.0
"""The test mode: objects that are made in it wait in no time."""

from __future__ import annotations

import asyncio

import httpx
import pytest
import requests

from autoglm_reliability import (
    Backoff,
    CircuitBreaker,
    CircuitOpen,
    IdempotencyCache,
    KeyedRateLimiter,
    Policy,
    RateLimiter,
    Region,
    RetryBudget,
)
from autoglm_reliability.httpx import AsyncReliableTransport, ReliableTransport
from autoglm_reliability.requests import ReliableAdapter
from autoglm_reliability.testing import ManualClock, virtual_time
from scripted_http import ScriptedServer, answer

DOWN = answer(503, retry_after="100")


def test_every_object_lives_by_the_clock() -> None:
    with virtual_time() as clock:
        limiter, keyed = RateLimiter(1, 1, 60), KeyedRateLimiter(1, 1, 60)
        breaker, budget = CircuitBreaker(consecutive_failures=1), RetryBudget(initial=0, min_per_second=1)
        cache = IdempotencyCache(ttl=10)
        limiter.acquire()
        limiter.acquire()
        assert clock.slept == [pytest.approx(60)]
        assert keyed.try_acquire("a")
        assert not keyed.try_acquire("a")
        breaker.acquire().failure()
        with pytest.raises(CircuitOpen):
            breaker.acquire()
        assert cache.get_or_execute("k", lambda _: b"1") == b"1"
        clock.advance(61)
        assert keyed.try_acquire("a")
        breaker.acquire().success()
        assert budget.balance > 60
        assert cache.get_or_execute("k", lambda _: b"2") == b"2"


def test_afterwards_time_is_as_before() -> None:
    with virtual_time() as outer:
        with virtual_time() as inner:
            assert RateLimiter(1, 1)._clock is inner
        assert RateLimiter(1, 1)._clock is outer
    assert RateLimiter(1, 1)._clock is None


def test_a_clock_of_ones_own_and_a_shared_object_keep_theirs(clock: ManualClock) -> None:
    with virtual_time():
        assert RateLimiter(1, 1, clock=clock)._clock is clock
        with Region() as region:
            assert RateLimiter(1, 1, scope=region, name="a")._clock is None


def test_a_policy_waits_in_no_time() -> None:
    tries: list[int] = []

    def failing(attempt: object) -> None:
        tries.append(1)
        raise ConnectionRefusedError

    with virtual_time() as clock:
        policy = Policy(retry=Backoff(max_attempts=4, base_delay=1000, max_delay=9000), total_timeout=99_999)
        with pytest.raises(ConnectionRefusedError):
            policy.execute(failing)
        assert len(tries) == 4
        assert len(clock.slept) == 3


def test_the_transports_wait_in_no_time() -> None:
    with ScriptedServer(DOWN, answer()) as server, virtual_time() as clock:
        with httpx.Client(transport=ReliableTransport()) as client:
            assert client.get(server.url).status_code == 200
        assert 100 <= clock.slept[0] <= 106

    async def ask() -> int:
        async with httpx.AsyncClient(transport=AsyncReliableTransport()) as client:
            return (await client.get(server.url)).status_code

    with ScriptedServer(DOWN, answer()) as server, virtual_time() as clock:
        assert asyncio.run(ask()) == 200
        assert 100 <= clock.slept[0] <= 106

    with ScriptedServer(DOWN, answer()) as server, virtual_time() as clock, requests.Session() as session:
        session.mount("http://", ReliableAdapter())
        assert session.get(server.url).status_code == 200
        assert 100 <= clock.slept[0] <= 106
