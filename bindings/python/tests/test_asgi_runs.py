# SPDX-License-Identifier: Apache-2.0
"""What a run of a key survives of what servers do, driven message by message."""

from __future__ import annotations

import asyncio
from typing import Any

import autoglm_reliability as agr
from autoglm_reliability.asgi import Admission, Idempotency, ReliabilityMiddleware


def test_a_server_that_cancels_a_request_ends_neither_the_run_nor_its_slot() -> None:
    """Some do when the client has gone; uvicorn does not."""
    cache = agr.IdempotencyCache()
    sent: list[Any] = []

    async def go() -> None:
        begun, on = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            begun.set()
            await on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"all"})

        async def send(message: Any) -> None:
            sent.append(message)

        middleware = ReliabilityMiddleware(app, idempotency=Idempotency(cache), admission=Admission(1))
        gate, keyed = middleware._gate, middleware._keyed
        assert gate is not None
        assert keyed is not None
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"idempotency-key", b"k")]}
        first = asyncio.ensure_future(middleware(scope, asyncio.Event().wait, send))
        await begun.wait()
        first.cancel()
        await asyncio.wait([first])
        assert first.cancelled()
        assert (gate.free, keyed.running) == (0, 1)
        on.set()
        await keyed.drained(30)
        assert (gate.free, keyed.running) == (1, 0)
        await middleware(scope, asyncio.Event().wait, send)

    asyncio.run(go())
    assert [message.get("body") for message in sent] == [None, b"all"]
    assert sent[0]["headers"] == [(b"idempotency-replayed", b"true")]


def test_a_shutdown_waits_for_runs_that_no_client_waits_for() -> None:
    """uvicorn waits for requests, and these have none any more."""
    order: list[str] = []

    async def go() -> None:
        begun, on = asyncio.Event(), asyncio.Event()

        async def app(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                order.append((await receive())["type"])
                return
            begun.set()
            await on.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"all"})
            order.append("run")

        async def send(message: Any) -> None:
            raise AssertionError(message)

        async def shutdown() -> Any:
            return {"type": "lifespan.shutdown"}

        middleware = ReliabilityMiddleware(app, idempotency=Idempotency(agr.IdempotencyCache()))
        scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"idempotency-key", b"k")]}
        request = asyncio.ensure_future(middleware(scope, asyncio.Event().wait, send))
        await begun.wait()
        request.cancel()
        await asyncio.wait([request])
        lifespan = asyncio.ensure_future(middleware({"type": "lifespan"}, shutdown, send))
        for _ in range(10):
            await asyncio.sleep(0)
        on.set()
        await lifespan

    asyncio.run(go())
    assert order == ["run", "lifespan.shutdown"]
