# SPDX-License-Identifier: Apache-2.0
"""The policy: one guarded call, composed of any of the parts."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any, Callable, Optional, TypeVar

from . import _drive as drive
from . import _generated as c
from ._accelerate import accelerated
from ._aside import asked
from ._convert import Bytes, Duration, fill, integer, octets, record
from ._ffi import Int32, address_of, byref, initialised, pointer, sized
from ._handle import Clock, Native
from .attempt import Attempt
from .backoff import Backoff
from .breaker import CircuitBreaker
from .budget import RetryBudget
from .call import Begun, Call
from .classify import Classify, default_classify
from .codec import Codec
from .enums import Component, Fallback, Mode
from .errors import ArgumentError
from .events import EventReader
from .idempotency import IdempotencyCache
from .limiter import RateLimiter
from .policy_event import PolicyEvent, PolicySnapshot, read_event
from .request import DEFAULTS, Request
from .retry import Retry, as_retry

T = TypeVar("T")
F = TypeVar("F")

FOREVER = frozenset(
    {
        "total_timeout",
        "attempt_timeout",
        "connect_timeout",
        "first_byte_timeout",
        "idle_timeout",
        "max_limiter_wait",
    }
)


class Policy(Native):
    """The parts, outermost first: deadline, idempotency, retry with its budget, limiters, breaker,
    fallback. Any may be missing. The policy keeps them alive.

    retry             a Retry, or a Backoff; None: one attempt.
    limiters          limiter i is charged request.costs[i].
    order             the Components present, outermost first; refused unless it is the order above.
    total_timeout     seconds for everything, when the request says nothing; 60; math.inf: none.
    attempt_timeout   of one attempt; none. execute_async enforces it, others are told.
    connect_timeout, first_byte_timeout, idle_timeout   what the attempt is told; 3, 30, 30 s.
    max_limiter_wait  how long to wait for tokens rather than be refused; 0.
    retry_when_open   wait for a breaker that is open, within retries and deadline; no.
    fallback          Fallback.*; fallback_data: the default answer.
    cached_entries, cached_bytes, cached_ttl   answers kept for Fallback.CACHED.
    observe, off      the Components in Mode.OBSERVE and Mode.OFF.
    max_calls         alive at a time; 1024.  event_capacity: events kept; 256.
    classify          what an exception says about an attempt; default_classify.
    classify_result   the same for a value that was returned; None: it was a success.
    codec             how values become the bytes that are kept, and back; by default they are bytes.
    clock             a function that returns nanoseconds, in place of the system's monotonic clock.
    """

    def __init__(
        self,
        *,
        idempotency: Optional[IdempotencyCache] = None,
        breaker: Optional[CircuitBreaker] = None,
        budget: Optional[RetryBudget] = None,
        retry: Retry | Backoff | None = None,
        limiters: Sequence[RateLimiter] = (),
        order: Sequence[Component] = (),
        total_timeout: Optional[Duration] = None,
        attempt_timeout: Optional[Duration] = None,
        connect_timeout: Optional[Duration] = None,
        first_byte_timeout: Optional[Duration] = None,
        idle_timeout: Optional[Duration] = None,
        max_limiter_wait: Optional[Duration] = None,
        retry_when_open: Optional[bool] = None,
        fallback: Optional[Fallback] = None,
        fallback_data: Optional[Bytes] = None,
        cached_entries: Optional[int] = None,
        cached_bytes: Optional[int] = None,
        cached_ttl: Optional[Duration] = None,
        observe: Iterable[Component] = (),
        off: Iterable[Component] = (),
        max_calls: Optional[int] = None,
        event_capacity: Optional[int] = None,
        seed: Optional[int] = None,
        classify: Classify = default_classify,
        classify_result: Optional[drive.ClassifyResult] = None,
        codec: Optional[Codec] = None,
        clock: Optional[Clock] = None,
    ) -> None:
        config = initialised(c.agr_policy_config)
        fill(
            config,
            {
                "total_timeout": total_timeout,
                "attempt_timeout": attempt_timeout,
                "connect_timeout": connect_timeout,
                "first_byte_timeout": first_byte_timeout,
                "idle_timeout": idle_timeout,
                "max_limiter_wait": max_limiter_wait,
                "retry_when_open": retry_when_open,
                "fallback": fallback,
                "cached_entries": cached_entries,
                "cached_bytes": cached_bytes,
                "cached_ttl": cached_ttl,
                "max_calls": max_calls,
                "event_capacity": event_capacity,
                "seed": seed,
            },
            FOREVER,
        )
        config.observe = _mask(observe, "observe")
        config.off = _mask(off, "off")
        _list(config, "order", order)
        data = None if fallback_data is None else octets(fallback_data, "fallback_data")
        if data is not None:
            config.fallback_data, config.fallback_length = address_of(data), len(data)
        plan = as_retry(retry)
        if plan is not None:
            config.retry = pointer(plan._config)
        self._plan = plan or Retry()
        self._classify = classify
        self._classify_result = classify_result
        self._codec = codec or Codec()
        self._build(config, (idempotency, breaker, budget), limiters, clock)

    def _build(
        self,
        config: c.agr_policy_config,
        parts: tuple[Optional[Native], Optional[Native], Optional[Native]],
        limiters: Sequence[RateLimiter],
        clock: Optional[Clock],
    ) -> None:
        kinds = (IdempotencyCache, CircuitBreaker, RetryBudget)
        for name, kind, part in zip(("idempotency", "breaker", "budget"), kinds, parts):
            if part is not None:
                setattr(config, name, _address(part, kind, name))
        if len(limiters) > c.AGR_DIMENSIONS_MAX:
            raise ArgumentError(f"limiters: at most {c.AGR_DIMENSIONS_MAX} are possible", "limiters")
        for index, limiter in enumerate(limiters):
            config.limiters[index] = _address(limiter, RateLimiter, f"limiters[{index}]")
        config.limiter_count = len(limiters)
        given = [part for part in (*parts, *limiters) if part is not None]
        waits = any(part._waits for part in given)
        self._own("agr_policy_create", config, clock, waits=waits)

    def begin(self, request: Optional[Request] = None, **fields: Any) -> Call:
        """Begins a guarded call, to be driven by its steps. The fields are those of Request."""
        return Call(self, _request(request, fields))

    call = begin

    @accelerated("policy_start")
    def _start(self, request: Request, data: Optional[bytes]) -> Begun:
        """As begin. data: the request in C's form, which has no deadline; None: DEFAULTS."""
        del data
        return self.begin(request)

    async def begin_async(self, request: Optional[Request] = None, **fields: Any) -> Call:
        """As begin; does not block the event loop when a part is in a store either. The call is then to be
        driven by advance_async, and closed by close_async or `async with`."""
        asking = _request(request, fields)
        return await asked(lambda: Call(self, asking), Call.close) if self._waits else Call(self, asking)

    @accelerated("policy_execute")
    def execute(
        self, function: Callable[[Attempt], T], request: Optional[Request] = None, **fields: Any
    ) -> T:
        """Runs a call to its end on this thread: attempts by function, waits by sleeping.

        function is given the Attempt: its time-outs, and what it may report. Returns what function
        returned, or the replayed, cached or default answer. Raises what function raised when the
        failure is final, and a Refused when a part of the policy stood in the way.
        """
        return drive.execute(self, function, _request(request, fields))

    @accelerated("policy_run")
    def _run(self, function: Callable[..., T], arguments: tuple[Any, ...], keywords: dict[str, Any]) -> T:
        return drive.execute(self, lambda _: function(*arguments, **keywords), DEFAULTS)

    def _is_plain(self) -> bool:
        own = type(self).begin is not Policy.begin
        return super()._is_plain() and self._classify_result is None and not own

    async def execute_async(
        self,
        function: Callable[[Attempt], Awaitable[T]],
        request: Optional[Request] = None,
        **fields: Any,
    ) -> T:
        """As execute, for a coroutine function; never blocks the event loop. A task that is cancelled
        ends its call as cancelled. An attempt is cancelled when its time is over."""
        return await drive.execute_async(self, function, _request(request, fields))

    def guard(self, **fields: Any) -> Callable[[F], F]:
        """A decorator which runs every call of a function, or of a coroutine function, under the
        policy. A field may be a function of the arguments, such as key=lambda order: order.id."""
        return drive.decorator(self, fields)

    def __call__(self, function: F) -> F:
        """Runs every call of a function, or of a coroutine function, under the policy."""
        return self.guard()(function)

    def set_mode(self, component: Component, mode: Mode) -> None:
        """Switches a part while in use; calls see it from their next step on."""
        self._call(
            "agr_policy_set_mode", integer(component, "component", Int32), integer(mode, "mode", Int32)
        )

    def set_fallback(self, fallback: Fallback) -> None:
        self._call("agr_policy_set_fallback", integer(fallback, "fallback", Int32))

    def events(self) -> EventReader[PolicyEvent]:
        self._require_open()
        return EventReader(self, "agr_policy_next_event", c.agr_event, read_event)

    def snapshot(self) -> PolicySnapshot:
        snapshot = sized(c.agr_policy_snapshot)
        self._call("agr_policy_snapshot_read", byref(snapshot))
        return record(PolicySnapshot, snapshot)


def _request(request: Optional[Request], fields: dict[str, Any]) -> Request:
    if request is None:
        return Request(**fields) if fields else DEFAULTS
    if fields:
        raise TypeError("a Request and its fields exclude each other")
    return request


def _address(part: Native, kind: type[Native], name: str) -> Optional[int]:
    if not isinstance(part, kind):
        raise TypeError(f"{name}: a {kind.__name__} is needed, not {type(part).__name__}")
    part._require_open()
    return part._handle.pointer


def _mask(components: Iterable[Component], name: str) -> int:
    mask = 0
    for component in components:
        mask |= 1 << int(Component(integer(component, name, Int32)))
    return mask


def _list(config: c.agr_policy_config, name: str, values: Sequence[int]) -> None:
    array = getattr(config, name)
    if len(values) > len(array):
        raise ArgumentError(f"{name}: at most {len(array)} are possible", name)
    for index, value in enumerate(values):
        array[index] = integer(value, name, Int32)
    setattr(config, f"{name}_count", len(values))
