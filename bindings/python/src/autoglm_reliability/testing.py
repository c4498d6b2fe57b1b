# SPDX-License-Identifier: Apache-2.0
"""A clock for tests, which stands still until it is told to move."""

from __future__ import annotations

import threading

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
