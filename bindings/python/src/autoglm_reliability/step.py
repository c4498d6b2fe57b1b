# SPDX-License-Identifier: Apache-2.0
"""What a policy asks its caller to do next."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from . import _generated as c
from ._convert import retry_after, seconds
from ._ffi import bytes_at
from .enums import Component, Reason, StepKind


@dataclass(frozen=True)
class Step:
    """Times are seconds; math.inf is no limit.

    wait             WAIT, JOIN: how long at most.
    retry_after      DONE by refusal: when it clears; math.inf: it does not; None: not known.
    remaining        until the deadline.
    fd               JOIN: readable when there is an answer; it belongs to the call. Else -1.
    outcome_unknown  ATTEMPT: an earlier run of this key may have had effects.
    fence            ATTEMPT with a key: the lease's fencing number.
    result           DONE with a result that the caller does not have: replayed, cached or default.
    """

    kind: StepKind
    reason: Reason
    component: Component
    attempt_id: int
    attempt: int
    endpoint: int
    wait: float
    retry_after: Optional[float]
    remaining: float
    connect_timeout: float
    first_byte_timeout: float
    idle_timeout: float
    attempt_timeout: float
    fd: int
    outcome_unknown: bool
    fence: int
    result: Optional[bytes]

    @property
    def done(self) -> bool:
        return self.kind is StepKind.DONE


def read_step(step: c.agr_step) -> Step:
    return Step(
        StepKind(step.kind),
        Reason(step.reason),
        Component(step.component),
        step.attempt_id,
        step.attempt,
        step.endpoint,
        seconds(step.wait_ns),
        retry_after(step.retry_after_ns),
        seconds(step.remaining_ns),
        seconds(step.connect_timeout_ns),
        seconds(step.first_byte_timeout_ns),
        seconds(step.idle_timeout_ns),
        seconds(step.attempt_timeout_ns),
        step.fd,
        bool(step.outcome_unknown),
        step.fence,
        None if step.result is None else bytes_at(step.result, step.result_length),
    )
