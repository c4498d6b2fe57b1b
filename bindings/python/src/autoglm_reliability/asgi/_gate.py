# SPDX-License-Identifier: Apache-2.0
"""Admission by concurrency and by a line, in an event loop."""

from __future__ import annotations

import asyncio
import math
from typing import Any, Optional

from .._serving.incoming import Incoming
from .._serving.line import Admission, Line
from .._serving.refusal import CALLER_GAVE_UP, Refusal, overloaded
from ._body import Inbox

Turn = asyncio.Future[Any]


class Gate:
    """Counted slots. A slot that is left goes to whoever is next in the line."""

    __slots__ = ("_free", "_line", "_refusal", "settings")

    def __init__(self, settings: Admission) -> None:
        self.settings = settings
        self._free = settings.concurrency
        self._line = Line(settings.queue)
        self._refusal = overloaded(settings.retry_after)

    @property
    def waiting(self) -> int:
        return len(self._line)

    @property
    def free(self) -> int:
        return self._free

    def enter(self) -> bool:
        """At once, or not. While there is a slot nobody waits."""
        if self._free == 0:
            return False
        self._free -= 1
        return True

    def leave(self) -> None:
        while True:
            turn: Optional[Turn] = self._line.next()
            if turn is None:
                self._free += 1
                return
            if not turn.done():
                turn.set_result(True)
                return

    async def wait(self, request: Incoming, inbox: Inbox, longest: float) -> Optional[Refusal]:
        """In the line. None: a slot is the caller's. A client that goes away leaves it."""
        settings, loop = self.settings, asyncio.get_running_loop()
        priority = settings.priority(request) if settings.priority is not None else 0
        turn: Turn = loop.create_future()
        place, displaced = self._line.join(priority, turn)
        if place is None:
            return self._refusal
        if displaced is not None and not displaced.done():
            displaced.set_result(False)
        watch: asyncio.Future[Any] = asyncio.ensure_future(inbox.gone())
        timeout = min(settings.queue_timeout, longest)
        try:
            await asyncio.wait(
                [turn, watch], timeout=None if timeout == math.inf else timeout,
                return_when=asyncio.FIRST_COMPLETED,
            )  # fmt: skip
            if turn.done():
                return None if turn.result() else self._refusal
            self._line.leave(place)
            return CALLER_GAVE_UP if watch.done() or longest <= timeout else self._refusal
        except BaseException:
            # The turn may have come in the same moment, and is then passed on.
            if not self._line.leave(place) and turn.done() and turn.result():
                self.leave()
            raise
        finally:
            watch.cancel()


class Slot:
    """A slot that is left once, by whoever ends the request's work."""

    __slots__ = ("_gate",)

    def __init__(self, gate: Optional[Gate]) -> None:
        self._gate = gate

    def leave(self) -> None:
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.leave()

    def passed_on(self) -> Slot:
        """The same slot, for somebody else to leave."""
        other, self._gate = Slot(self._gate), None
        return other
