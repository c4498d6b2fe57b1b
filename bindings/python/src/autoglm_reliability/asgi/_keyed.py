# SPDX-License-Identifier: Apache-2.0
"""Requests with an Idempotency-Key: whoever comes first leads the run of the key, the others follow it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable
from contextlib import suppress
from typing import Any, Callable, Optional, Union

from .. import _execute_once as once
from .._aside import ended
from .._serving.idempotency import Execution, Idempotency
from .._serving.incoming import Incoming
from .._serving.key import run_name
from .._serving.recording import MARKER, decode, encode
from .._serving.refusal import (
    KEY_REUSED,
    NOT_REPLAYABLE,
    Refusal,
    in_progress,
    limited,
    overloaded,
)
from ..errors import (
    CapacityError,
    InProgress,
    LeaseLost,
    Mismatch,
    NeverFits,
    OutOfMemory,
    ReliabilityError,
    StoreError,
)
from ..lease import Lease, Ticket
from ..result import Result
from ._body import again
from ._gate import Slot
from ._run import Run
from ._types import BODY, START, Message, Receive, Scope, Send, answer

log = logging.getLogger("autoglm_reliability.serving")

Serve = Callable[[Scope, Receive, Send, Incoming], Awaitable[None]]


class Keyed:
    """The runs that this process executes, or waits for."""

    def __init__(self, settings: Idempotency, serve: Serve) -> None:
        self.settings = settings
        self._serve = serve
        self._cache = settings.cache
        self._runs: dict[bytes, Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._following = 0
        self._in_progress = in_progress(settings.retry_after)

    @property
    def running(self) -> int:
        return len(self._runs)

    async def drained(self, longest: float) -> None:
        """Until no run is under way, or for so many seconds."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=longest)

    async def __call__(self, scope: Scope, send: Send, request: Incoming, key: bytes, slot: Slot) -> None:
        """The body has been read. The slot is the run's: a client that goes away frees nothing that is still
        being worked on, and one that merely waits for another's response needs none."""
        tenant = self.settings.tenant(request)
        name, mark = run_name(tenant, request, key), self.settings.fingerprint(request)
        run = self._runs.get(name)
        if run is not None:
            slot.leave()
            return await self._follow(run, mark, send)
        run = self._runs[name] = Run(mark, self.settings.max_response_bytes)
        leader = self._lead(run, name, tenant, key, scope, request, slot.passed_on())
        task = asyncio.get_running_loop().create_task(leader)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await run.follow(send, True)

    async def _follow(self, run: Run, mark: bytes, send: Send) -> None:
        if run.fingerprint != mark:
            return await answer(send, KEY_REUSED)
        if self._following >= self.settings.max_duplicates:
            return await answer(send, overloaded(self.settings.retry_after, "too_many_duplicates"))
        self._following += 1
        try:
            while not run.known and not self.settings.joins:
                await run.changed()
            if not self.settings.joins and not run.replayed and run.refusal is None and not run.ended:
                return await answer(send, self._in_progress)
            return await run.follow(send, False)
        finally:
            self._following -= 1

    async def _lead(
        self, run: Run, name: bytes, tenant: bytes, key: bytes, scope: Scope, request: Incoming, slot: Slot
    ) -> None:
        try:
            found = await self._ask(name, run.fingerprint)
            if isinstance(found, Lease):
                found = await self._within_quota(found, tenant)
            if isinstance(found, Refusal):
                run.refuse(found)
            elif isinstance(found, Result):
                with found:
                    recorded = decode(bytes(found))
                if recorded is None:
                    run.refuse(NOT_REPLAYABLE)
                else:
                    run.load(recorded)
            else:
                run.execute()
                await Executing(self, run, found).go(scope, request, key)
        except Exception as error:
            if run.status or not run.led:
                # Otherwise it is raised to the server by whoever waits for the response to begin.
                log.error("the application failed in the run of a key", exc_info=error)
            run.breaks(error)
        finally:
            run.breaks()
            del self._runs[name]
            slot.leave()

    async def _ask(self, name: bytes, mark: bytes) -> Union[Lease, Result, Refusal]:
        cache = self._cache
        ask: Any = cache.join if self.settings.joins else cache.begin
        try:
            found = await once.asked_of(cache, lambda: ask(name, fingerprint=mark))
            if isinstance(found, Ticket):
                try:
                    found = await once.wait_async(cache, found, float("inf"))
                except BaseException:
                    once.let_go(found)
                    raise
        except Mismatch:
            return KEY_REUSED
        except InProgress:
            return self._in_progress
        except (CapacityError, OutOfMemory):
            return overloaded(self.settings.retry_after, "idempotency_full")
        except StoreError:
            log.warning("the store of the idempotency keys fails", exc_info=True)
            return overloaded(self.settings.retry_after, "idempotency_unavailable")
        assert isinstance(found, (Lease, Result))
        return found

    async def _within_quota(self, lease: Lease, tenant: bytes) -> Union[Lease, Refusal]:
        quota = self.settings.quota
        if quota is None:
            return lease
        try:
            if await quota.try_acquire_async(tenant):
                return lease
            refusal = limited(self.settings.retry_after, "idempotency keys", [])
        except ReliabilityError:
            refusal = overloaded(self.settings.retry_after, "idempotency_quota_unavailable")
        with suppress(ReliabilityError):
            await self.end(lease.fail)
        return refusal

    async def end(self, what: Callable[[], object]) -> None:
        """Whatever may wait for a store does so in a thread, to its end."""
        if self._cache._waits:
            await ended(what)
        else:
            what()

    async def serve(self, scope: Scope, receive: Receive, send: Send, request: Incoming) -> None:
        await self._serve(scope, receive, send, request)


