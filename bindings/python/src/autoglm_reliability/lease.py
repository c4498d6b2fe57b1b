# SPDX-License-Identifier: Apache-2.0
"""The right to execute a key, and a place among those who wait for its result."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Optional, TypeVar, Union

from . import _generated as c
from ._aside import ended
from ._convert import Bytes, Duration, nanoseconds, octets, seconds
from .errors import CapacityError, LeaseLost, NeverFits, OutOfMemory, StoreError
from .result import Result

if TYPE_CHECKING:
    from .idempotency import IdempotencyCache

T = TypeVar("T")


class Lease:
    """Ended once, by complete, fail or abandon. As a context manager one that has not been ended on
    exit is abandoned: whether the run had its effect is then not known.

    fence            grows with every lease; hand it to what must refuse late writers. 0: a store failed,
                     and the run is not in it.
    outcome_unknown  an earlier run of this key lost its lease and may have had effects.
    expires_in       seconds, when it was given.
    """

    def __init__(self, cache: IdempotencyCache, lease: c.agr_lease) -> None:
        self._cache = cache
        self._ids = [lease.id]
        self.fence: int = lease.fence
        self.expires_in = seconds(lease.expires_in_ns)
        self.outcome_unknown = bool(lease.outcome_unknown)
        #: in a store, the fence of the run that was lost before this one; 0: none was
        self.lost_fence: int = cache._lost_fence(lease.id) if lease.outcome_unknown and cache._waits else 0

    @property
    def ended(self) -> bool:
        return not self._ids

    def complete(self, data: Bytes = b"") -> None:
        """Stores the result. Raises LeaseLost, and stores nothing, when the lease has expired."""
        self._finish("complete", data)

    def fail(self, data: Bytes = b"") -> None:
        """Ends it without success; data is the result when the cache keeps failures."""
        self._finish("fail", data)

    def abandon(self) -> bool:
        """Ends a run which may or may not have had its effect. False when it had ended before."""
        if not self._ids:
            return False
        number = self._ids.pop()
        try:
            return self._cache._timed("agr_idempotency_abandon", (number,)) == c.AGR_OK
        except StoreError:
            self._ids.append(number)  # it is still held
            raise

    def renew(self, duration: Duration = 0) -> bool:
        """Extends it to so many seconds from now; 0: as configured. False when it was lost."""
        if not self._ids:
            return False
        inputs = (self._ids[0], nanoseconds(duration, "duration"))
        return self._cache._timed("agr_idempotency_renew", inputs) == c.AGR_OK

    async def complete_async(self, data: Bytes = b"") -> None:
        """As complete; does not block the event loop in a store either, and comes to its end also when the
        task is cancelled. So do the others."""
        await self._aside(lambda: self.complete(data))

    async def fail_async(self, data: Bytes = b"") -> None:
        await self._aside(lambda: self.fail(data))

    async def abandon_async(self) -> bool:
        return await self._aside(self.abandon)

    async def renew_async(self, duration: Duration = 0) -> bool:
        return await self._aside(lambda: self.renew(duration))

    async def _aside(self, end: Callable[[], T]) -> T:
        return await ended(end) if self._cache._waits else end()

    def _finish(self, verb: str, data: Bytes) -> None:
        if not self._ids:
            raise LeaseLost("the lease has ended")
        content = octets(data, "data")
        number = self._ids.pop()
        try:
            inputs = (number, content, len(content))
            status = self._cache._timed(f"agr_idempotency_{verb}", inputs)
        except (CapacityError, NeverFits, OutOfMemory, StoreError):
            self._ids.append(number)  # it is still held
            raise
        if status == c.AGR_STALE:
            raise LeaseLost("the lease expired before the result came; nothing was stored")

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.ended or self._cache.closed:
            return
        # What went wrong inside is what counts; the store tells of the run when its lease has ended.
        with suppress(StoreError) if error is not None else nullcontext():
            self.abandon()

    async def __aenter__(self) -> Lease:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        await self._aside(lambda: self.__exit__(kind, error, trace))


class Ticket:
    """A place in the line behind a run. It ends with an answer, or with leave()."""

    def __init__(self, cache: IdempotencyCache, number: int, expires_in: float) -> None:
        self._cache = cache
        self.number = number
        #: seconds until the run that is waited for has lost its lease, if nothing happens
        self.expires_in = expires_in
        self.ended = False

    def poll(self) -> Optional[Answer]:
        """The result, or a lease when it is now one's own turn to execute; None: not yet."""
        return self._cache.poll(self)

    def wait(self, timeout: Duration = float("inf")) -> Answer:
        """As poll, but waits; raises WaitTimeout, after which the ticket is still good."""
        return self._cache.wait(self, timeout)

    async def wait_async(self, timeout: Duration = float("inf")) -> Answer:
        """As wait, without blocking the event loop."""
        return await self._cache._wait_async(self, timeout)

    def fileno(self) -> int:
        """An eventfd which becomes readable when poll has an answer; it belongs to the ticket."""
        return self._cache._ticket_fd(self.number)

    def leave(self) -> bool:
        """Gives it up. False when it had ended before."""
        self.ended = True
        return self._cache._leave(self.number)

    def __enter__(self) -> Ticket:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.ended and not self._cache.closed:
            self.leave()


Answer = Union[Lease, Result]
