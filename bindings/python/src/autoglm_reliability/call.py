# SPDX-License-Identifier: Apache-2.0
"""One guarded call, driven step by step."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Protocol

from . import _generated as c
from ._aside import ended
from ._ffi import Pointer, byref, check, lib, raise_error, sized, spare_error, spare_errors, untyped
from ._handle import Clock, Handle
from .classify import SUCCESS, AttemptOutcome
from .enums import StepKind
from .errors import ClosedError, StateError
from .request import Request
from .step import Step, read_step

if TYPE_CHECKING:
    from ._accelerate import AttemptBase
    from .policy import Policy

_advance_now = untyped("agr_call_advance")
PLAIN_SUCCESS = byref(SUCCESS._write()[0])


#: Of a step: its kind, the number of the attempt, and in nanoseconds what is left until the deadline, then
#: the time-outs of the attempt, of the connection, of the first byte and of a pause.
Told = tuple[int, int, int, int, int, int, int]


class Begun(Protocol):
    """A call that has begun: a Call, or an attempt of the accelerator's, which becomes one when needed."""

    @property
    def _closed(self) -> bool: ...

    def _told(self) -> Told: ...

    def _succeed(self) -> None:
        """The attempt was a success, and with it the call, which is closed."""

    def _close(self) -> None: ...

    def _owned(self) -> Call: ...


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
        data, kept = request._write(policy)
        pointer, step = Pointer(), sized(c.agr_step)
        outputs = (byref(pointer), byref(step))
        policy._timed("agr_call_begin", (None if data is None else byref(data),), outputs)
        del kept  # it had to live until here
        assert pointer.value is not None
        self._clock = policy._clock
        self._waits = policy._waits
        self._handle = Handle(pointer.value, _destroyer(policy))
        self.stale = False
        self._arrive(step)

    @classmethod
    def _adopt(cls, policy: Policy, attempt: AttemptBase) -> Call:
        """The call of an attempt which the accelerator has begun."""
        step = attempt._raw
        self = cls.__new__(cls)
        self._clock = policy._clock
        self._waits = policy._waits
        # Whatever goes wrong, one of the two is its owner.
        self._handle = Handle(attempt._address, _destroyer(policy))
        attempt._release()
        self.stale = False
        self._arrive(step)
        return self

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the interpreter's end the process goes anyway.
        handle: Optional[Handle] = getattr(self, "_handle", None)
        if handle is not None and not finalizing():
            handle.close()

    def _arrive(self, step: c.agr_step) -> None:
        self._raw: c.agr_step = step
        # A result lives as long as the call, so it is read at once; the rest when it is asked for.
        self._step: Optional[Step] = None if step.result is None else read_step(step)

    @property
    def step(self) -> Step:
        """What is to be done now."""
        if self._step is None:
            self._step = read_step(self._raw)
        return self._step

    @property
    def done(self) -> bool:
        return bool(self._raw.kind == c.AGR_STEP_DONE)

    def advance(self, outcome: Optional[AttemptOutcome] = None) -> Step:
        """Goes on with the outcome of the attempt, or with nothing after a wait; to come back early
        from a wait is no error. `stale` then says whether the outcome was of another attempt, in
        which case nothing has changed."""
        self._go_on(outcome)
        return self.step

    async def advance_async(self, outcome: Optional[AttemptOutcome] = None) -> Step:
        """As advance; does not block the event loop when a part is in a store either. Whoever is cancelled
        has advanced all the same."""
        await self._go_on_async(outcome)
        return self.step

    async def _go_on_async(self, outcome: Optional[AttemptOutcome] = None) -> None:
        if self._waits:
            await ended(lambda: self._go_on(outcome))
        else:
            self._go_on(outcome)

    def _go_on(self, outcome: Optional[AttemptOutcome] = None) -> None:
        """As advance, for those who do not look at the step."""
        if outcome is None:
            status = self._advance(None)
        elif outcome is SUCCESS:
            status = self._advance(PLAIN_SUCCESS)
        else:
            data, kept = outcome._write()
            status = self._advance(byref(data))
            del kept
        self.stale = status == c.AGR_STALE

    def _advance(self, outcome: Any) -> int:
        step, spare = sized(c.agr_step), spare_error()
        if self._waits:
            name, now = _twin("agr_call_advance", self._clock)
            status: int = lib.waiting(name)(self._handle.cell, outcome, *now, byref(step), spare[1])
        elif self._clock is None:
            status = _advance_now(self._handle.cell, outcome, byref(step), spare[1])
        else:
            status = lib.agr_call_advance_at(self._handle, outcome, self._clock(), byref(step), spare[1])
        if status < 0:
            self._require_open()
            raise_error(status, spare[0])
        spare_errors.append(spare)
        self._arrive(step)
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
            if self._step is not step:
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

    async def close_async(self) -> None:
        """As close; does not block the event loop when a part is in a store either."""
        if self._waits:
            await ended(self.close)
        else:
            self.close()

    def _told(self) -> Told:
        raw = self._raw
        return (
            raw.kind,
            raw.attempt,
            raw.remaining_ns,
            raw.attempt_timeout_ns,
            raw.connect_timeout_ns,
            raw.first_byte_timeout_ns,
            raw.idle_timeout_ns,
        )

    def _succeed(self) -> None:
        self._go_on(SUCCESS)
        self.close()

    @property
    def _closed(self) -> bool:
        return self._handle.closed

    def _close(self) -> None:
        self._handle.close()

    def _owned(self) -> Call:
        return self

    def _require_open(self) -> None:
        if self._handle.closed:
            raise ClosedError("this Call is closed")

    def __enter__(self) -> Call:
        self._require_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Call:
        self._require_open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close_async()


def _twin(name: str, clock: Optional[Clock]) -> tuple[str, tuple[int, ...]]:
    """A function that reads the clock, or its twin and the time that it is told."""
    return (name, ()) if clock is None else (f"{name}_at", (clock(),))


def _destroyer(policy: Policy) -> Callable[[int], None]:
    """What an abandoned call gives back, it gives back at a time on the policy's own scale."""
    clock = policy._clock
    if policy._waits:
        return lambda pointer: _destroy_waiting(pointer, clock)
    if clock is None:
        destroy: Callable[[int], None] = lib.agr_call_destroy
        return destroy
    return lambda pointer: lib.agr_call_destroy_at(pointer, clock())


def _destroy_waiting(pointer: int, clock: Optional[Clock]) -> None:
    name, now = _twin("agr_call_destroy", clock)
    lib.waiting(name)(pointer, *now)
