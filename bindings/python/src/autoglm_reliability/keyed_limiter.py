# SPDX-License-Identifier: Apache-2.0
"""Token-bucket rate limiting: one bucket per key."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, Callable, Optional, Union

from . import _generated as c
from ._accelerate import accelerated
from ._aside import ended
from ._bucket import Bucket
from ._convert import Bytes, Duration, fill, octets, record
from ._ffi import Int64, Size, byref, initialised, raise_error, sized, spare_error, spare_errors, untyped
from ._handle import Clock
from .enums import OnStoreError, WhenFull
from .limiter import ONE, ONE_TOKEN
from .region import Region
from .reservation import Reservation
from .store import Store, options


@dataclass(frozen=True)
class KeyedLimiterSnapshot:
    open_reservations: int
    busy_keys: int
    slots: int
    bytes: int
    refused: int
    would_refuse: int
    evicted: int
    no_place: int


class KeyedRateLimiter(Bucket):
    """A bucket for every key, str or bytes, all of the same capacity and refill, in bounded memory.

    max_keys       keys that are not idle at a time; 65,536.
    when_full      WhenFull.REFUSE: a new key raises CapacityError; EVICT: it takes another's place.
    max_key_bytes  1024.
    The other arguments are those of RateLimiter. In a store, which keeps the keys, max_keys and when_full are
    of the buckets that this process has for OnStoreError.LOCAL.
    """

    _prefix = "agr_keyed_limiter"
    _take_one: Optional[Callable[..., int]] = None
    _available_of: Optional[Callable[..., int]] = None
    _take = accelerated("keyed_limiter_take")(Bucket._take)
    _settle = accelerated("keyed_limiter_settle")(Bucket._settle)

    def __init__(
        self,
        capacity: int,
        refill_tokens: int,
        refill_interval: Optional[Duration] = None,
        *,
        max_keys: Optional[int] = None,
        max_debt_tokens: Optional[int] = None,
        max_reservations: Optional[int] = None,
        reservation_timeout: Optional[Duration] = None,
        when_full: Optional[WhenFull] = None,
        max_key_bytes: Optional[int] = None,
        observe: Optional[bool] = None,
        seed: Optional[int] = None,
        clock: Optional[Clock] = None,
        scope: Optional[Union[Region, Store]] = None,
        name: Optional[str] = None,
        on_error: Optional[OnStoreError] = None,
        timeout: Optional[Duration] = None,
        local_share: Optional[float] = None,
    ) -> None:
        self._config: c.agr_keyed_limiter_config = initialised(c.agr_keyed_limiter_config)
        fill(
            self._config,
            {
                "capacity": capacity,
                "refill_tokens": refill_tokens,
                "refill_interval": refill_interval,
                "max_keys": max_keys,
                "max_debt_tokens": max_debt_tokens,
                "max_reservations": max_reservations,
                "reservation_timeout": reservation_timeout,
                "when_full": when_full,
                "max_key_bytes": max_key_bytes,
                "observe": observe,
                "seed": seed,
            },
        )
        how = options(scope, on_error=on_error, timeout=timeout, local_share=local_share)
        self._own("agr_keyed_limiter_create", self._config, clock, scope, name, how)
        if self._is_plain():
            self._take_one = partial(untyped("agr_keyed_limiter_try_acquire"), self._handle.cell)
            self._available_of = partial(untyped("agr_keyed_limiter_available"), self._handle.cell)

    @accelerated("keyed_limiter_try_acquire")
    def try_acquire(self, key: Bytes, tokens: int = 1) -> bool:
        """Takes the tokens if they are there. Raises NeverFits when a bucket cannot hold so many."""
        data = octets(key, "key")
        if tokens is ONE and self._take_one is not None:
            spare = spare_error()
            status = self._take_one(data, Size(len(data)), ONE_TOKEN, None, spare[1])
            if status < 0:
                self._require_open()
                raise_error(status, spare[0])
            spare_errors.append(spare)
            return status == c.AGR_OK
        return self._try((data, len(data)), tokens)

    async def try_acquire_async(self, key: Bytes, tokens: int = 1) -> bool:
        """As try_acquire; does not block the event loop in a store either. A task that is cancelled gives its
        tokens back."""
        return await self._try_aside(_key(key), tokens) if self._waits else self.try_acquire(key, tokens)

    def acquire(self, key: Bytes, tokens: int = 1, timeout: Duration = math.inf) -> None:
        """Takes the tokens, and waits for them if need be; raises RateLimited, at once, when the wait
        would be longer than timeout."""
        self._acquire(_key(key), tokens, timeout)

    async def acquire_async(self, key: Bytes, tokens: int = 1, timeout: Duration = math.inf) -> None:
        """As acquire; a task that is cancelled gives its tokens back."""
        if self._waits:
            return await self._acquire_aside(_key(key), tokens, timeout)
        reservation = self._take(_key(key), tokens, timeout)
        return None if reservation is None else await self._wait_async(reservation)

    @accelerated("keyed_limiter_reserve")
    def reserve(self, key: Bytes, tokens: int = 1, max_wait: Duration = math.inf) -> Reservation:
        """Takes the tokens now, to be used after `reservation.wait` seconds and then settled."""
        return self._reserve(_key(key), tokens, max_wait, "max_wait")

    async def reserve_async(
        self, key: Bytes, tokens: int = 1, max_wait: Duration = math.inf
    ) -> Reservation:
        """As reserve; does not block the event loop in a store either. To be ended by settle_async or
        cancel_async, or used by `async with`."""
        if self._waits:
            return await self._reserve_aside(_key(key), tokens, max_wait, "max_wait")
        return self.reserve(key, tokens, max_wait)

    @accelerated("keyed_limiter_available")
    def available(self, key: Bytes) -> int:
        """Tokens that could be taken now; negative when in debt."""
        if self._available_of is not None:
            data, tokens = octets(key, "key"), Int64()
            spare = spare_error()
            status = self._available_of(data, Size(len(data)), byref(tokens), spare[1])
            if status < 0:
                self._require_open()
                raise_error(status, spare[0])
            spare_errors.append(spare)
            return tokens.value
        return self._available(_key(key))

    async def available_async(self, key: Bytes) -> int:
        """As available; does not block the event loop in a store either."""
        return await ended(lambda: self.available(key)) if self._waits else self.available(key)

    def reconfigure(
        self,
        *,
        capacity: Optional[int] = None,
        refill_tokens: Optional[int] = None,
        refill_interval: Optional[Duration] = None,
        max_debt_tokens: Optional[int] = None,
    ) -> None:
        """Changes what is named, for all keys. A key keeps the time it still has to refill."""
        config = c.agr_keyed_limiter_config.from_buffer_copy(self._config)
        fill(
            config,
            {
                "capacity": capacity,
                "refill_tokens": refill_tokens,
                "refill_interval": refill_interval,
                "max_debt_tokens": max_debt_tokens,
            },
        )
        self._call("agr_keyed_limiter_reconfigure", byref(config))
        self._config = config

    def snapshot(self) -> KeyedLimiterSnapshot:
        snapshot = sized(c.agr_keyed_limiter_snapshot)
        self._timed("agr_keyed_limiter_snapshot_read", outputs=(byref(snapshot),))
        return record(KeyedLimiterSnapshot, snapshot)


def _key(key: Bytes) -> tuple[Any, ...]:
    data = octets(key, "key")
    return data, len(data)
