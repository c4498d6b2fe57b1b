# SPDX-License-Identifier: Apache-2.0
"""The circuit breaker."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, Callable, Optional, TypeVar, Union

from . import _generated as c
from ._accelerate import accelerated, register
from ._aside import asked
from ._convert import Duration, fill, integer, record, seconds
from ._decorate import decorate
from ._ffi import (
    Int32,
    Int64,
    Uint64,
    byref,
    check,
    initialised,
    lib,
    raise_error,
    sized,
    spare_error,
    spare_errors,
    untyped,
)
from ._handle import Clock, Native
from .classify import Classify, default_classify
from .enums import BreakerMode, BreakerState, Preset, Window
from .errors import CircuitOpen
from .events import EventReader
from .permit import Permit
from .region import Region
from .store import Store, options

F = TypeVar("F")
T = TypeVar("T")

# What an acquire writes to: number, wait, error, and the references to them. Kept as spare_errors are.
Place = tuple[Uint64, Int64, c.agr_error, tuple[Any, Any, Any]]
_spare: list[Place] = []


def _spare_place() -> Place:
    try:
        return _spare.pop()
    except IndexError:
        number, wait, error = Uint64(), Int64(), c.agr_error()
        return number, wait, error, (byref(number), byref(wait), byref(error))


@dataclass(frozen=True)
class BreakerSnapshot:
    """Counters since creation, and the window as it is."""

    state: BreakerState = field(metadata={"as": BreakerState})
    mode: BreakerMode = field(metadata={"as": BreakerMode})
    trips_in_a_row: int
    generation: int
    state_age: float
    retry_after: float
    window_total: int
    window_failures: int
    window_slow: int
    consecutive_failures: int
    half_open_in_flight: int
    refused: int
    would_refuse: int
    stale: int
    trips: int


@dataclass(frozen=True)
class BreakerEvent:
    """A change of state. `time` is seconds on the breaker's clock."""

    from_state: BreakerState = field(metadata={"as": BreakerState})
    to_state: BreakerState = field(metadata={"as": BreakerState})
    mode: BreakerMode = field(metadata={"as": BreakerMode})
    generation: int
    time: float
    open_for: float


