# SPDX-License-Identifier: Apache-2.0
"""get_or_execute: join the run of a key, or be the one who runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Callable

from . import _generated as c
from ._convert import Bytes, Duration, nanoseconds, octets
from ._readiness import readable
from .classify import class_of, default_classify
from .enums import ErrorClass
from .errors import ReplayedFailure, WaitTimeout
from .lease import Answer, Lease, Ticket
from .result import Result

if TYPE_CHECKING:
    from .idempotency import IdempotencyCache


def execute(
    cache: IdempotencyCache,
    key: Bytes,
    function: Callable[[Lease], Bytes],
    fingerprint: Bytes,
    timeout: Duration,
) -> bytes:
    answer = cache.join(key, fingerprint=fingerprint)
    if isinstance(answer, Ticket):
        with answer as ticket:
            answer = ticket.wait(timeout)
    if isinstance(answer, Result):
        return _replayed(answer)
    with answer as lease:
        try:
            value = function(lease)
        except BaseException as error:
            _ended_by(lease, error)
            raise
        # What cannot be stored has been executed all the same: leaving the block abandons the lease.
        data = octets(value, "the function's result")
        lease.complete(data)
        return data


async def execute_async(
    cache: IdempotencyCache,
    key: Bytes,
    function: Callable[[Lease], Awaitable[Bytes]],
    fingerprint: Bytes,
    timeout: Duration,
) -> bytes:
    answer = cache.join(key, fingerprint=fingerprint)
    if isinstance(answer, Ticket):
        with answer as ticket:
            answer = await _wait_async(cache, ticket, timeout)
    if isinstance(answer, Result):
        return _replayed(answer)
    with answer as lease:
        try:
            value = await function(lease)
        except BaseException as error:
            _ended_by(lease, error)
            raise
        # What cannot be stored has been executed all the same: leaving the block abandons the lease.
        data = octets(value, "the function's result")
        lease.complete(data)
        return data


async def _wait_async(cache: IdempotencyCache, ticket: Ticket, timeout: Duration) -> Answer:
    """Watches the ticket's eventfd, and asks at the latest when the run's lease has expired: nobody
    signals the end of a run that was lost."""
    loop = asyncio.get_running_loop()
    longest = nanoseconds(timeout, "timeout", forever=True)
    deadline = None if longest == c.AGR_FOREVER else loop.time() + longest / 1e9
    while True:
        answer = ticket.poll()
        if answer is not None:
            return answer
        wait = ticket.expires_in
        if deadline is not None:
            if loop.time() >= deadline:
                raise WaitTimeout("the run that was joined has not ended yet")
            wait = min(wait, deadline - loop.time())
        await readable(ticket.fileno(), wait)


def _replayed(result: Result) -> bytes:
    with result:
        data = bytes(result)
        if result.failed:
            raise ReplayedFailure(data=data)
        return data


def _ended_by(lease: Lease, error: BaseException) -> None:
    if lease.ended:
        return
    if class_of(default_classify(error)) in (ErrorClass.UNKNOWN, ErrorClass.CANCELLED):
        lease.abandon()
    else:
        lease.fail(f"{type(error).__name__}: {error}")
