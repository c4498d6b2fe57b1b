# SPDX-License-Identifier: Apache-2.0
"""The right to make one call through a breaker."""

from __future__ import annotations

import weakref
from types import TracebackType
from typing import TYPE_CHECKING, Optional

from . import _generated as c
from ._convert import Duration, integer, nanoseconds
from ._ffi import Int32
from .classify import Classify, breaker_outcome
from .enums import Outcome
from .errors import ArgumentError

if TYPE_CHECKING:
    from .breaker import CircuitBreaker


class Permit:
    """To be reported once. As a context manager it reports success, or what `classify` makes of the
    exception. One that is dropped counts as neutral, so that it cannot wedge the breaker."""

    def __init__(self, breaker: CircuitBreaker, number: int, started: int, classify: Classify) -> None:
        self._breaker = breaker
        self._started = started
        self._classify = classify
        # Popping is atomic: of several threads that report, one does.
        self._numbers = [number]
        self._backstop = weakref.finalize(self, _drop, breaker, self._numbers)
        self._backstop.atexit = False

    @property
    def reported(self) -> bool:
        return not self._numbers

    def report(self, outcome: Outcome, latency: Optional[Duration] = None) -> bool:
        """Says how the call ended. False when that changed nothing: it was reported before, it
        expired, or the breaker has changed its state since.

        latency  seconds; by default the time since the permit was given.
        """
        kind = integer(outcome, "outcome", Int32)
        if latency is None:
            took = max(0, self._breaker._now() - self._started)
        else:
            took = nanoseconds(latency, "latency")
        try:
            number = self._numbers.pop()
        except IndexError:
            return False
        try:
            counted = self._breaker._report(number, kind, took) == c.AGR_OK
        except ArgumentError:
            self._numbers.append(number)  # it is still good
            raise
        self._backstop.detach()
        return counted

    def success(self, latency: Optional[Duration] = None) -> bool:
        return self.report(Outcome.SUCCESS, latency)

    def failure(self, latency: Optional[Duration] = None) -> bool:
        return self.report(Outcome.FAILURE, latency)

    def neutral(self) -> bool:
        return self.report(Outcome.NEUTRAL)

    def backpressure(self, latency: Optional[Duration] = None) -> bool:
        return self.report(Outcome.BACKPRESSURE, latency)

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.reported or self._breaker.closed:
            return
        self.report(Outcome.SUCCESS if error is None else breaker_outcome(self._classify(error)))


def _drop(breaker: CircuitBreaker, numbers: list[int]) -> None:
    if numbers and not breaker.closed:
        breaker._report(numbers.pop(), Outcome.NEUTRAL, 0)
