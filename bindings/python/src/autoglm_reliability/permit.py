# SPDX-License-Identifier: Apache-2.0
"""The right to make one call through a breaker."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Callable, Optional

from . import _generated as c
from ._accelerate import PermitBase, register
from ._aside import ended
from ._convert import Duration, integer, nanoseconds
from ._ffi import Int32
from .classify import breaker_outcome
from .enums import Outcome
from .errors import ArgumentError


@register("Permit")
class Permit(PermitBase):
    """To be reported once. As a context manager it reports success, or what `classify` makes of the
    exception. One that is dropped counts as neutral, so that it cannot wedge the breaker."""

    __slots__ = ("__weakref__",)

    def report(self, outcome: Outcome, latency: Optional[Duration] = None) -> bool:
        """Says how the call ended. False when that changed nothing: it was reported before, it
        expired, or the breaker has changed its state since.

        latency  seconds; by default the time since the permit was given.
        """
        breaker = self._breaker
        kind = integer(outcome, "outcome", Int32)
        took = max(0, breaker._now() - self._started) if latency is None else nanoseconds(latency, "latency")
        number = self._take()
        if number == 0:
            return False
        try:
            return breaker._report(number, kind, took) == c.AGR_OK
        except ArgumentError:
            self._put_back(number)  # it is still good
            raise

    async def report_async(self, outcome: Outcome, latency: Optional[Duration] = None) -> bool:
        """As report; does not block the event loop when the breaker's state is in a store."""
        if not self._breaker._waits:
            return self.report(outcome, latency)
        return await ended(lambda: self.report(outcome, latency))

    def success(self, latency: Optional[Duration] = None) -> bool:
        return self.report(Outcome.SUCCESS, latency)

    def failure(self, latency: Optional[Duration] = None) -> bool:
        return self.report(Outcome.FAILURE, latency)

    def neutral(self) -> bool:
        return self.report(Outcome.NEUTRAL)

    def backpressure(self, latency: Optional[Duration] = None) -> bool:
        return self.report(Outcome.BACKPRESSURE, latency)

    async def __aenter__(self) -> Permit:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._breaker._waits:
            await ended(lambda: self.__exit__(kind, error, trace))
        else:
            self.__exit__(kind, error, trace)

    def _leave(self, error: Optional[BaseException]) -> None:
        """The end of a block."""
        breaker = self._breaker
        if self.reported or breaker._handle.cell.value is None:
            return
        if error is not None:
            classify = self._classify or breaker._classify
            self.report(breaker_outcome(classify(error)))
            return
        took = breaker._now() - self._started
        number = self._take()
        if number != 0:
            breaker._report(number, c.AGR_OUTCOME_SUCCESS, took if took > 0 else 0)

    def _drop(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        """Nobody refers to it any more. At the interpreter's end the process goes anyway."""
        if not finalizing() and not self._breaker.closed:
            self._breaker._report(self._take(), Outcome.NEUTRAL, 0)


@register("leave")
def _leave(permit: Permit, error: BaseException) -> None:
    """What a block does with an exception."""
    with permit:
        raise error
