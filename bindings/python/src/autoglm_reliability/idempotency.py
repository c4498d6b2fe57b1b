# SPDX-License-Identifier: Apache-2.0
"""The idempotency cache: one execution per key, its result for everybody who asks."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from . import _execute_once as once
from . import _generated as c
from ._aside import ended
from ._convert import Bytes, Duration, fill, nanoseconds, octets, record, seconds
from ._ffi import Int32, Uint64, byref, initialised, sized
from ._handle import Clock, Native
from ._time import sleep
from .enums import KeyState, OnFailure, OnStoreError, WhenFull
from .errors import InProgress, Mismatch, StateError, WaitTimeout
from .lease import Answer, Lease, Ticket
from .result import Result
from .store import Store, options

# A native wait is cut into slices, between which the interpreter looks after signals.
SLICE = 250_000_000


@dataclass(frozen=True)
class IdempotencySnapshot:
    waiters: int
    entries: int
    bytes: int
    pins: int
    executed: int
    replayed: int
    joined: int
    promoted: int
    leases_lost: int
    mismatched: int
    evicted: int
    refused: int
    illegal: int


class IdempotencyCache(Native):
    """Keys are str or bytes; a fingerprint is what the request consists of, so that the same key with
    another request is noticed.

    ttl            seconds that a result is kept; 24 h.
    lease          seconds that a caller may execute without renewing; 60.
    max_entries    65,536.  max_bytes: of keys and results; 64 MiB.  max_key_bytes: 255.
    max_waiters    callers joined at a time; 1024.  max_pins: results pinned at a time; 4096.
    when_full      WhenFull.REFUSE: new keys raise CapacityError; EVICT: completed keys go, the oldest first.
    on_failure     OnFailure.FORGET: a failed key may be tried again; KEEP: the failure is the result.
    clock          a function that returns nanoseconds, in place of the system's monotonic clock.
    scope          a store, in which the keys lie under `name`, for all processes that use it; else the
                   cache is this process's own. In a store also:
    on_error       what begin and join do when it fails; by default as the store says.
    timeout        seconds that a call may wait for it; by default as the store says.
    max_result_bytes  of a result; 1 MiB. A larger one raises NeverFits.
    """

    def __init__(
        self,
        *,
        ttl: Optional[Duration] = None,
        lease: Optional[Duration] = None,
        max_entries: Optional[int] = None,
        max_bytes: Optional[int] = None,
        max_key_bytes: Optional[int] = None,
        max_waiters: Optional[int] = None,
        max_pins: Optional[int] = None,
        when_full: Optional[WhenFull] = None,
        on_failure: Optional[OnFailure] = None,
        seed: Optional[int] = None,
        clock: Optional[Clock] = None,
        scope: Optional[Store] = None,
        name: Optional[str] = None,
        on_error: Optional[OnStoreError] = None,
        timeout: Optional[Duration] = None,
        max_result_bytes: Optional[int] = None,
    ) -> None:
        config = initialised(c.agr_idempotency_config)
        fill(
            config,
            {
                "ttl": ttl,
                "lease": lease,
                "max_entries": max_entries,
                "max_bytes": max_bytes,
                "max_key_bytes": max_key_bytes,
                "max_waiters": max_waiters,
                "max_pins": max_pins,
                "when_full": when_full,
                "on_failure": on_failure,
                "seed": seed,
            },
        )
        how = options(scope, on_error=on_error, timeout=timeout, max_result_bytes=max_result_bytes)
        self._own("agr_idempotency_create", config, clock, scope, name, how)

    def begin(self, key: Bytes, *, fingerprint: Bytes = b"") -> Answer:
        """A Lease: execute, then complete or fail it. A Result: the key has one. Raises InProgress,
        Mismatch, CapacityError."""
        lease, result = c.agr_lease(), c.agr_result()
        outputs = (byref(lease), byref(result))
        status = self._timed("agr_idempotency_begin", _inputs(key, fingerprint), outputs)
        if status == c.AGR_IN_PROGRESS:
            raise InProgress(retry_after=seconds(lease.expires_in_ns))
        return self._answer(status, lease, result)

    def join(self, key: Bytes, *, fingerprint: Bytes = b"") -> Union[Lease, Result, Ticket]:
        """As begin, with a Ticket when another caller is executing the key."""
        lease, result, ticket = c.agr_lease(), c.agr_result(), Uint64()
        outputs = (byref(ticket), byref(lease), byref(result))
        status = self._timed("agr_idempotency_join", _inputs(key, fingerprint), outputs)
        if status == c.AGR_IN_PROGRESS:
            return Ticket(self, ticket.value, seconds(lease.expires_in_ns))
        return self._answer(status, lease, result)

    async def begin_async(self, key: Bytes, *, fingerprint: Bytes = b"") -> Answer:
        """As begin; does not block the event loop in a store either. A lease is then to be ended by its own
        `_async` functions, or used by `async with`."""
        return await once.asked_of(self, lambda: self.begin(key, fingerprint=fingerprint))

    async def join_async(self, key: Bytes, *, fingerprint: Bytes = b"") -> Union[Lease, Result, Ticket]:
        """As join; does not block the event loop in a store either."""
        return await once.asked_of(self, lambda: self.join(key, fingerprint=fingerprint))

    async def state_async(self, key: Bytes) -> Optional[KeyState]:
        """As state; does not block the event loop in a store either."""
        return await ended(lambda: self.state(key)) if self._waits else self.state(key)

    def poll(self, ticket: Ticket) -> Optional[Answer]:
        """What has become of the run that was joined; None: not yet."""
        lease, result = c.agr_lease(), c.agr_result()
        outputs = (byref(lease), byref(result))
        status = self._timed("agr_idempotency_poll", (ticket.number,), outputs)
        if status == c.AGR_IN_PROGRESS:
            ticket.expires_in = seconds(lease.expires_in_ns)
            return None
        ticket.ended = True
        return self._answer(status, lease, result)

    def wait(self, ticket: Ticket, timeout: Duration = math.inf) -> Answer:
        """As poll, but waits for the answer; raises WaitTimeout, and the ticket is still good."""
        left = nanoseconds(timeout, "timeout", forever=True)
        deadline = None if left == c.AGR_FOREVER else self._now() + left
        while True:
            left = SLICE if deadline is None else min(SLICE, max(0, deadline - self._now()))
            answer = self._wait_slice(ticket, left)
            if answer is not None:
                return answer
            if deadline is not None and self._now() >= deadline:
                raise WaitTimeout("the run that was joined has not ended yet")

    async def _wait_async(self, ticket: Ticket, timeout: Duration) -> Answer:
        return await once.wait_async(self, ticket, timeout)

    def _wait_slice(self, ticket: Ticket, longest: int) -> Optional[Answer]:
        if self._clock is not None:
            answer = self.poll(ticket)
            if answer is None:
                sleep(self._clock, min(longest / 1e9, max(ticket.expires_in, 1e-9)))
            return answer
        lease, result = c.agr_lease(), c.agr_result()
        with self._held():
            arguments = (ticket.number, longest, byref(lease), byref(result))
            status = self._call("agr_idempotency_wait", *arguments)
        if status == c.AGR_TIMED_OUT:
            return None
        ticket.ended = True
        return self._answer(status, lease, result)

    def complete(self, lease: Lease, data: Bytes = b"") -> None:
        lease.complete(data)

    def fail(self, lease: Lease, data: Bytes = b"") -> None:
        lease.fail(data)

    def abandon(self, lease: Lease) -> bool:
        return lease.abandon()

    def renew(self, lease: Lease, duration: Duration = 0) -> bool:
        return lease.renew(duration)

    def state(self, key: Bytes) -> Optional[KeyState]:
        """None when the key is not known."""
        state, data = Int32(), octets(key, "key")
        status = self._timed("agr_idempotency_state", (data, len(data)), (byref(state),))
        return None if status == c.AGR_NOT_FOUND else KeyState(state.value)

    def get_or_execute(
        self,
        key: Bytes,
        function: Callable[[Lease], Bytes],
        *,
        fingerprint: Bytes = b"",
        timeout: Duration = math.inf,
    ) -> bytes:
        """The result of the key: stored, or of the run that is under way, or of function, which is
        given the lease. At most one caller executes at a time.

        An exception of function ends the run: time-outs and cancellation as abandoned (the next to
        execute is told that the outcome is unknown), others as failed. Raises ReplayedFailure when
        the key's result is a failure, WaitTimeout when the other's run takes longer than timeout.
        """
        return once.execute(self, key, function, fingerprint, timeout)

    async def get_or_execute_async(
        self,
        key: Bytes,
        function: Callable[[Lease], Awaitable[Bytes]],
        *,
        fingerprint: Bytes = b"",
        timeout: Duration = math.inf,
    ) -> bytes:
        """As get_or_execute, for a coroutine function; never blocks the event loop."""
        return await once.execute_async(self, key, function, fingerprint, timeout)

    def snapshot(self) -> IdempotencySnapshot:
        snapshot = sized(c.agr_idempotency_snapshot)
        self._call("agr_idempotency_snapshot_read", byref(snapshot))
        return record(IdempotencySnapshot, snapshot)

    def _lost_fence(self, number: int) -> int:
        fence = Uint64()
        status = self._call("agr_idempotency_lost_fence", number, byref(fence))
        return fence.value if status == c.AGR_OK else 0

    def _answer(self, status: int, lease: c.agr_lease, result: c.agr_result) -> Answer:
        if status == c.AGR_OK:
            return Lease(self, lease)
        if status == c.AGR_REPLAY:
            return Result(self._handle, result)
        if status == c.AGR_MISMATCH:
            raise Mismatch()
        raise StateError("the ticket has ended")

    def _ticket_fd(self, number: int) -> int:
        descriptor = Int32()
        if self._call("agr_idempotency_ticket_fd", number, byref(descriptor)) == c.AGR_STALE:
            raise StateError("the ticket has ended")
        return descriptor.value

    def _leave(self, number: int) -> bool:
        return self._timed("agr_idempotency_leave", (number,)) == c.AGR_OK


def _inputs(key: Bytes, fingerprint: Bytes) -> tuple[Any, ...]:
    name, print_ = octets(key, "key"), octets(fingerprint, "fingerprint")
    return name, len(name), print_, len(print_)
