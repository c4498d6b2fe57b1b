# SPDX-License-Identifier: Apache-2.0
"""The shapes of ASGI."""

from __future__ import annotations

from collections.abc import Awaitable, MutableMapping
from typing import Any, Callable

from .._serving.incoming import Incoming
from .._serving.refusal import Refusal

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

START = "http.response.start"
BODY = "http.response.body"
DISCONNECT = "http.disconnect"
# Ways to send a body that does not pass by here.
FILES = frozenset(["http.response.pathsend", "http.response.zerocopysend"])


async def answer(send: Send, refusal: Refusal) -> None:
    await send({"type": START, "status": refusal.status, "headers": list(refusal.headers)})
    await send({"type": BODY, "body": refusal.body})


def incoming(scope: Scope) -> Incoming:
    client = scope.get("client")
    return Incoming(
        scope["method"],
        scope["path"],
        scope.get("query_string", b""),
        scope["headers"],
        client[0] if client else "",
    )
