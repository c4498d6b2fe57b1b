# SPDX-License-Identifier: Apache-2.0
"""The run of a key: one response, which the application writes once and any number of threads read."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Optional

from .._serving.incoming import Headers
from .._serving.recording import Recorded
from .._serving.refusal import Refusal

#: Seconds that a client may hold up a response which is too large to be kept.
LONGEST_STALL = 30.0


class BrokenOff(Exception):
    """The run that this response is of broke off. It tells the server to close the connection."""


class Run:
    """As in ASGI: up to `room` bytes are kept for those who come later; beyond that the run goes as fast as
    the slowest who follows it, and nobody can join it any more."""

    def __init__(self, fingerprint: bytes, room: int) -> None:
        self.fingerprint = fingerprint
        self.status = 0
        self.headers: Headers = []
        self.refusal: Optional[Refusal] = None
        self.error: Optional[Exception] = None
        self.known = self.replayed = self.ended = self.broken = self.overflown = False
        self.size = 0
        self._room = room
        self._base = 0
        self._chunks: list[bytes] = []
        self._followers: dict[object, int] = {}
        self._changed = threading.Condition()

    def load(self, recorded: Recorded) -> None:
        """It was executed before, and this is its response."""
        with self._changed:
            self.status, self.headers = recorded.status, recorded.headers
            self._chunks, self.size = [recorded.body], len(recorded.body)
            self.known = self.replayed = self.ended = True
            self._changed.notify_all()

    def refuse(self, refusal: Refusal) -> None:
        with self._changed:
            self.refusal, self.known = refusal, True
            self._changed.notify_all()

    def execute(self) -> None:
        with self._changed:
            self.known = True
            self._changed.notify_all()

    def wait_known(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.known)

    def start(self, status: int, headers: Headers) -> None:
        with self._changed:
            self.status, self.headers = status, headers
            self._changed.notify_all()

    def write(self, data: bytes) -> None:
        """And waits for those who follow, if it cannot be kept for them. Who takes nothing for too long is
        left behind."""
        with self._changed:
            self._chunks.append(data)
            self.size += len(data)
            self.overflown = self.overflown or self.size > self._room
            self._changed.notify_all()
            while self.overflown and any(place < self.size for place in self._followers.values()):
                least = min(self._followers.values())
                if not self._changed.wait(LONGEST_STALL):
                    for who in [who for who, place in self._followers.items() if place <= least]:
                        del self._followers[who]
            if self.overflown:
                self._base, self._chunks = self.size, []

    def recorded(self) -> Optional[Recorded]:
        """The whole of it; None: it is too large to be kept."""
        if self.overflown:
            return None
        return Recorded(self.status, self.headers, b"".join(self._chunks))

    def end(self) -> None:
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def breaks(self, error: Optional[Exception] = None) -> None:
        """It ends here, and not as it should. The first time counts."""
        with self._changed:
            if not self.ended and not self.broken:
                self.broken, self.known, self.error = True, True, error
                self._changed.notify_all()

    @property
    def followed_by(self) -> int:
        return len(self._followers)

    def attach(self) -> Optional[object]:
        """A place at the start of the response; None: it is too large, and its start is gone."""
        with self._changed:
            if self._base > 0 or (self.overflown and not self.ended):
                return None
            me = object()
            self._followers[me] = 0
            return me

    def detach(self, me: object) -> None:
        with self._changed:
            self._followers.pop(me, None)
            self._changed.notify_all()

    def started(self) -> bool:
        """When it has, or when it is known that it never will."""
        with self._changed:
            self._changed.wait_for(lambda: self.status or self.refusal is not None or self.broken)
            return bool(self.status)

    def parts(self, me: object) -> Iterator[bytes]:
        """All that comes after what was taken, to the end; BrokenOff when it does not come to its end."""
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._followers.get(me, -1) < self.size or self.ended or self.broken
                )
                place = self._followers.get(me)
                if place is None:
                    raise BrokenOff
                data = self._after(place)
                if not data:
                    if self.ended:
                        return
                    raise BrokenOff
            yield data
            with self._changed:
                if me in self._followers:
                    self._followers[me] = place + len(data)
                    self._changed.notify_all()

    def _after(self, place: int) -> bytes:
        missing, parts = self.size - place, []
        for chunk in reversed(self._chunks):  # who follows lacks the last few
            if missing <= 0:
                break
            parts.append(chunk if len(chunk) <= missing else chunk[len(chunk) - missing :])
            missing -= len(chunk)
        return b"".join(reversed(parts))