class CircuitBreaker(Native):
    """Closed: calls pass and are counted. Open: nobody passes. Half-open: a few calls probe.

    consecutive_failures  trip at so many in a row; 0: off; 0.
    window                Window.*; COUNT: the last window_calls (100); TIME: the last window_duration (30 s).
    minimum_calls         results in the window before a rate counts; 20.
    failure_rate          trip at this share of failures; 0: off; 0.5.
    slow_rate, slow_call  trip at this share of calls that take so long; off; 60 s.
    half_open_permits     probes at a time; 3.
    half_open_successes   that close it; 0: as many as half_open_permits.
    open, open_max        how long it opens, at first (5 s) and at most (5 min).
    open_growth           the factor for each trip in a row; 2.  open_jitter: up to this share longer; 0.1.
    max_permits           calls in flight that it can tell apart; 4096.
    permit_timeout        a permit not reported by then is void; 10 min.
    backpressure_fails    whether 429 and 503 count as failures; no.
    mode                  BreakerMode.*; AUTOMATIC.
    classify              what an exception says about the upstream; default_classify.
    clock                 a function that returns nanoseconds, in place of the system's monotonic clock.
    scope                 a Region, in which it is found by `name`, or created; a Store, through which all
                          breakers of that `name` share their state; else it is this process's own. In a
                          store also:
    sync                  seconds, how often the shared state is looked at, in an acquire; 0.1.
    timeout               seconds that such a call may wait for it; by default as the store says.

    When the store fails each process goes on by itself.
    """

    # The functions, with the handle, when the library reads the clock.
    _ask: Optional[Callable[..., int]] = None
    _tell: Optional[Callable[..., int]] = None

    def __init__(
        self,
        *,
        consecutive_failures: Optional[int] = None,
        window: Optional[Window] = None,
        window_calls: Optional[int] = None,
        window_duration: Optional[Duration] = None,
        minimum_calls: Optional[int] = None,
        half_open_permits: Optional[int] = None,
        half_open_successes: Optional[int] = None,
        max_permits: Optional[int] = None,
        failure_rate: Optional[float] = None,
        slow_rate: Optional[float] = None,
        slow_call: Optional[Duration] = None,
        open: Optional[Duration] = None,
        open_max: Optional[Duration] = None,
        open_growth: Optional[float] = None,
        open_jitter: Optional[float] = None,
        permit_timeout: Optional[Duration] = None,
        backpressure_fails: Optional[bool] = None,
        mode: Optional[BreakerMode] = None,
        seed: Optional[int] = None,
        preset: Optional[Preset] = None,
        classify: Classify = default_classify,
        clock: Optional[Clock] = None,
        scope: Optional[Union[Region, Store]] = None,
        name: Optional[str] = None,
        sync: Optional[Duration] = None,
        timeout: Optional[Duration] = None,
    ) -> None:
        config = initialised(c.agr_breaker_config)
        if preset is not None:
            number, error = integer(preset, "preset", Int32), c.agr_error()
            check(lib.agr_breaker_config_preset(byref(config), number, byref(error)), error)
        fill(
            config,
            {
                "consecutive_failures": consecutive_failures,
                "window": window,
                "window_calls": window_calls,
                "window_duration": window_duration,
                "minimum_calls": minimum_calls,
                "half_open_permits": half_open_permits,
                "half_open_successes": half_open_successes,
                "max_permits": max_permits,
                "failure_rate": failure_rate,
                "slow_rate": slow_rate,
                "slow_call": slow_call,
                "open": open,
                "open_max": open_max,
                "open_growth": open_growth,
                "open_jitter": open_jitter,
                "permit_timeout": permit_timeout,
                "backpressure_fails": backpressure_fails,
                "mode": mode,
                "seed": seed,
            },
        )
        self._classify = classify
        how = options(scope, sync=sync, timeout=timeout)
        self._own("agr_breaker_create", config, clock, scope, name, how)
        if self._is_plain():
            self._ask = partial(untyped("agr_breaker_acquire"), self._handle.cell)
            self._tell = partial(untyped("agr_breaker_report"), self._handle.cell)

    @accelerated("breaker_acquire")
    def acquire(self, *, classify: Optional[Classify] = None) -> Permit:
        """A permit to make a call, to be used as a context manager or reported; raises CircuitOpen."""
        started = self._now()
        if self._ask is None:
            number, wait = Uint64(), Int64()
            status = self._timed("agr_breaker_acquire", outputs=(byref(number), byref(wait)))
            permit, retry_after = number.value, wait.value
        else:
            place = _spare_place()
            status = self._ask(*place[3])
            if status < 0:
                self._require_open()
                raise_error(status, place[2])
            permit, retry_after = place[0].value, place[1].value
            _spare.append(place)
        if status == c.AGR_OPEN:
            raise CircuitOpen(retry_after=seconds(retry_after))
        return Permit(self, permit, started, classify)

    guard = acquire

    async def acquire_async(self, *, classify: Optional[Classify] = None) -> Permit:
        """As acquire; does not block the event loop in a store either. To be used by `async with`, or
        reported by report_async."""
        if not self._waits:
            return self.acquire(classify=classify)
        return await asked(lambda: self.acquire(classify=classify), Permit.neutral)

    def try_acquire(self) -> Optional[Permit]:
        """As acquire, with None when the breaker refuses."""
        try:
            return self.acquire()
        except CircuitOpen:
            return None

    def __call__(self, function: F) -> F:
        """Guards every call of a function, or of a coroutine function."""
        own = type(self).acquire is not CircuitBreaker.acquire or "acquire" in vars(self)
        run_async = self._run_async if self._waits else None
        return decorate(function, self.acquire, run=None if own else self._run, run_async=run_async)

    @accelerated("breaker_run")
    def _run(self, function: Callable[..., T], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> T:
        with self.acquire():
            return function(*arguments, **keywords)

    async def _run_async(self, function: Any, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
        async with await self.acquire_async():
            return await function(*arguments, **keywords)

    def _report(self, number: int, outcome: int, latency: int) -> int:
        if self._tell is None:
            return self._timed("agr_breaker_report", (number, outcome, latency))
        spare = spare_error()
        status = self._tell(Uint64(number), Int32(outcome), Int64(latency), spare[1])
        if status < 0:
            self._require_open()
            raise_error(status, spare[0])
        spare_errors.append(spare)
        return status

    @property
    def state(self) -> BreakerState:
        state = Int32()
        self._timed("agr_breaker_state", outputs=(byref(state),))
        return BreakerState(state.value)

    def force(self, mode: BreakerMode) -> None:
        """Sets the mode. Another mode than the present one starts afresh: closed, nothing counted."""
        self._timed("agr_breaker_force", (integer(mode, "mode", Int32),))

    def snapshot(self) -> BreakerSnapshot:
        snapshot = sized(c.agr_breaker_snapshot)
        self._timed("agr_breaker_snapshot_read", outputs=(byref(snapshot),))
        return record(BreakerSnapshot, snapshot)

    def events(self) -> EventReader[BreakerEvent]:
        """The changes of state, of which the last 64 are kept."""
        self._require_open()
        return EventReader(self, "agr_breaker_next_event", c.agr_breaker_event, _event)


def _event(structure: Any) -> BreakerEvent:
    return record(BreakerEvent, structure)


@register("refuse")
def _refuse(wait: int) -> None:
    raise CircuitOpen(retry_after=seconds(wait))
