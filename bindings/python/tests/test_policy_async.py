# SPDX-License-Identifier: Apache-2.0
"""A policy in an event loop. Where tasks wait for each other on one loop, a call that blocked it
would hang the test."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from autoglm_reliability import (
    Attempt,
    Backoff,
    BreakerState,
    CircuitBreaker,
    DeadlineExceeded,
    IdempotencyCache,
    Jitter,
    Policy,
    RateLimiter,
    Retry,
    current_attempt,
)
from autoglm_reliability.testing import ManualClock


class Down(OSError):
    pass


def plan(attempts: int = 3) -> Retry:
    return Retry(Backoff(jitter=Jitter.NONE, base_delay=0.1, max_attempts=attempts))


def test_a_coroutine_is_retried_after_the_backoff(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)

    async def third(attempt: Attempt) -> int:
        await asyncio.sleep(0)
        if attempt.number < 3:
            raise Down(attempt.number)
        return attempt.number

    assert asyncio.run(policy.execute_async(third)) == 3
    assert clock.slept == [0.1, 0.2]


def test_the_last_exception_is_raised(clock: ManualClock) -> None:
    policy = Policy(retry=plan(2), clock=clock)

    async def fails(attempt: Attempt) -> None:
        raise Down(attempt.number)

    with pytest.raises(Down) as caught:
        asyncio.run(policy.execute_async(fails))
    assert caught.value.args == (2,)


def test_many_calls_wait_in_one_loop_at_the_same_time() -> None:
    """All of them have failed once before any of them may come back."""
    policy = Policy(retry=Retry(Backoff(jitter=Jitter.NONE, base_delay=0.001)))

    async def main() -> list[int]:
        failed, everybody = 0, asyncio.Event()

        async def call(attempt: Attempt) -> int:
            nonlocal failed
            if attempt.number == 1:
                failed += 1
                if failed == 50:
                    everybody.set()
                raise Down("1")
            await everybody.wait()
            return attempt.number

        return await asyncio.gather(*(policy.execute_async(call) for _ in range(50)))

    assert asyncio.run(main()) == [2] * 50


def test_a_task_that_is_cancelled_ends_its_call_and_counts_nowhere() -> None:
    breaker = CircuitBreaker(consecutive_failures=1)
    limiter = RateLimiter(5, 0)
    policy = Policy(breaker=breaker, limiters=[limiter], retry=plan())

    async def main() -> None:
        started = asyncio.Event()

        async def hangs(attempt: Attempt) -> None:
            started.set()
            await asyncio.Event().wait()

        task = asyncio.ensure_future(policy.execute_async(hangs))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert breaker.state is BreakerState.CLOSED
    assert policy.snapshot().calls_alive == 0
    assert policy.snapshot().attempts == 1


def test_a_task_that_is_cancelled_while_it_waits_abandons_its_call() -> None:
    policy = Policy(retry=Retry(Backoff(jitter=Jitter.NONE, base_delay=20)))

    async def main() -> None:
        failed = asyncio.Event()

        async def fails(attempt: Attempt) -> None:
            failed.set()
            raise Down("1")

        task = asyncio.ensure_future(policy.execute_async(fails))
        await failed.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert policy.snapshot().abandoned == 1
    assert policy.snapshot().calls_alive == 0


def test_an_attempt_is_cancelled_when_its_time_is_over() -> None:
    policy = Policy(attempt_timeout=0.01)
    cancelled = []

    async def hangs(attempt: Attempt) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(attempt.timeout)
            raise

    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(policy.execute_async(hangs))
    assert cancelled == [0.01]


def test_the_deadline_ends_an_attempt_too() -> None:
    policy = Policy(retry=Retry(Backoff(max_attempts=0), retry_unknown=True))

    async def hangs(attempt: Attempt) -> None:
        await asyncio.Event().wait()

    with pytest.raises((DeadlineExceeded, asyncio.TimeoutError)):
        asyncio.run(policy.execute_async(hangs, timeout=0.02))
    assert policy.snapshot().calls_alive == 0


def test_tasks_join_one_run_without_blocking_the_loop() -> None:
    policy = Policy(idempotency=IdempotencyCache())

    async def main() -> tuple[list[bytes], int]:
        release, runs = asyncio.Event(), 0

        async def run(attempt: Attempt) -> bytes:
            nonlocal runs
            runs += 1
            await release.wait()
            return b"once"

        tasks = [asyncio.ensure_future(policy.execute_async(run, key="k")) for _ in range(10)]
        while policy.snapshot().calls_alive < 10:
            await asyncio.sleep(0)
        release.set()
        return await asyncio.gather(*tasks), runs

    assert asyncio.run(main()) == ([b"once"] * 10, 1)


def test_one_who_joined_goes_on_when_the_first_is_cancelled() -> None:
    policy = Policy(idempotency=IdempotencyCache())

    async def main() -> tuple[bytes, list[bool]]:
        started, unknown = asyncio.Event(), []

        async def run(attempt: Attempt) -> bytes:
            unknown.append(attempt.step.outcome_unknown)
            if not started.is_set():
                started.set()
                await asyncio.Event().wait()
            return b"second"

        first = asyncio.ensure_future(policy.execute_async(run, key="k"))
        await started.wait()
        second = asyncio.ensure_future(policy.execute_async(run, key="k"))
        while policy.snapshot().calls_alive < 2:
            await asyncio.sleep(0)
        first.cancel()
        return await second, unknown

    assert asyncio.run(main()) == (b"second", [False, True])


def test_a_decorated_coroutine_function_is_guarded(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)

    @policy
    async def double(value: int) -> int:
        attempt = current_attempt()
        assert attempt is not None
        await asyncio.sleep(0)
        if attempt.number == 1:
            raise Down("once")
        return value * 2

    async def main() -> list[int]:
        return await asyncio.gather(*(double(value) for value in range(5)))

    assert asyncio.run(main()) == [0, 2, 4, 6, 8]
    assert asyncio.iscoroutinefunction(double)


def test_attempts_in_different_tasks_do_not_see_each_other() -> None:
    policy = Policy()

    async def main() -> None:
        both: Any = asyncio.Event()
        seen: list[Attempt] = []

        async def call(attempt: Attempt) -> None:
            seen.append(attempt)
            if len(seen) == 2:
                both.set()
            await both.wait()
            assert current_attempt() is attempt

        await asyncio.gather(policy.execute_async(call), policy.execute_async(call))
        assert current_attempt() is None

    asyncio.run(main())
    assert policy.snapshot().succeeded == 2
