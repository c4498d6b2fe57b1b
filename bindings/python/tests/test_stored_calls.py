# SPDX-License-Identifier: Apache-2.0
"""The transports for asyncio with a policy whose parts are in a store: whatever a call waits for there, the
event loop does not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any, Callable

import httpx
import pytest

import autoglm_reliability as agr
from autoglm_reliability import _ffi
from autoglm_reliability.httpx import AsyncReliableTransport
from redis_server import RedisServer
from scripted_http import ScriptedServer, answer, chunked, document
from stored import limiter_in

Way = Callable[[httpx.AsyncClient, str], Awaitable[Any]]


async def plain(client: httpx.AsyncClient, url: str) -> int:
    return (await client.get(url)).status_code


async def stream(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as response:
        return b"".join([part async for part in response.aiter_raw()])


async def leave(client: httpx.AsyncClient, url: str) -> bytes:
    async with client.stream("GET", url) as response:
        async for part in response.aiter_raw():
            return bytes(part)
    return b""


def policy_in(store: agr.Store) -> agr.Policy:
    retry = agr.Retry(agr.Backoff(max_attempts=3, base_delay=0.0001, jitter=agr.Jitter.NONE))
    return agr.Policy(retry=retry, limiters=[limiter_in(store)], total_timeout=60)


@pytest.mark.parametrize(
    ("way", "replies", "result", "spent"),
    [
        (plain, (document({}),), 200, 1),
        (plain, (answer(503), answer(503), document({})), 200, 3),
        (plain, (answer(400),), 400, 1),
        (plain, (answer(503),), 503, 3),
        (stream, (chunked(b"a"),), b"a", 1),
        (leave, (chunked(b"a", b"b"),), b"a", None),
    ],
)
def test_no_step_of_a_call_waits_for_the_store_in_the_loops_thread(
    own_redis: RedisServer,
    monkeypatch: pytest.MonkeyPatch,
    way: Way,
    replies: Any,
    result: object,
    spent: Any,
) -> None:
    waiting, asked = _ffi.lib.waiting, list[tuple[str, bool]]()

    def noted(name: str) -> Any:
        asked.append((name, threading.current_thread() is threading.main_thread()))
        return waiting(name)

    async def main() -> None:
        with own_redis.store() as store, policy_in(store) as policy:
            async with httpx.AsyncClient(transport=AsyncReliableTransport(policy=policy)) as client:
                monkeypatch.setattr(_ffi.lib, "waiting", noted)
                assert await way(client, server.url) == result
                monkeypatch.undo()
            if spent is not None:
                assert policy.snapshot().attempts == spent

    with ScriptedServer(*replies) as server:
        asyncio.run(main())
    steps = [(name, in_loop) for name, in_loop in asked if name.startswith("agr_call_")]
    assert {"agr_call_begin", "agr_call_destroy"} <= {name for name, _ in steps}
    assert not any(in_loop for _, in_loop in steps), steps


@pytest.mark.parametrize("at", ["begin", "end"])
def test_the_loop_goes_on_while_the_store_is_held_up(own_redis: RedisServer, at: str) -> None:
    seen = asyncio.Event()

    async def main() -> None:
        with own_redis.store() as store, policy_in(store) as policy:
            async with httpx.AsyncClient(transport=AsyncReliableTransport(policy=policy)) as client:

                async def request() -> None:
                    async with client.stream("GET", server.url) as response:
                        async for _ in response.aiter_raw():
                            seen.set()
                            await go_on.wait()

                go_on = asyncio.Event()
                if at == "begin":
                    go_on.set()
                    own_redis.hold_up()
                before = store.snapshot().calls
                task = asyncio.ensure_future(request())
                if at == "end":
                    await seen.wait()
                    own_redis.hold_up()
                    before = store.snapshot().calls
                    task.cancel()
                # Only a loop that is not held up comes to the next lines.
                while store.snapshot().calls == before:
                    await asyncio.sleep(0)
                assert not task.done()
                own_redis.go_on()
                await asyncio.wait([task])
                assert task.cancelled() == (at == "end")
            assert store.snapshot().failures == 0

    with ScriptedServer(chunked(b"a")) as server:
        asyncio.run(main())


def test_a_call_that_is_cancelled_while_it_waits_for_the_store_holds_nothing(own_redis: RedisServer) -> None:
    async def main() -> None:
        with own_redis.store() as store, policy_in(store) as policy:
            async with httpx.AsyncClient(transport=AsyncReliableTransport(policy=policy)) as client:
                before = store.snapshot().calls
                own_redis.hold_up()
                task = asyncio.ensure_future(client.get(server.url))
                while store.snapshot().calls == before:
                    await asyncio.sleep(0)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
                own_redis.go_on()
                while policy.snapshot().abandoned == 0:
                    await asyncio.sleep(0)
                assert (await client.get(server.url)).status_code == 200

    with ScriptedServer(document({})) as server:
        asyncio.run(main())
        assert len(server.received) == 1
