# SPDX-License-Identifier: Apache-2.0
"""Admission by concurrency and by a line, among threads."""

from __future__ import annotations

import math
import threading
from typing import Optional

from .._serving.incoming import Incoming
from .._serving.line import Admission, Line
from .._serving.refusal import CALLER_GAVE_UP, Refusal, overloaded


class _Turn:
    __slots__ = ("come", "event")

    def __init__(self) -> None:
        self.event = threading.Event()
        self.come = False


class Gate:
    """Counted slots. A slot that is left goes to whoever is next in the line."""

    def __init__(self, settings: Admission) -> None:
        self.settings = settings
        self._lock = threading.Lock()
        self._free = settings.concurrency
        self._line = Line(settings.queue)
        self._refusal = overloaded(settings.retry_after)

    @property
    def free(self) -> int:
        return self._free

    @property
    def waiting(self) -> int:
        return len(self._line)

    def enter(self, request: Incoming, longest: float) -> Optional[Refusal]:
        """None: a slot is the caller's."""
        settings = self.settings
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
        priority = settings.priority(request) if settings.priority is not None else 0
        turn = _Turn()
        with self._lock:
            if self._free > 0:
                self._free -= 1
                return None
            place, displaced = self._line.join(priority, turn)
        if displaced is not None:
            displaced.event.set()
        if place is None:
            return self._refusal
        timeout = min(settings.queue_timeout, longest, threading.TIMEOUT_MAX)
        try:
            turn.event.wait(timeout)
        except BaseException:
            self._withdraw(place, turn)
            raise
        with self._lock:
            if turn.come:
                return None
            left = self._line.leave(place)
        return CALLER_GAVE_UP if left and longest <= timeout and longest != math.inf else self._refusal

    def _withdraw(self, place: tuple[int, int, _Turn], turn: _Turn) -> None:
        with self._lock:
            self._line.leave(place)
            come = turn.come
        if come:
            self.leave()

    def leave(self) -> None:
        with self._lock:
            turn: Optional[_Turn] = self._line.next()
            if turn is None:
                self._free += 1
                return
            turn.come = True
        turn.event.set()


class Slot:
    """A slot that is left once, by whoever ends the request's work."""

    __slots__ = ("_gates",)

    def __init__(self, gate: Optional[Gate]) -> None:
        self._gates = [] if gate is None else [gate]

    def leave(self) -> None:
        try:
            gate = self._gates.pop()
        except IndexError:
            return
        gate.leave()

    def passed_on(self) -> Slot:
        """The same slot, for somebody else to leave."""
        other = Slot(None)
        other._gates, self._gates = self._gates, []
        return other
