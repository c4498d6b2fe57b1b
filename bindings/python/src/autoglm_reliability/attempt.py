# SPDX-License-Identifier: Apache-2.0
"""What the function that makes an attempt knows of it, and may say."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Optional

from ._convert import Duration, seconds
from .call import Call
from .step import Step, read_step


class Attempt:
    """
    number           1, 2, ...
    step             the time left for connect, first byte, idle and in all; fence; outcome_unknown.
    timeout          seconds for this attempt, the deadline considered; math.inf: no limit.
    """

    def __init__(self, call: Call) -> None:
        self._call = call
        self._raw = call._raw
        self.costs: Sequence[Optional[int]] = ()
        self.server_delay: Optional[Duration] = None

    @property
    def number(self) -> int:
        return self._raw.attempt

    @property
    def step(self) -> Step:
        return read_step(self._raw)

    @property
    def timeout(self) -> float:
        return seconds(min(self._raw.attempt_timeout_ns, self._raw.remaining_ns))

    def commit(self) -> None:
        """From here on a failure is final: something was passed on to the user."""
        self._call.commit()

    def report_costs(self, *costs: Optional[int]) -> None:
        """The real cost, one a limiter; None: unknown, the estimate stays."""
        self.costs = costs

    def report_server_delay(self, delay: Duration) -> None:
        """What the server asked for, when the exception does not carry it."""
        self.server_delay = delay


current: ContextVar[Attempt] = ContextVar("autoglm_reliability_attempt")


def current_attempt() -> Optional[Attempt]:
    """The attempt that this code runs in, for decorated functions; None outside of one."""
    return current.get(None)
