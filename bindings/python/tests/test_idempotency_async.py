# SPDX-License-Identifier: Apache-2.0
"""get_or_execute in an event loop. Each test runs on one loop, so that a call that blocked it could
never see the other tasks' progress and the test would hang."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from autoglm_reliability import IdempotencyCache, KeyState, Lease, Ticket, WaitTimeout


def constant(data: bytes) -> Callable[[Lease], Awaitable[bytes]]:
    async def run(lease: Lease) -> bytes:
        return data

    return run


async def joined(cache: IdempotencyCache, count: int) -> None:
    while cache.snapshot().waiters < count:
        await asyncio.sleep(0)


def test_tasks_execute_a_key_once_while_the_loop_goes_on() -> None:
    async def main() -> tuple[list[bytes], int]:
        cache = IdempotencyCache()
        release = asyncio.Event()
        runs = 0

        async def run(lease: Lease) -> bytes:
            nonlocal runs
            runs += 1
            await release.wait()
            return b"done"

        tasks = [asyncio.ensure_future(cache.get_or_execute_async("k", run)) for _ in range(10)]
        await joined(cache, 9)
        release.set()
        return await asyncio.gather(*tasks), runs

    assert asyncio.run(main()) == ([b"done"] * 10, 1)


def test_the_next_task_runs_when_the_first_fails() -> None:
    async def main() -> tuple[list[object], int]:
        cache = IdempotencyCache()
        release = asyncio.Event()
        runs = 0

        async def run(lease: Lease) -> bytes:
            nonlocal runs
            runs += 1
            await release.wait()
            if runs == 1:
                raise KeyError("first")
            return b"done"

        tasks = [asyncio.ensure_future(cache.get_or_execute_async("k", run)) for _ in range(4)]
        await joined(cache, 3)
        release.set()
        results: list[object] = list(await asyncio.gather(*tasks, return_exceptions=True))
        return results, runs

    results, runs = asyncio.run(main())
    assert isinstance(results[0], KeyError)
    assert results[1:] == [b"done"] * 3
    assert runs == 2


def test_a_task_that_is_cancelled_while_it_executes_abandons_its_lease() -> None:
    async def main() -> bool:
        cache = IdempotencyCache()
        task = asyncio.ensure_future(cache.get_or_execute_async("k", lambda _: asyncio.Event().wait()))  # type: ignore[arg-type,return-value]
        while cache.state("k") is not KeyState.PROCESSING:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        lease = cache.begin("k")
        assert isinstance(lease, Lease)
        return lease.outcome_unknown

    assert asyncio.run(main())


def test_a_task_that_is_cancelled_while_it_waits_leaves_the_line() -> None:
    async def main() -> int:
        cache = IdempotencyCache()
        lease = cache.begin("k")
        task = asyncio.ensure_future(cache.get_or_execute_async("k", constant(b"never")))
        await joined(cache, 1)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert isinstance(lease, Lease)
        lease.complete(b"done")
        return cache.snapshot().waiters

    assert asyncio.run(main()) == 0


def test_a_run_that_was_lost_is_noticed_although_nobody_tells() -> None:
    async def main() -> bytes:
        cache = IdempotencyCache(lease=0.02)
        lost = cache.begin("k")
        assert isinstance(lost, Lease)

        async def run(lease: Lease) -> bytes:
            return b"unknown before" if lease.outcome_unknown else b"known"

        return await cache.get_or_execute_async("k", run)

    assert asyncio.run(main()) == b"unknown before"


def test_a_wait_ends_with_the_time_given() -> None:
    async def main() -> int:
        cache = IdempotencyCache()
        lease = cache.begin("k")
        with pytest.raises(WaitTimeout):
            await cache.get_or_execute_async("k", constant(b""), timeout=0.01)
        assert isinstance(lease, Lease)
        return cache.snapshot().waiters

    assert asyncio.run(main()) == 0


def test_a_result_from_a_thread_wakes_the_loop() -> None:
    async def main() -> bytes:
        cache = IdempotencyCache()
        lease = cache.begin("k")
        assert isinstance(lease, Lease)
        task = asyncio.ensure_future(cache.get_or_execute_async("k", constant(b"never")))
        await joined(cache, 1)
        await asyncio.get_running_loop().run_in_executor(None, lease.complete, b"from a thread")
        return await task

    assert asyncio.run(main()) == b"from a thread"


def test_the_parts_of_a_run_one_by_one() -> None:
    cache = IdempotencyCache()

    async def main() -> None:
        async with await cache.begin_async("k", fingerprint="f") as lease:
            assert isinstance(lease, Lease)
            assert await lease.renew_async()
            ticket = await cache.join_async("k", fingerprint="f")
            assert isinstance(ticket, Ticket)
            with pytest.raises(WaitTimeout):
                await ticket.wait_async(0.01)
            waiting = asyncio.ensure_future(ticket.wait_async(60))
            await asyncio.sleep(0)
            await lease.complete_async(b"result")
            result = await waiting
            assert bytes(result) == b"result"
            assert await cache.state_async("k") is KeyState.SUCCESS
        async with await cache.begin_async("left") as lease:
            assert isinstance(lease, Lease)
        again = await cache.begin_async("left")
        assert isinstance(again, Lease)
        assert again.outcome_unknown
        await again.fail_async()
        # That an earlier run may have had effects is still known.
        assert await cache.state_async("left") is KeyState.PENDING

    asyncio.run(main())
