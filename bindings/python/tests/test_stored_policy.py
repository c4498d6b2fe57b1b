# SPDX-License-Identifier: Apache-2.0
"""A policy whose parts are in a store, against a real Redis server: two stores are two processes."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import autoglm_reliability as agr
from helpers import eventually, unique
from redis_server import RedisServer
from stored import HOUR, cache_in, limiter_in


def policy_in(store: agr.Store, **options: Any) -> agr.Policy:
    breaker = agr.CircuitBreaker(
        scope=store, name="upstream", window=agr.Window.NONE, consecutive_failures=2, open=HOUR, open_max=HOUR
    )
    parts = {"idempotency": cache_in(store), "breaker": breaker, "limiters": [limiter_in(store)]}
    return agr.Policy(**parts, total_timeout=30, **options)


@pytest.fixture
def policies(redis: RedisServer) -> Any:
    prefix = unique()
    with redis.store(prefix=prefix) as one, redis.store(prefix=prefix) as two:
        yield policy_in(one), policy_in(two)


def test_a_key_is_executed_once_by_all(policies: tuple[agr.Policy, agr.Policy]) -> None:
    one, two = policies
    executed: list[bytes] = []

    def work(_: agr.Attempt) -> bytes:
        executed.append(b"answer")
        return b"answer"

    async def work_async(attempt: agr.Attempt) -> bytes:
        return work(attempt)

    async def main() -> list[bytes]:
        return list(await asyncio.gather(*(two.execute_async(work_async, key="k") for _ in range(3))))

    assert one.execute(work, key="k") == b"answer"
    assert two.execute(work, key="k") == b"answer"
    assert asyncio.run(main()) == [b"answer"] * 3
    assert executed == [b"answer"]


def test_another_processs_run_is_joined(policies: tuple[agr.Policy, agr.Policy]) -> None:
    one, two = policies
    seen: list[bytes] = []

    async def never(_: agr.Attempt) -> bytes:
        raise AssertionError("executed twice")

    async def main() -> None:
        async with await one.begin_async(key="k") as call:
            assert call.step.kind is agr.StepKind.ATTEMPT
            task = asyncio.ensure_future(two.execute_async(never, key="k"))
            while two.snapshot().joined == 0:
                await asyncio.sleep(0)
            step = await call.advance_async(agr.AttemptOutcome.success(b"answer"))
            assert step.done
            seen.append(await task)

    asyncio.run(main())
    assert seen == [b"answer"]


def test_a_cancelled_task_gives_back(policies: tuple[agr.Policy, agr.Policy]) -> None:
    one, two = policies
    unknown: list[bool] = []

    async def forever(_: agr.Attempt) -> bytes:
        await asyncio.get_running_loop().create_future()
        return b""

    async def work(attempt: agr.Attempt) -> bytes:
        unknown.append(attempt.step.outcome_unknown)
        return b"answer"

    async def main() -> None:
        task = asyncio.ensure_future(one.execute_async(forever, key="k"))
        while one.snapshot().attempts == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await two.execute_async(work, key="k") == b"answer"

    asyncio.run(main())
    assert unknown == [True]


def test_without_the_store_a_call_is_refused(own_redis: RedisServer) -> None:
    with own_redis.store(timeout=0.05) as store, policy_in(store) as policy:
        own_redis.kill()
        with pytest.raises(agr.StoreError, match="idempotency"):
            policy.execute(lambda _: b"answer", key="k")
        with pytest.raises(agr.StoreError, match="limiter"):
            policy.execute(lambda _: b"answer")


@pytest.mark.parametrize("way", ["begin", "advance", "close"])
def test_other_threads_and_the_loop_go_on_while_a_step_waits(own_redis: RedisServer, way: str) -> None:
    with own_redis.store() as store, policy_in(store) as policy:
        call = policy.begin(key="held")

        def wait() -> None:
            if way == "begin":
                policy.begin(key="k").close()
            elif way == "advance":
                call.advance(agr.AttemptOutcome.success(b"answer"))
            else:
                call.close()

        async def wait_async() -> None:
            if way == "begin":
                await (await policy.begin_async(key="l")).close_async()
            elif way == "advance":
                await call.advance_async(agr.AttemptOutcome.success(b"answer"))
            else:
                await call.close_async()

        thread = threading.Thread(target=wait)
        before = store.snapshot().calls
        own_redis.hold_up()
        thread.start()
        # This thread comes to the next line only when the step does not keep the interpreter to itself.
        eventually(lambda: store.snapshot().calls > before, "the step is under way")
        own_redis.go_on()
        thread.join(60)
        call = policy.begin(key="held again")

        async def main() -> None:
            before = store.snapshot().calls
            own_redis.hold_up()
            task = asyncio.ensure_future(wait_async())
            # And here only when it does not keep the loop.
            while store.snapshot().calls == before:
                await asyncio.sleep(0)
            assert not task.done()
            own_redis.go_on()
            await task

        asyncio.run(main())
        call.close()
        assert store.snapshot().failures == 0
