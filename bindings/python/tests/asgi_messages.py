# SPDX-License-Identifier: Apache-2.0
"""Requests to an ASGI application without a server, message by message."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import autoglm_reliability as agr
from autoglm_reliability.asgi import Idempotency, ReliabilityMiddleware

KEY = (b"idempotency-key", b"k")
Headers = list[tuple[bytes, bytes]]
App = Callable[[Any, Any, Any], Awaitable[None]]


class Told:
    """What a client gets."""

    def __init__(self, messages: list[Any]) -> None:
        starts = [message for message in messages if message["type"] == "http.response.start"]
        bodies = [message for message in messages if message["type"] == "http.response.body"]
        self.status: int = starts[0]["status"] if starts else 0
        self.headers: Headers = list(starts[0]["headers"]) if starts else []
        self.body = b"".join(message.get("body", b"") for message in bodies)
        self.whole = bool(bodies) and not bodies[-1].get("more_body", False)
        assert len(starts) <= 1

    @property
    def code(self) -> str:
        return str(json.loads(self.body)["error"]["code"])


async def request(
    app: App, headers: Headers, parts: tuple[bytes, ...] = (), client: str = "10.0.0.1", version: str = "1.1"
) -> Told:
    scope = {
        "type": "http", "method": "POST", "path": "/pay", "query_string": b"", "headers": headers,
        "client": (client, 1), "http_version": version,
    }  # fmt: skip
    left = list(parts) or [b""]
    sent: list[Any] = []

    async def receive() -> Any:
        if left:
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
        return await asyncio.get_running_loop().create_future()

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return Told(sent)


class Echo:
    """Answers with the body, and who asked for it."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body, more = body + message["body"], message["more_body"]
        self.bodies.append(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"%d:%s" % (len(self.bodies), body)})


def keyed(app: App, **options: Any) -> ReliabilityMiddleware:
    return ReliabilityMiddleware(app, idempotency=Idempotency(agr.IdempotencyCache(), **options))