class Executing:
    """One execution of the application for a key, from the lease to its end."""

    def __init__(self, keyed: Keyed, run: Run, lease: Lease) -> None:
        self._keyed, self._run, self._lease = keyed, run, lease
        self._every = max(lease.expires_in / 3, 0.01)
        self._renewing: Optional[asyncio.Task[None]] = None

    async def go(self, scope: Scope, request: Incoming, key: bytes) -> None:
        lease = self._lease
        told = Execution(key.decode("ascii"), lease.fence, lease.outcome_unknown, lease.lost_fence)
        # The application's own: it answers a run, not one client, and sends nothing that cannot be recorded.
        scope = {**scope, "extensions": {}, "state": {**scope.get("state", {}), "autoglm_reliability": told}}
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(self._every, self._renew)
        try:
            receive = again(request.body or b"", loop.create_future)
            await self._keyed.serve(scope, receive, self._send, request)
        finally:
            self._timer.cancel()
            if self._renewing is not None:
                await asyncio.wait([self._renewing])
            await self._over()

    def _renew(self) -> None:
        self._renewing = asyncio.get_running_loop().create_task(self._renewal())
        self._timer = asyncio.get_running_loop().call_later(self._every, self._renew)

    async def _renewal(self) -> None:
        # A store that is away is asked again in time; a lease that was lost shows when the run is over. The
        # run may end it in this very moment.
        with suppress(ReliabilityError, IndexError):
            await self._keyed.end(self._lease.renew)

    async def _send(self, message: Message) -> None:
        run = self._run
        kind = message["type"]
        if (kind == START and run.status) or (kind == BODY and (not run.status or run.ended)):
            raise RuntimeError(f"{kind} is not what comes next in this response")
        if kind == START:
            run.start(message)
        elif kind == BODY:
            run.write(bytes(message.get("body", b"")))
            if message.get("more_body", False):
                await run.caught_up()
            else:
                # First kept, then told: whoever has all of a response finds it again.
                self._timer.cancel()
                await self._keep()
                run.end()

    async def _keep(self) -> None:
        lease, run = self._lease, self._run
        recorded = run.recorded()
        data = MARKER if recorded is None else encode(recorded)
        finish = lease.complete if self._keyed.settings.final(run.status) else lease.fail
        try:
            try:
                await self._keyed.end(lambda: finish(data))
            except (CapacityError, NeverFits, OutOfMemory):
                await self._keyed.end(lambda: finish(MARKER))
        except LeaseLost:
            log.warning("a run took longer than its lease; its response is not kept")
        except ReliabilityError:
            log.warning("the response of a key cannot be kept", exc_info=True)

    async def _over(self) -> None:
        """Whatever has not come to its end by now may or may not have had its effect."""
        if not self._lease.ended:
            with suppress(ReliabilityError):
                await self._keyed.end(self._lease.abandon)
