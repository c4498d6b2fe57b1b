# SPDX-License-Identifier: Apache-2.0
"""Locks and semaphores for all who share a store."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from types import TracebackType
from typing import Optional

from . import _generated as c
from ._aside import asked, ended
from ._convert import Bytes, Duration, fill, nanoseconds, octets, seconds
from ._ffi import Int64, byref, initialised, lib
from ._handle import Native
from .errors import ClosedError, LockLost, StoreError, WaitTimeout
from .store import Store, options

# How long whoever waits lets pass before asking again: at first, and at the most.
FIRST_PAUSE, LONGEST_PAUSE = 0.001, 0.25


class Hold:
    """What a holder has, until it is released or its time is over. As a context manager it is released on
    exit.

    fence  larger with each holder of the key. Hand it to whatever the lock protects, which is to remember
           the largest it has seen and refuse smaller ones: whoever was held up for longer than ttl has lost
           the lock without knowing it, and is then refused.
    until  seconds on time.monotonic(): until then it is held for certain.
    """

    def __init__(self, lock: DistributedLock, key: bytes, hold: c.agr_lock_hold) -> None:
        self._lock = lock
        self._holds = [hold]
        self.key = key
        self.fence: int = hold.fence
        self.until: float = seconds(hold.until_ns)

    @property
    def remaining(self) -> float:
        """Seconds for which it is held for certain; 0: it may have been lost, or was released."""
        return max(0.0, self.until - seconds(lib.agr_now_ns())) if self._holds else 0.0

    @property
    def released(self) -> bool:
        return not self._holds

    def renew(self) -> None:
        """Extends it to ttl from now. Raises LockLost when it has ended, and StoreError when nobody knows."""
        if not self._holds:
            raise LockLost("the lock was released")
        renewed = c.agr_lock_hold.from_buffer_copy(self._holds[0])
        if self._lock._end("renew", self.key, renewed) == c.AGR_STALE:
            raise LockLost()
        with suppress(IndexError):  # another thread has released it
            self._holds[0] = renewed
            self.until = seconds(renewed.until_ns)

    def release(self) -> None:
        """Ends it. Raises LockLost when it had ended before: somebody else may have been in meanwhile."""
        try:
            hold = self._holds.pop()
        except IndexError:
            raise LockLost("the lock was released") from None
        try:
            status = self._lock._end("release", self.key, hold)
        except StoreError:
            self._holds.append(hold)  # it may be tried again; else it ends by itself
            raise
        if status == c.AGR_STALE:
            raise LockLost()

    async def renew_async(self) -> None:
        """As renew; does not block the event loop."""
        await ended(self.renew)

    async def release_async(self) -> None:
        """As release; does not block the event loop. It goes to its end also when the task is cancelled."""
        await ended(self.release)

    def __enter__(self) -> Hold:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.released or self._lock.closed:
            return
        try:
            self.release()
        except (ClosedError, LockLost, StoreError):
            # What went wrong inside is what counts.
            if error is None:
                raise

    async def __aenter__(self) -> Hold:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await ended(lambda: self.__exit__(kind, error, trace))


class DistributedLock(Native):
    """Locks of one kind in a store: for each key one holder at a time, or `limit` of them.

    store    a RedisStore, or another that offers leases.
    name     of the locks, the same in all processes.
    limit    holders of a key at a time; 1.
    ttl      seconds that a hold lasts unless it is renewed; 30.
    timeout  seconds that a call may wait for the store; by default as the store says.

    with lock.hold("nightly-report") as hold:
        write(report, fence=hold.fence)

    While the store does not answer nobody gets a lock, whatever its on_error says.
    """

    def __init__(
        self,
        store: Store,
        name: str,
        *,
        limit: Optional[int] = None,
        ttl: Optional[Duration] = None,
        timeout: Optional[Duration] = None,
    ) -> None:
        if not isinstance(store, Store):
            raise TypeError(f"store: a Store is needed, not {type(store).__name__}")
        config = initialised(c.agr_lock_config)
        fill(config, {"limit": limit, "ttl": ttl})
        self._own("agr_lock_create", config, None, store, name, options(store, timeout=timeout))

    def try_acquire(self, key: Bytes = b"") -> Optional[Hold]:
        """Takes the lock of a key; None when it is held. Raises StoreError: nobody knows whether it was
        taken, and what was taken ends by itself."""
        return self._try(octets(key, "key"))[0]

    def acquire(self, key: Bytes = b"", timeout: Duration = math.inf) -> Hold:
        """The same, and waits until it is free; raises WaitTimeout. Whoever waits is not
        served in turn; each try is given the time that a call of the store may take."""
        data, pauses = octets(key, "key"), self._pauses(timeout)
        while True:
            hold, retry_after = self._try(data)
            if hold is not None:
                return hold
            # Here and not in the library, where a wait would keep Ctrl-C away.
            time.sleep(min(next(pauses), retry_after))

    async def try_acquire_async(self, key: Bytes = b"") -> Optional[Hold]:
        """As try_acquire; does not block the event loop. A task that is cancelled gives back what it got."""
        return (await self._try_async(octets(key, "key")))[0]

    async def acquire_async(self, key: Bytes = b"", timeout: Duration = math.inf) -> Hold:
        """As acquire; a task that is cancelled gives back what it got."""
        data, pauses = octets(key, "key"), self._pauses(timeout)
        while True:
            hold, retry_after = await self._try_async(data)
            if hold is not None:
                return hold
            await asyncio.sleep(min(next(pauses), retry_after))

    def _pauses(self, timeout: Duration) -> Iterator[float]:
        """Between one try and the next; raises WaitTimeout when the time is over."""
        left = nanoseconds(timeout, "timeout", forever=True)
        return self._pauses_until(math.inf if left == c.AGR_FOREVER else seconds(self._now() + left))

    def _pauses_until(self, deadline: float) -> Iterator[float]:
        pause = FIRST_PAUSE
        while True:
            left = deadline - seconds(self._now())
            if left <= 0:
                raise WaitTimeout("the lock is held")
            # By chance sooner, so that those who wait do not ask all at once.
            yield min(left, pause * random.uniform(0.5, 1))  # noqa: S311
            pause = min(2 * pause, LONGEST_PAUSE)

    def hold(self, key: Bytes = b"", timeout: Duration = math.inf) -> Holding:
        """A block in which the lock is held: `with lock.hold(key)`, or `async with lock.hold(key)`. Leaving
        it raises LockLost when the lock had ended before."""
        return Holding(self, key, timeout)

    def _try(self, key: bytes) -> tuple[Optional[Hold], float]:
        hold, wait = c.agr_lock_hold(), Int64()
        status = self._call("agr_lock_try_acquire", key, len(key), byref(hold), byref(wait))
        return (Hold(self, key, hold) if status == c.AGR_OK else None), seconds(wait.value)

    async def _try_async(self, key: bytes) -> tuple[Optional[Hold], float]:
        return await asked(lambda: self._try(key), _let_go)

    def _end(self, verb: str, key: bytes, hold: c.agr_lock_hold) -> int:
        return self._call(f"agr_lock_{verb}", key, len(key), byref(hold))


class Holding:
    """A block in which a lock is held; it may be entered again and again, by one at a time."""

    def __init__(self, lock: DistributedLock, key: Bytes, timeout: Duration) -> None:
        self._lock, self._key, self._timeout = lock, key, timeout
        self._holds: list[Hold] = []

    def __enter__(self) -> Hold:
        self._holds.append(self._lock.acquire(self._key, self._timeout))
        return self._holds[-1]

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._holds.pop().__exit__(kind, error, trace)

    async def __aenter__(self) -> Hold:
        self._holds.append(await self._lock.acquire_async(self._key, self._timeout))
        return self._holds[-1]

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self._holds.pop().__aexit__(kind, error, trace)


def _let_go(answer: tuple[Optional[Hold], float]) -> None:
    if answer[0] is not None:
        with suppress(LockLost):
            answer[0].release()
