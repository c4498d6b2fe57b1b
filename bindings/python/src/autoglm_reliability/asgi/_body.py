# SPDX-License-Identifier: Apache-2.0
"""Request bodies: never larger, and never slower, than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any, Optional, Union

from .._serving.refusal import BODY_TOO_LARGE, BODY_TOO_SLOW, Refusal
from ._types import BODY, DISCONNECT, START, Message, Receive, Send, answer


class Inbox:
    """What the client sends. It can be watched while a request waits, and what came meanwhile is not lost."""

    __slots__ = ("_early", "_held", "_pending", "_receive")

    # Of a body, while its request waits to be served. The rest stays with the server and the client.
    MOST_EARLY = 1 << 16

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._early: list[Message] = []
        self._held = 0
        self._pending: Optional[asyncio.Future[Message]] = None

    async def next(self) -> Message:
        if self._early:
            return self._early.pop(0)
        if self._pending is not None:
            pending, self._pending = self._pending, None
            return await pending
        return await self._receive()

    async def gone(self) -> None:
        """Returns when the client has gone. May be cancelled at any time."""
        while self._held <= self.MOST_EARLY:
            if self._pending is None:
                self._pending = asyncio.ensure_future(self._receive())
            message = await asyncio.shield(self._pending)
            self._pending = None
            self._early.append(message)
            self._held += len(message.get("body", b"")) + 1
            if message["type"] == DISCONNECT:
                return
        await asyncio.get_running_loop().create_future()

    def close(self) -> None:
        if self._pending is not None:
            self._pending.cancel()


class TooSlow(Exception):
    """Nothing came for too long."""


class _Rest:
    """What is left of an awaitable that has begun, and that waits for `waited`."""

    __slots__ = ("_begun", "_waited")

    def __init__(self, begun: Any, waited: Any) -> None:
        self._begun, self._waited = begun, waited

    def __await__(self) -> Generator[Any, Any, Message]:
        waited = self._waited
        while True:
            try:
                try:
                    value = yield waited
                except BaseException as error:
                    waited = self._begun.throw(error)
                else:
                    waited = self._begun.send(value)
            except StopIteration as done:
                message: Message = done.value
                return message


async def within(receive: Receive, seconds: float) -> Message:
    """The next message, or TooSlow. What is there already needs no timer."""
    begun = receive().__await__()
    try:
        waited = next(begun)
    except StopIteration as done:
        message: Message = done.value
        return message
    task, late = asyncio.current_task(), False
    assert task is not None

    def give_up() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await _Rest(begun, waited)
    except asyncio.CancelledError:
        # Another cancellation may have come as well, and is then not lost (as in asyncio.timeout).
        if not late or (hasattr(task, "uncancel") and task.uncancel() > 0):
            raise
        raise TooSlow from None
    finally:
        timer.cancel()


class Bounds:
    """largest: bytes; longest: seconds for all of a body; idle: seconds between its parts."""

    __slots__ = ("idle", "largest", "longest")

    def __init__(self, largest: int, longest: float, idle: float) -> None:
        self.largest, self.longest, self.idle = largest, longest, idle


class Guard:
    """The receive of a request whose body the application reads by itself. When the body is too large or too
    slow the client is told so, and for the application it has gone."""

    __slots__ = ("_bounds", "_deadline", "_over", "_receive", "_send", "_size", "_started", "_whole")

    def __init__(self, bounds: Bounds, receive: Receive, send: Send) -> None:
        self._bounds, self._receive, self._send = bounds, receive, send
        self._deadline = asyncio.get_running_loop().time() + bounds.longest
        self._size = 0
        self._started = self._over = self._whole = False

    async def receive(self) -> Message:
        if self._whole:
            return await self._receive()
        if not self._over:
            left = min(self._bounds.idle, self._deadline - asyncio.get_running_loop().time())
            try:
                message = await within(self._receive, max(0.0, left))
            except TooSlow:
                return await self._refuse(BODY_TOO_SLOW)
            self._size += len(message.get("body", b""))
            if self._size > self._bounds.largest:
                return await self._refuse(BODY_TOO_LARGE)
            self._whole = not message.get("more_body", False)
            return message
        return {"type": DISCONNECT}

    async def send(self, message: Message) -> None:
        if not self._over:
            self._started = self._started or message["type"] == START
            await self._send(message)

    async def _refuse(self, refusal: Refusal) -> Message:
        self._over = True
        if not self._started:
            await answer(self._send, refusal)
        return {"type": DISCONNECT}


async def read_body(receive: Receive, bounds: Bounds) -> Union[bytes, Refusal, None]:
    """All of it; or why not; None: the client has gone."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bounds.longest
    parts: list[bytes] = []
    size = 0
    while True:
        try:
            message = await within(receive, max(0.0, min(bounds.idle, deadline - loop.time())))
        except TooSlow:
            return BODY_TOO_SLOW
        if message["type"] == DISCONNECT:
            return None
        part = message.get("body", b"")
        size += len(part)
        if size > bounds.largest:
            return BODY_TOO_LARGE
        if part:
            parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)  # of one alone that is no copy


def again(body: bytes, then: Receive) -> Receive:
    """A receive which gives the body that was read, and then what `then` gives."""
    given = False

    async def receive() -> Message:
        nonlocal given
        if given:
            return await then()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


__all__ = ["BODY", "Bounds", "Guard", "Inbox", "again", "read_body"]
