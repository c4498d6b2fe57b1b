# SPDX-License-Identifier: Apache-2.0
"""The middleware: what is refused is refused early, and the rest is served."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from typing import Optional

from .._aside import asked, ended
from .._convert import Duration, nanoseconds
from .._serving.idempotency import Idempotency
from .._serving.incoming import Incoming, announced
from .._serving.key import read_key
from .._serving.limits import Held, Limits, RateLimit
from .._serving.line import Admission
from .._serving.refusal import BODY_TOO_LARGE, CALLER_GAVE_UP, KEY_MISSING, Refusal
from ..propagation import NOTHING, Inbound, current_inbound, read_inbound, serving
from ._body import Bounds, Guard, Inbox, again, read_body
from ._gate import Gate, Slot
from ._keyed import Keyed
from ._metered import Metered
from ._types import App, Message, Receive, Scope, Send, answer, incoming


class Asked:
    """What the middleware itself looks for in a request's headers."""

    __slots__ = ("attempt", "has_body", "keys", "length", "timeout")

    def __init__(self, scope: Scope) -> None:
        self.length = 0
        # Later versions than 1.1 need neither header for a body.
        self.has_body = scope.get("http_version", "1.1")[:1] not in "01"
        self.keys: Optional[list[bytes]] = None
        self.timeout: Optional[str] = None
        self.attempt: Optional[str] = None
        for name, value in scope["headers"]:
            if name == b"content-length":
                self.length = announced(value)
                self.has_body = self.length != 0
            elif name == b"transfer-encoding":
                self.has_body = True
            elif name == b"idempotency-key":
                self.keys = [*(self.keys or ()), value]
            elif name == b"agr-timeout-ms":
                self.timeout = value.decode("latin-1")
            elif name == b"agr-attempt":
                self.attempt = value.decode("latin-1")


