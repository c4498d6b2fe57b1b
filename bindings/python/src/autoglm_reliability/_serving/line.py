# SPDX-License-Identifier: Apache-2.0
"""Who is served next when a server is full: a bounded line, by priority and then by arrival."""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any, Callable, Optional

from ..errors import ArgumentError
from .incoming import Incoming


class Admission:
    """
    concurrency    requests that are served at a time, by each process.
    queue          that may wait for their turn; 0: none.
    queue_timeout  seconds that they may wait.
    priority       a function of the request, before its body is read: who has the highest is next, and who
                   has the lowest gives way when the line is full. By default all are equal.
    retry_after    seconds, that a 503 says.
    """

    def __init__(
        self,
        concurrency: int,
        queue: int = 0,
        queue_timeout: float = 5,
        *,
        priority: Optional[Callable[[Incoming], int]] = None,
        retry_after: float = 1,
    ) -> None:
        for name, value, least in (("concurrency", concurrency, 1), ("queue", queue, 0)):
            if not isinstance(value, int) or value < least:
                raise ArgumentError(f"{name} must be a whole number of at least {least}", name)
        if not queue_timeout >= 0:
            raise ArgumentError("queue_timeout must not be negative", "queue_timeout")
        self.concurrency, self.queue, self.queue_timeout = concurrency, queue, queue_timeout
        self.priority = priority
        self.retry_after = retry_after


class Line:
    """The line itself. A place is (priority, -arrival, who), and the last one is next."""

    __slots__ = ("_arrivals", "_places", "_room")

    def __init__(self, room: int) -> None:
        self._room = room
        self._places: list[tuple[int, int, Any]] = []
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._places)

    def join(self, priority: int, who: Any) -> tuple[Optional[tuple[int, int, Any]], Any]:
        """The place, or None when there is none; and whoever had to give way to it, or None."""
        displaced = None
        if len(self._places) >= self._room:
            if not self._places or self._places[0][0] >= priority:
                return None, None
            displaced = self._places.pop(0)[2]
        self._arrivals += 1
        place = (priority, -self._arrivals, who)
        insort(self._places, place)
        return place, displaced

    def leave(self, place: tuple[int, int, Any]) -> bool:
        """False when it was no longer there."""
        # No two places have the same arrival, so `who` is never compared.
        index = bisect_left(self._places, place)
        if index == len(self._places) or self._places[index][1] != place[1]:
            return False
        del self._places[index]
        return True

    def next(self) -> Any:
        """Whose turn it is; None: nobody waits."""
        return self._places.pop()[2] if self._places else None
