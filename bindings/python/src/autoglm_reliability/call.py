# SPDX-License-Identifier: Apache-2.0
"""One guarded call, driven step by step."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional

from . import _generated as c
from ._ffi import Pointer, byref, check, lib, raise_error, sized
from ._handle import Clock, Handle
from .classify import AttemptOutcome
from .enums import StepKind
from .errors import ClosedError, StateError
from .request import Request
from .step import Step, read_step

if TYPE_CHECKING:
    from .policy import Policy


class Call:
    """Made by Policy.begin; used by one thread at a time, and closed in the end (it is a context
    manager). Closing one that is not done abandons it: everything that it holds is given back.

        with policy.begin(key="k") as call:
            while not call.done:
                if call.step.kind is StepKind.ATTEMPT:
                    call.advance(AttemptOutcome.success(fetch()))
                else:
                    time.sleep(call.step.wait)
                    call.advance()

    Iterating it yields the steps, and advances past a wait or a join after the loop's body.
    """

    def __init__(self, policy: Policy, request: Request) -> None:
        self._policy = policy
        self._clock = policy._clock
        now = policy._now()
        data, kept = request._write(now)
        pointer, step = Pointer(), sized(c.agr_step)
        outputs = (byref(pointer), byref(step))
        policy._timed("agr_call_begin", (byref(data),), outputs)
        del kept  # it had to live until here
        assert pointer.value is not None
        self._handle = Handle(pointer.value, _destroyer(policy._clock))
        self.step: Step = read_step(step)
        self.stale = False
        weakref.finalize(self, self._handle.close).atexit = False

    @property
    def done(self) -> bool:
        return self.step.done

    def advance(self, outcome: Optional[AttemptOutcome] = None) -> Step:
        """Goes on with the outcome of the attempt, or with nothing after a wait; to come back early
        from a wait is no error. `stale` then says whether the outcome was of another attempt, in
        which case nothing has changed."""
        if outcome is None:
            status = self._advance(None)
        else:
            data, kept = outcome._write()
            status = self._advance(byref(data))
            del kept
        self.stale = status == c.AGR_STALE
        return self.step

    def _advance(self, outcome: Any) -> int:
        step, error = sized(c.agr_step), c.agr_error()
        outputs = (byref(step), byref(error))
        if self._clock is None:
            status: int = lib.agr_call_advance(self._handle, outcome, *outputs)
        else:
            status = lib.agr_call_advance_at(self._handle, outcome, self._clock(), *outputs)
        if status < 0:
            self._require_open()
            raise_error(status, error)
        self.step = read_step(step)
        return status

    def commit(self) -> None:
        """From here on a failure is final: something was passed on to the user, such as the first
        token."""
        self._require_open()
        error = c.agr_error()
        check(lib.agr_call_commit(self._handle, byref(error)), error)

    def __iter__(self) -> Iterator[Step]:
        while True:
            step = self.step
            yield step
            if step.done:
                return
            if self.step is not step:
                continue
            if step.kind is StepKind.ATTEMPT:
                raise StateError("the attempt's outcome was not given: advance(outcome)")
            self.advance()

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Ends the call; before it is done that abandons it. May be called again."""
        self._handle.close()

    def _require_open(self) -> None:
        if self._handle.closed:
            raise ClosedError("this Call is closed")

    def __enter__(self) -> Call:
        self._require_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _destroyer(clock: Optional[Clock]) -> Callable[[int], None]:
    """What an abandoned call gives back, it gives back at a time on the policy's own scale."""
    if clock is None:
        destroy: Callable[[int], None] = lib.agr_call_destroy
        return destroy
    return lambda pointer: lib.agr_call_destroy_at(pointer, clock())
