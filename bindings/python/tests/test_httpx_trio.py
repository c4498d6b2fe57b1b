# SPDX-License-Identifier: Apache-2.0
"""The transport for httpx.AsyncClient in the event loop of trio, which httpx runs in as well."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
import trio

from autoglm_reliability import IdempotencyCache, Policy, SQLiteStore
from autoglm_reliability.httpx import AsyncReliableTransport
from autoglm_reliability.testing import ManualClock
from calling import quick
from scripted_http import Reply, ScriptedServer, answer, chunked, document, reset, silent, trickle


def test_a_passing_failure_is_repeated(clock: ManualClock) -> None:
    async def ask(url: str) -> httpx.Response:
        transport = AsyncReliableTransport(policy=quick(clock))
        async with httpx.AsyncClient(transport=transport, timeout=10) as client:
            return await client.post(url, json={"prompt": "hi"})

    with ScriptedServer(answer(503), reset(), document({"a": 1})) as server:
        response = trio.run(ask, server.url)
    assert response.json() == {"a": 1}
    assert [received.headers["agr-attempt"] for received in server.received] == ["1", "2", "3"]


@pytest.mark.parametrize("reply", [silent, trickle(b"x")])
def test_an_attempt_ends_when_its_time_is_over(reply: Reply) -> None:
    async def ask(url: str) -> None:
        transport = AsyncReliableTransport(policy=lambda _: Policy(attempt_timeout=0.05))
        async with httpx.AsyncClient(transport=transport, timeout=10) as client:
            with trio.fail_after(20), pytest.raises(httpx.ReadTimeout, match="the whole of the attempt"):
                await client.get(url)

    with ScriptedServer(reply) as server:
        trio.run(ask, server.url)


def test_a_stream_is_one_call_from_its_first_byte_to_its_last() -> None:
    async def ask(url: str) -> list[bytes]:
        transport = AsyncReliableTransport()
        async with httpx.AsyncClient(transport=transport, timeout=10) as client:
            async with client.stream("GET", url) as response:
                alive = transport.policy(url).snapshot().calls_alive
                parts = [part async for part in response.aiter_raw()]
            after = transport.policy(url).snapshot()
        assert (alive, after.calls_alive, after.succeeded) == (1, 0, 1)
        return parts

    with ScriptedServer(chunked(b"one ", b"two")) as server:
        assert b"".join(trio.run(ask, server.url)) == b"one two"


def test_who_is_cancelled_leaves_nothing_behind() -> None:
    async def ask(url: str) -> None:
        transport = AsyncReliableTransport()
        async with httpx.AsyncClient(transport=transport, timeout=10) as client:
            with trio.move_on_after(0.05) as scope:
                await client.get(url)
            assert scope.cancelled_caught
            assert transport.policy(url).snapshot().calls_alive == 0

    with ScriptedServer(silent) as server:
        trio.run(ask, server.url)


def test_a_policy_with_a_part_in_a_store_says_that_it_needs_asyncio(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path / "a.db")
    policy = Policy(idempotency=IdempotencyCache(scope=store, name="a"))

    async def ask(url: str) -> None:
        async with httpx.AsyncClient(transport=AsyncReliableTransport(policy=policy)) as client:
            with pytest.raises(RuntimeError, match="asyncio"):
                await client.get(url)

    with ScriptedServer(answer()) as server:
        trio.run(ask, server.url)
    assert server.received == []
    policy.close()
    store.close()
