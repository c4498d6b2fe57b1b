# SPDX-License-Identifier: Apache-2.0
"""What the function that makes an attempt knows of it, and may say."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Optional

from . import _generated as c
from ._accelerate import AttemptBase, register
from ._convert import Duration, seconds
from .call import Call
from .errors import ClosedError
from .step import Step, read_step


@register("Attempt")
class Attempt(AttemptBase):
    """
    number           1, 2, ...
    step             the time left for connect, first byte, idle and in all; fence; outcome_unknown.
    timeout          seconds for this attempt, the deadline considered; math.inf: no limit.
    """

    __slots__ = ("__weakref__",)

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
        self._owned().commit()

    def report_costs(self, *costs: Optional[int]) -> None:
        """The real cost, one a limiter; None: unknown, the estimate stays."""
        self.costs = costs

    def _owned(self) -> Call:
        """The call, which is taken over from the accelerator when it has begun it."""
        if self._call is None:
            if self._address == 0:
                raise ClosedError("this Call is closed")
            self._call = Call._adopt(self._policy, self)
        return self._call

    def report_server_delay(self, delay: Duration) -> None:
        """What the server asked for, when the exception does not carry it."""
        self.server_delay = delay


current: ContextVar[Attempt] = ContextVar("autoglm_reliability_attempt")
register("set")(current.set)
register("reset")(current.reset)
register("step")(c.agr_step.from_buffer_copy)


def current_attempt() -> Optional[Attempt]:
    """The attempt that this code runs in, for decorated functions; None outside of one."""
    return current.get(None)
