# SPDX-License-Identifier: Apache-2.0
"""What a limiter of one bucket and a limiter of one bucket per key have in common."""

from __future__ import annotations

import threading
from typing import Any

from . import _generated as c
from ._accelerate import register
from ._aside import asked
from ._convert import Duration, integer, nanoseconds, seconds
from ._ffi import Int64, byref
from ._handle import Native
from ._time import sleep, sleep_async
from .errors import CapacityError, RateLimited
from .reservation import Reservation


@register("limited")
def _limited(wait: int) -> None:
    raise RateLimited(retry_after=seconds(wait))


class Bucket(Native):
    """`key` is what identifies the bucket to the C function: nothing, or a pointer and a length."""

    _prefix: str

    def _try(self, key: tuple[Any, ...], tokens: int) -> bool:
        inputs = (*key, integer(tokens, "tokens"))
        return self._timed(f"{self._prefix}_try_acquire", inputs, (None,)) == c.AGR_OK

    def _reserve(self, key: tuple[Any, ...], tokens: int, max_wait: Duration, name: str) -> Reservation:
        reservation, wait = c.agr_reservation(), Int64()
        longest = nanoseconds(max_wait, name, forever=True)
        inputs = (*key, integer(tokens, "tokens"), longest)
        outputs = (byref(reservation), byref(wait))
        if self._timed(f"{self._prefix}_reserve", inputs, outputs) == c.AGR_LIMITED:
            raise RateLimited(retry_after=seconds(wait.value))
        return Reservation(self, reservation.permit, reservation.tokens, reservation.wait_ns)

    def _settle(self, permit: int, cost: int) -> bool:
        return self._timed(f"{self._prefix}_settle", (permit, cost)) == c.AGR_OK

    def _give_back(self, permit: int) -> bool:
        return self._timed(f"{self._prefix}_cancel", (permit,)) == c.AGR_OK

    def _acquire(self, key: tuple[Any, ...], tokens: int, timeout: Duration) -> None:
        # The main thread takes a reservation and sleeps, for a native wait would keep Ctrl-C away
        # from it. Other threads get no signals, and a native wait costs no reservation.
        if self._clock is None and threading.current_thread() is not threading.main_thread():
            self._acquire_native(key, tokens, timeout)
            return
        try:
            reservation = self._take(key, tokens, timeout)
        except CapacityError as error:
            if self._clock is not None or error.field != "max_reservations":
                raise
            self._acquire_native(key, tokens, timeout)
            return
        if reservation is not None:
            with reservation:
                sleep(self._clock, reservation.wait)

    def _acquire_native(self, key: tuple[Any, ...], tokens: int, timeout: Duration) -> None:
        wait, longest = Int64(), nanoseconds(timeout, "timeout", forever=True)
        with self._held():
            arguments = (*key, integer(tokens, "tokens"), longest, byref(wait))
            status = self._call(f"{self._prefix}_acquire", *arguments)
        if status == c.AGR_LIMITED:
            raise RateLimited(retry_after=seconds(wait.value))

    def _take(self, key: tuple[Any, ...], tokens: int, timeout: Duration) -> Reservation | None:
        """Takes the tokens. Those which have to be waited for are a reservation, to be settled then."""
        reservation = self._reserve(key, tokens, timeout, "timeout")
        if reservation.wait > 0:
            return reservation
        reservation.settle()
        return None

    async def _wait_async(self, reservation: Reservation) -> None:
        # A task that is cancelled while it waits leaves the block with an exception, which gives the
        # tokens back.
        with reservation:
            await sleep_async(self._clock, reservation.wait)

    async def _acquire_aside(self, key: tuple[Any, ...], tokens: int, timeout: Duration) -> None:
        """In a store: the round trips are made in threads."""
        async with await self._reserve_aside(key, tokens, timeout, "timeout") as reservation:
            await sleep_async(self._clock, reservation.wait)

    async def _try_aside(self, key: tuple[Any, ...], tokens: int) -> bool:
        try:
            await self._acquire_aside(key, tokens, 0)
        except RateLimited:
            return False
        return True

    async def _reserve_aside(
        self, key: tuple[Any, ...], tokens: int, longest: Duration, name: str
    ) -> Reservation:
        return await asked(lambda: self._reserve(key, tokens, longest, name), Reservation.cancel)

    def _available(self, key: tuple[Any, ...]) -> int:
        tokens = Int64()
        self._timed(f"{self._prefix}_available", key, (byref(tokens),))
        return tokens.value