class ReliabilityMiddleware:
    """Around any ASGI application, in asyncio.

    idempotency        of requests with an Idempotency-Key; see Idempotency.
    limits             of requests and tokens; all are taken together. See RateLimit.
    admission          by concurrency and a line; see Admission.
    max_body_bytes     of a request; a larger one is refused (413) before work begins. 16 MiB.
    body_timeout       seconds that a body may take to arrive (408), 60; body_idle_timeout: between its
                       parts, 10.
    deadline           seconds that a request has, which its caller's own deadline may shorten;
                       `current_inbound().remaining` tells the application.
    drain_timeout      seconds that a shutdown waits for runs whose clients have gone; 30.
    """

    def __init__(
        self,
        app: App,
        *,
        idempotency: Optional[Idempotency] = None,
        limits: Sequence[RateLimit] = (),
        admission: Optional[Admission] = None,
        max_body_bytes: int = 16 << 20,
        body_timeout: Duration = 60,
        body_idle_timeout: Duration = 10,
        deadline: Optional[Duration] = None,
        drain_timeout: Duration = 30,
    ) -> None:
        self.app = app
        longest = nanoseconds(body_timeout, "body_timeout") / 1e9
        idle = nanoseconds(body_idle_timeout, "body_idle_timeout") / 1e9
        self._bounds = Bounds(max_body_bytes, longest, idle)
        self._deadline = None if deadline is None else nanoseconds(deadline, "deadline") / 1e9
        self._drain = nanoseconds(drain_timeout, "drain_timeout") / 1e9
        self._gate = None if admission is None else Gate(admission)
        self._limits = Limits(limits) if limits else None
        self._reads_body = self._limits is not None and self._limits.reads_body
        self._keyed = None if idempotency is None else Keyed(idempotency, self._limited)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan" and self._keyed is not None:
                receive = self._draining(receive, self._keyed)
            return await self.app(scope, receive, send)
        asked_for = Asked(scope)
        inbound = NOTHING
        if asked_for.timeout is not None or asked_for.attempt is not None:
            inbound = read_inbound(asked_for.timeout, asked_for.attempt)
        if self._deadline is not None:
            own = time.monotonic() + self._deadline
            inbound = Inbound(min(inbound.deadline, own), inbound.attempt)
        if inbound is NOTHING:
            return await self._admit(scope, receive, send, asked_for, math.inf)
        with serving(inbound):
            return await self._admit(scope, receive, send, asked_for, inbound.remaining)

    async def _admit(
        self, scope: Scope, receive: Receive, send: Send, asked_for: Asked, longest: float
    ) -> None:
        request = incoming(scope)
        key = self._early(request, asked_for, longest)
        if isinstance(key, Refusal):
            return await answer(send, key)
        gate = self._gate
        if gate is None:
            return await self._read(scope, receive, send, asked_for, request, key, Slot(None))
        inbox = None
        if not gate.enter():
            inbox = Inbox(receive)
            receive = inbox.next
            refusal = await gate.wait(request, inbox, longest)
            if refusal is not None:
                inbox.close()
                return await answer(send, refusal)
        slot = Slot(gate)
        try:
            return await self._read(scope, receive, send, asked_for, request, key, slot)
        finally:
            slot.leave()
            if inbox is not None:
                inbox.close()

    def _early(self, request: Incoming, asked_for: Asked, longest: float) -> bytes | Refusal | None:
        """What can be refused before anything is taken; else the key, if there is one."""
        if longest <= 0:
            return CALLER_GAVE_UP
        if asked_for.length > self._bounds.largest:
            return BODY_TOO_LARGE
        if self._keyed is None or request.method not in self._keyed.settings.methods:
            return None
        if asked_for.keys is not None:
            return read_key(asked_for.keys)
        return KEY_MISSING if self._keyed.settings.required(request) else None

    async def _read(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        asked_for: Asked,
        request: Incoming,
        key: Optional[bytes],
        slot: Slot,
    ) -> None:
        if key is not None or self._reads_body:
            body = await read_body(receive, self._bounds) if asked_for.has_body else b""
            if isinstance(body, Refusal):
                return await answer(send, body)
            if body is None:
                return None
            request.body = body
            if key is not None and self._keyed is not None:
                return await self._keyed(scope, send, request, key, slot)
            if asked_for.has_body:
                receive = again(body, receive)
        elif asked_for.has_body:
            guard = Guard(self._bounds, receive, send)
            receive, send = guard.receive, guard.send
        if self._limits is None and self._gate is None:
            return await self.app(scope, receive, send)
        return await self._limited(scope, receive, send, request, slot)

    async def _limited(
        self, scope: Scope, receive: Receive, send: Send, request: Incoming, slot: Optional[Slot] = None
    ) -> None:
        limits = self._limits
        held = None
        if limits is not None:
            taken = await self._take(limits, request)
            if isinstance(taken, Refusal):
                return await answer(send, taken)
            held = taken
        metered = Metered(send, held, slot, limits is not None and limits.waits)
        try:
            await self.app(scope, receive, metered.send)
        finally:
            await metered.over()

    async def _take(self, limits: Limits, request: Incoming) -> Held | Refusal:
        longest = current_inbound().remaining
        if not limits.waits:
            held = limits.take(request, longest)
        else:
            held = await asked(lambda: limits.take(request, longest), _let_go)
        if isinstance(held, Held) and held.wait > 0:
            try:
                await asyncio.sleep(held.wait)
            except BaseException:
                if limits.waits:
                    await ended(held.cancel)
                else:
                    held.cancel()
                raise
        return held

    def _draining(self, receive: Receive, keyed: Keyed) -> Receive:
        async def later() -> Message:
            message = await receive()
            if message["type"] == "lifespan.shutdown":
                await keyed.drained(self._drain)
            return message

        return later


def _let_go(held: Held | Refusal) -> None:
    if isinstance(held, Held):
        held.cancel()
