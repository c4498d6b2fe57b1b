# SPDX-License-Identifier: Apache-2.0
"""For tests: a clock that stands still until it is told to move, and waits that take no time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from . import _handle
from ._convert import Duration, nanoseconds


class ManualClock:
    """Give it as `clock=` to every object of a test. Waits of these objects move it and return."""

    def __init__(self, start: Duration = 1_000) -> None:
        self._now = nanoseconds(start, "start")
        self._lock = threading.Lock()
        self.slept: list[float] = []

    def __call__(self) -> int:
        return self._now

    def advance(self, duration: Duration) -> None:
        with self._lock:
            self._now += nanoseconds(duration, "duration")

    def sleep(self, duration: float) -> None:
        """What a wait does: the clock moves, and the duration is noted in `slept`."""
        self.slept.append(duration)
        self.advance(duration)


@contextmanager
def virtual_time(start: Duration = 1_000) -> Iterator[ManualClock]:
    """Within it every object of this process that is made without a clock, and not in a region or store,
    lives by the ManualClock that this gives: the policies too which a transport makes for itself. Their waits
    move the clock and return. What the operating system waits for, such as a socket, takes its time.

        with virtual_time() as clock:
            client = httpx.Client(transport=ReliableTransport())
            ...  # three attempts and the waits between them, in no time
            clock.advance(60)
    """
    clock, before = ManualClock(start), _handle.default_clock
    _handle.default_clock = clock
    try:
        yield clock
    finally:
        _handle.default_clock = before
