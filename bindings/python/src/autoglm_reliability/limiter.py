# SPDX-License-Identifier: Apache-2.0
"""Token-bucket rate limiting: one bucket."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Callable, Final, Optional, TypeVar, Union

from . import _generated as c
from ._accelerate import accelerated
from ._aside import ended
from ._bucket import Bucket
from ._convert import Duration, fill, integer, record
from ._decorate import decorate
from ._ffi import Int64, byref, initialised, raise_error, sized, spare_error, spare_errors, untyped
from ._handle import Clock
from .enums import OnStoreError
from .region import Region
from .reservation import Reservation
from .store import Store, options

F = TypeVar("F")

ONE: Final = 1
ONE_TOKEN = Int64.from_param(ONE)


@dataclass(frozen=True)
class LimiterSnapshot:
    open_reservations: int
    capacity: int
    refill_tokens: int
    refill_interval: float
    available: int
    refused: int
    would_refuse: int
    forgiven: int


class RateLimiter(Bucket):
    """A bucket of `capacity` tokens which refills by refill_tokens per refill_interval.

    capacity             tokens (burst), 1 ... 2^50.
    refill_tokens        0 ... 2^50; 0: never.
    refill_interval      seconds; 1.
    initial_tokens       0 ... capacity; full by default.
    max_debt_tokens      how far reservations may go below empty; by default 60 s of refill or the
                         capacity, whichever is more.
    max_reservations     open at a time; 1024. A wait in the main thread, or in a coroutine, takes one.
    reservation_timeout  one not ended by then counts as settled in full; 10 min.
    observe              admit everybody, and count what would be refused; no.
    clock                a function that returns nanoseconds, in place of the system's monotonic clock.
    scope                a Region, in which it is found by `name`, or created; a Store, in which its bucket
                         lies under `name`; else it is this process's own. In a store also:
    lease_tokens         so many more than a call needs are taken with it, for this process's next calls; 0.
    on_error             what calls do when it fails; by default as the store says.
    timeout              seconds that a call may wait for it; by default as the store says.
    local_share          OnStoreError.LOCAL: of capacity and rate, for this process alone; 0.1.

    In a store a call waits for the store, without the interpreter's lock; its _async twin waits in a thread.
    """

    _prefix = "agr_limiter"
    _take_one: Optional[Callable[[], int]] = None
    _take_some: Optional[Callable[..., int]] = None
    _take = accelerated("limiter_take")(Bucket._take)

    def __init__(
        self,
        capacity: int,
        refill_tokens: int,
        refill_interval: Optional[Duration] = None,
        *,
        initial_tokens: Optional[int] = None,
        max_debt_tokens: Optional[int] = None,
        max_reservations: Optional[int] = None,
        reservation_timeout: Optional[Duration] = None,
        observe: Optional[bool] = None,
        clock: Optional[Clock] = None,
        scope: Optional[Union[Region, Store]] = None,
        name: Optional[str] = None,
        lease_tokens: Optional[int] = None,
        on_error: Optional[OnStoreError] = None,
        timeout: Optional[Duration] = None,
        local_share: Optional[float] = None,
    ) -> None:
        self._config: c.agr_limiter_config = initialised(c.agr_limiter_config)
        fill(
            self._config,
            {
                "capacity": capacity,
                "refill_tokens": refill_tokens,
                "refill_interval": refill_interval,
                "initial_tokens": initial_tokens,
                "max_debt_tokens": max_debt_tokens,
                "max_reservations": max_reservations,
                "reservation_timeout": reservation_timeout,
                "observe": observe,
            },
        )
        stored = {"lease_tokens": lease_tokens, "on_error": on_error, "timeout": timeout}
        how = options(scope, **stored, local_share=local_share)
        self._own("agr_limiter_create", self._config, clock, scope, name, how)
        if self._is_plain():
            function = untyped("agr_limiter_try_acquire")
            self._take_one = partial(function, self._handle.cell, ONE_TOKEN, None, None)
            self._take_some = partial(function, self._handle.cell)

    @accelerated("limiter_try_acquire")
    def try_acquire(self, tokens: int = 1) -> bool:
        """Takes the tokens if they are there. Raises NeverFits when the bucket cannot hold so many."""
        if tokens is ONE and self._take_one is not None:
            status = self._take_one()
            if status == c.AGR_OK:
                return True
            if status == c.AGR_LIMITED:
                return False
            # An error has changed nothing: asking once more says what it is.
        elif self._take_some is not None:
            spare = spare_error()
            status = self._take_some(Int64(integer(tokens, "tokens")), None, spare[1])
            if status < 0:
                self._require_open()
                raise_error(status, spare[0])
            spare_errors.append(spare)
            return status == c.AGR_OK
        return self._try((), tokens)

    async def try_acquire_async(self, tokens: int = 1) -> bool:
        """As try_acquire; does not block the event loop in a store either. A task that is cancelled gives its
        tokens back."""
        return await self._try_aside((), tokens) if self._waits else self.try_acquire(tokens)

    def acquire(self, tokens: int = 1, timeout: Duration = math.inf) -> None:
        """Takes the tokens, and waits for them if need be. Raises RateLimited, at once, when the wait
        would be longer than timeout. A wait that is interrupted gives them back."""
        self._acquire((), tokens, timeout)

    async def acquire_async(self, tokens: int = 1, timeout: Duration = math.inf) -> None:
        """As acquire; a task that is cancelled gives its tokens back."""
        if self._waits:
            return await self._acquire_aside((), tokens, timeout)
        reservation = self._take((), tokens, timeout)
        return None if reservation is None else await self._wait_async(reservation)

    def reserve(self, tokens: int = 1, max_wait: Duration = math.inf) -> Reservation:
        """Takes the tokens now, to be used after `reservation.wait` seconds and settled by their real
        number. Raises RateLimited when the wait, or the debt, would be too great."""
        return self._reserve((), tokens, max_wait, "max_wait")

    async def reserve_async(self, tokens: int = 1, max_wait: Duration = math.inf) -> Reservation:
        """As reserve; does not block the event loop in a store either. To be ended by settle_async or
        cancel_async, or used by `async with`."""
        if self._waits:
            return await self._reserve_aside((), tokens, max_wait, "max_wait")
        return self.reserve(tokens, max_wait)

    @property
    def available(self) -> int:
        """Tokens that could be taken now; negative when in debt. In a store it is asked."""
        return self._available(())

    async def available_async(self) -> int:
        """As available; does not block the event loop in a store either."""
        return await ended(lambda: self.available) if self._waits else self.available

    def reconfigure(
        self,
        *,
        capacity: Optional[int] = None,
        refill_tokens: Optional[int] = None,
        refill_interval: Optional[Duration] = None,
        max_debt_tokens: Optional[int] = None,
    ) -> None:
        """Changes what is named, while in use. What was available stays, up to the new capacity."""
        config = c.agr_limiter_config.from_buffer_copy(self._config)
        fill(
            config,
            {
                "capacity": capacity,
                "refill_tokens": refill_tokens,
                "refill_interval": refill_interval,
                "max_debt_tokens": max_debt_tokens,
            },
        )
        config.initial_tokens = -1
        self._timed("agr_limiter_reconfigure", (byref(config),))
        self._config = config

    def snapshot(self) -> LimiterSnapshot:
        snapshot = sized(c.agr_limiter_snapshot)
        self._timed("agr_limiter_snapshot_read", outputs=(byref(snapshot),))
        return record(LimiterSnapshot, snapshot)

    def limit(self, tokens: int = 1, timeout: Duration = math.inf) -> _Limit:
        """A decorator which makes every call of a function take so many tokens first."""
        return _Limit(self, tokens, timeout)

    def __call__(self, function: F) -> F:
        """Makes every call of a function, or of a coroutine function, take one token first."""
        return self.limit()(function)


class _Limit:
    def __init__(self, limiter: RateLimiter, tokens: int, timeout: Duration) -> None:
        self._limiter = limiter
        self._tokens = tokens
        self._timeout = timeout

    def __call__(self, function: F) -> F:
        def enter() -> nullcontext[None]:
            self._limiter.acquire(self._tokens, self._timeout)
            return nullcontext()

        async def enter_async() -> None:
            await self._limiter.acquire_async(self._tokens, self._timeout)

        return decorate(function, enter, enter_async)
