# SPDX-License-Identifier: Apache-2.0
"""get_or_execute: join the run of a key, or be the one who runs it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Callable, Optional, TypeVar, Union

from . import _generated as c
from ._aside import asked, ended
from ._convert import Bytes, Duration, nanoseconds, octets
from ._readiness import readable
from .classify import class_of, default_classify
from .enums import ErrorClass
from .errors import ReliabilityError, ReplayedFailure, StoreError, WaitTimeout
from .lease import Answer, Lease, Ticket
from .result import Result

if TYPE_CHECKING:
    from .idempotency import IdempotencyCache

Joined = TypeVar("Joined", Answer, Union[Lease, Result, Ticket], Optional[Answer])


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
        with _keeping(data):
            lease.complete(data)
        return data


async def execute_async(
    cache: IdempotencyCache,
    key: Bytes,
    function: Callable[[Lease], Awaitable[Bytes]],
    fingerprint: Bytes,
    timeout: Duration,
) -> bytes:
    answer = await asked_of(cache, lambda: cache.join(key, fingerprint=fingerprint))
    if isinstance(answer, Ticket):
        try:
            answer = await wait_async(cache, answer, timeout)
        except BaseException:
            let_go(answer)
            raise
    if isinstance(answer, Result):
        return _replayed(answer)
    lease = answer
    try:
        try:
            value = await function(lease)
        except BaseException as error:
            await _shielded(cache, partial(_ended_by, lease, error))
            raise
        # What cannot be stored has been executed all the same: the lease is then abandoned.
        data = octets(value, "the function's result")
        with _keeping(data):
            await _shielded(cache, lambda: lease.complete(data))
        return data
    finally:
        if not lease.ended and not cache.closed:
            with suppress(StoreError):
                await _shielded(cache, lease.abandon)


async def asked_of(cache: IdempotencyCache, ask: Callable[[], Joined]) -> Joined:
    """Asks in a thread if that may wait for a store. Whoever is cancelled meanwhile lets go of the answer."""
    return await asked(ask, let_go) if cache._waits else ask()


def let_go(answer: Optional[Union[Lease, Result, Ticket]]) -> None:
    with suppress(ReliabilityError):
        if isinstance(answer, Lease):
            answer.abandon()
        elif isinstance(answer, Ticket):
            if not answer.ended:
                answer.leave()
        elif answer is not None:
            answer.release()


async def _shielded(cache: IdempotencyCache, end: Callable[[], object]) -> None:
    """Ends a run: in a thread if that may wait for a store, and also when the task is cancelled."""
    if cache._waits:
        await ended(end)
    else:
        end()


async def wait_async(cache: IdempotencyCache, ticket: Ticket, timeout: Duration) -> Answer:
    """Watches the ticket's eventfd, and asks at the latest when the run's lease has expired: nobody
    signals the end of a run that was lost, or of another process."""
    loop = asyncio.get_running_loop()
    longest = nanoseconds(timeout, "timeout", forever=True)
    deadline = None if longest == c.AGR_FOREVER else loop.time() + longest / 1e9
    while True:
        answer = await asked_of(cache, ticket.poll)
        if answer is not None:
            return answer
        wait = ticket.expires_in
        if deadline is not None:
            if loop.time() >= deadline:
                raise WaitTimeout("the run that was joined has not ended yet")
            wait = min(wait, deadline - loop.time())
        await readable(ticket.fileno(), wait)


@contextmanager
def _keeping(data: bytes) -> Iterator[None]:
    """A store that fails to keep a result says what it was: it has been paid for."""
    try:
        yield
    except StoreError as error:
        error.data = data
        raise


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
