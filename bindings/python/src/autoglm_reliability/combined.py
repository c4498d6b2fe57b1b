# SPDX-License-Identifier: Apache-2.0
"""Several buckets as one: requests and tokens per minute, all or nothing. Either all of them are in one
store, which is then asked once, without the interpreter's lock, or none is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any, Optional

from . import _generated as c
from ._aside import asked
from ._convert import Duration, integer, nanoseconds, seconds
from ._ffi import Int64, Uint32, byref, lib, raise_error
from ._handle import Clock
from ._time import sleep, sleep_async
from .errors import ArgumentError, ClosedError, RateLimited
from .limiter import RateLimiter
from .reservation import Reservation

Demand = tuple[RateLimiter, int]


def try_acquire_all(demands: Sequence[Demand]) -> bool:
    """Takes from every bucket, or from none. A demand: a limiter, and how many tokens."""
    return _call("agr_limiter_try_acquire_all", demands, ()) is None


def reserve_all(demands: Sequence[Demand], max_wait: Duration = math.inf) -> list[Reservation]:
    """Reserves from every bucket, or from none; wait for the longest of their waits, then settle or
    cancel each. Raises RateLimited."""
    return _reserve(demands, max_wait, "max_wait")


def acquire_all(demands: Sequence[Demand], timeout: Duration = math.inf) -> None:
    """Takes from every bucket, and waits for all if need be; raises RateLimited, at once, when the
    wait would be longer than timeout."""
    with ExitStack() as stack:
        reservations = _reserve(demands, timeout, "timeout")
        for reservation in reservations:
            stack.enter_context(reservation)
        longest = max(reservation.wait for reservation in reservations)
        if longest > 0:
            sleep(_clock(demands), longest)


async def try_acquire_all_async(demands: Sequence[Demand]) -> bool:
    """As try_acquire_all; does not block the event loop in a store either. A task that is cancelled gives its
    tokens back."""
    if not _wait(demands):
        return try_acquire_all(demands)
    try:
        await acquire_all_async(demands, 0)
    except RateLimited:
        return False
    return True


async def reserve_all_async(
    demands: Sequence[Demand], max_wait: Duration = math.inf
) -> list[Reservation]:
    """As reserve_all; does not block the event loop in a store either. Each is to be ended by settle_async or
    cancel_async, or used by `async with`."""
    return await _reserve_aside(demands, max_wait, "max_wait")


async def acquire_all_async(demands: Sequence[Demand], timeout: Duration = math.inf) -> None:
    """As acquire_all; a task that is cancelled gives everything back."""
    async with AsyncExitStack() as stack:
        reservations = await _reserve_aside(demands, timeout, "timeout")
        for reservation in reservations:
            await stack.enter_async_context(reservation)
        longest = max(reservation.wait for reservation in reservations)
        if longest > 0:
            await sleep_async(_clock(demands), longest)


async def _reserve_aside(
    demands: Sequence[Demand], longest: Duration, name: str
) -> list[Reservation]:
    def cancel(reservations: list[Reservation]) -> None:
        for reservation in reservations:
            reservation.cancel()

    if not _wait(demands):
        return _reserve(demands, longest, name)
    return await asked(lambda: _reserve(demands, longest, name), cancel)


def _wait(demands: Sequence[Demand]) -> bool:
    """Whether a call of them may wait for a store."""
    return any(limiter._waits for limiter, _ in demands)


def _reserve(demands: Sequence[Demand], max_wait: Duration, name: str) -> list[Reservation]:
    out: Any = (c.agr_reservation * max(1, len(demands)))()
    longest = nanoseconds(max_wait, name, forever=True)
    wait = _call("agr_limiter_reserve_all", demands, (longest,), out)
    if wait is not None:
        raise RateLimited(retry_after=wait)
    return [
        Reservation(limiter, place.permit, place.tokens, place.wait_ns)
        for (limiter, _), place in zip(demands, out)
    ]


def _clock(demands: Sequence[Demand]) -> Optional[Clock]:
    clocks = {limiter._clock for limiter, _ in demands}
    if len(clocks) > 1:
        raise ArgumentError("demands: limiters of different clocks cannot be combined", "demands")
    return clocks.pop() if clocks else None


def _call(name: str, demands: Sequence[Demand], inputs: tuple[int, ...], *outputs: Any) -> Optional[float]:
    """None when every demand was met, else the time until the slowest can be."""
    clock = _clock(demands)
    if clock is not None:
        name, inputs = f"{name}_at", (*inputs, clock())
    tokens = [integer(count, "tokens") for _, count in demands]
    refused, wait, error = Uint32(), Int64(), c.agr_error()
    count = len(demands)
    array: Any = (c.agr_limiter_demand * max(1, count))()
    function = lib.waiting(name) if _wait(demands) else getattr(lib, name)
    tails = (*inputs, *outputs, byref(refused), byref(wait), byref(error))
    held = _hold(demands)
    try:
        for place, (limiter, _), number in zip(array, demands, tokens):
            place.limiter, place.tokens = limiter._handle.pointer, number
        status: int = function(array, count, *tails)
    finally:
        for limiter, token in held:
            limiter._handle.drop(token)
    if status < 0:
        raise_error(status, error)
    return seconds(wait.value) if status == c.AGR_LIMITED else None


def _hold(demands: Sequence[Demand]) -> list[tuple[RateLimiter, object]]:
    held: list[tuple[RateLimiter, object]] = []
    try:
        for limiter, _ in demands:
            held.append((limiter, limiter._handle.hold()))
    except ClosedError:
        for limiter, token in held:
            limiter._handle.drop(token)
        raise
    return held
