# SPDX-License-Identifier: Apache-2.0
"""The run of a key: one response, which the application writes once and any number of clients read."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Optional

from .._serving.incoming import Headers
from .._serving.recording import REPLAYED, Recorded, of_the_response
from .._serving.refusal import NOT_REPLAYABLE, RUN_BROKE, Refusal
from ._types import BODY, START, Message, Send, answer

#: Seconds that a client may hold up a response which is too large to be kept.
LONGEST_STALL = 30.0


class Run:
    """Up to `room` bytes of the body are kept, and who comes later gets them from the start. Beyond that the
    run goes as fast as the slowest who follows it, and nobody can join it any more."""

    __slots__ = (
        "_base",
        "_chunks",
        "_followers",
        "_room",
        "_wakers",
        "broken",
        "ended",
        "error",
        "fingerprint",
        "headers",
        "known",
        "led",
        "overflown",
        "refusal",
        "replayed",
        "size",
        "status",
    )

    def __init__(self, fingerprint: bytes, room: int) -> None:
        self.fingerprint = fingerprint
        self.status = 0
        self.headers: Headers = []
        self.refusal: Optional[Refusal] = None
        self.error: Optional[Exception] = None
        #: whether it is known who executes it
        self.known = False
        #: whether the request that began it waits for its response
        self.led = False
        self.replayed = self.ended = self.broken = self.overflown = False
        self.size = 0
        self._room = room
        self._base = 0
        self._chunks: list[bytes] = []
        self._followers: dict[object, int] = {}
        self._wakers: list[asyncio.Future[None]] = []

    def tell(self) -> None:
        """Wakes all who wait for something to change."""
        wakers, self._wakers = self._wakers, []
        for waker in wakers:
            if not waker.done():
                waker.set_result(None)

    def changed(self) -> asyncio.Future[None]:
        """To be awaited. It counts from now on: what changes before it is awaited is not missed."""
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._wakers.append(waker)
        return waker

    def load(self, recorded: Recorded) -> None:
        """It was executed before, and this is its response."""
        self.status, self.headers = recorded.status, recorded.headers
        self._chunks, self.size = [recorded.body], len(recorded.body)
        self.known = self.replayed = self.ended = True
        self.tell()

    def refuse(self, refusal: Refusal) -> None:
        self.refusal, self.known = refusal, True
        self.tell()

    def execute(self) -> None:
        self.known = True
        self.tell()

    def start(self, message: Message) -> None:
        self.status, self.headers = message["status"], list(message.get("headers", ()))
        self.tell()

    def recorded(self) -> Optional[Recorded]:
        """The whole of it; None: it is too large to be kept."""
        if self.overflown:
            return None
        return Recorded(self.status, self.headers, b"".join(self._chunks))

    def write(self, data: bytes) -> None:
        if data:
            self._chunks.append(data)
            self.size += len(data)
            self.overflown = self.overflown or self.size > self._room
            self.tell()

    async def caught_up(self) -> None:
        """Until those who follow have all that there is, if it cannot be kept for them. Who takes nothing for
        too long is left behind."""
        while self.overflown and any(place < self.size for place in self._followers.values()):
            least = min(self._followers.values())
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self.changed(), LONGEST_STALL)
                continue
            behind = [who for who, place in self._followers.items() if place <= least]
            for who in behind:
                del self._followers[who]
        if self.overflown:
            self._base, self._chunks = self.size, []

    def end(self) -> None:
        self.ended = True
        self.tell()

    def breaks(self, error: Optional[Exception] = None) -> None:
        """It ends here, and not as it should. The first time counts."""
        if not self.ended and not self.broken:
            self.broken, self.known, self.error = True, True, error
            self.tell()

    @property
    def followed_by(self) -> int:
        return len(self._followers)

    async def follow(self, send: Send, first: bool) -> None:
        """Sends all of it, from the start to the end. When it breaks off this returns without the end, so
        that the server closes the connection, and nobody takes it for a whole response."""
        if self._base > 0 or (self.overflown and not self.ended):
            return await answer(send, NOT_REPLAYABLE)
        me = object()
        self._followers[me] = 0
        self.led = self.led or first
        try:
            while not self.status:
                if self.refusal is not None or self.broken:
                    return await self._without(send, first)
                await self.changed()
            headers = list(self.headers)
            if self.replayed or not first:
                headers = [*of_the_response(headers), REPLAYED]
            await send({"type": START, "status": self.status, "headers": headers})
            await self._stream(me, send)
        finally:
            self._followers.pop(me, None)
            self.led = self.led and not first
            self.tell()
        return None

    async def _stream(self, me: object, send: Send) -> None:
        while me in self._followers:
            place = self._followers[me]
            if place < self.size or self.ended:
                data, over = self._after(place), self.ended
                await send({"type": BODY, "body": data, "more_body": not over})
                if over or me not in self._followers:
                    return
                self._followers[me] = place + len(data)
                if self.overflown:
                    self.tell()
            elif self.broken:
                return
            else:
                await self.changed()

    def _after(self, place: int) -> bytes:
        if place == self._base:
            return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        missing, parts = self.size - place, []
        for chunk in reversed(self._chunks):  # who follows lacks the last few
            if missing <= 0:
                break
            parts.append(chunk if len(chunk) <= missing else chunk[len(chunk) - missing :])
            missing -= len(chunk)
        return b"".join(reversed(parts))

    async def _without(self, send: Send, first: bool) -> None:
        if self.refusal is None and first and self.error is not None:
            raise self.error
        await answer(send, self.refusal or RUN_BROKE)
