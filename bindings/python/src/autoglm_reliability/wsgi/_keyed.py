# SPDX-License-Identifier: Apache-2.0
"""Requests with an Idempotency-Key: whoever comes first has the run of the key made, the others follow it."""

from __future__ import annotations

import io
import logging
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, Callable, Optional, Union

from .._serving.idempotency import Execution, Idempotency
from .._serving.incoming import Incoming
from .._serving.key import run_name
from .._serving.recording import MARKER, REPLAYED, decode, encode, of_the_response
from .._serving.refusal import (
    KEY_REUSED,
    NOT_REPLAYABLE,
    RUN_BROKE,
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
from ..propagation import current_inbound, serving
from ..result import Result
from ._gate import Slot
from ._renewals import Renewals
from ._response import close_quietly
from ._run import Run
from ._types import Environ, Pairs, StartResponse, answer, as_bytes, as_text, status_line

log = logging.getLogger("autoglm_reliability.serving")

Serve = Callable[[Environ, StartResponse, Incoming], Iterable[bytes]]


class Keyed:
    """The runs that this process executes, or waits for."""

    def __init__(self, settings: Idempotency, serve: Serve) -> None:
        self.settings = settings
        self._serve = serve
        self._runs: dict[bytes, Run] = {}
        self._lock = threading.Lock()
        self._following = 0
        self._renewals = Renewals()
        self._in_progress = in_progress(settings.retry_after)

    def __call__(
        self, environ: Environ, start_response: StartResponse, request: Incoming, key: bytes, slot: Slot
    ) -> Iterable[bytes]:
        tenant = self.settings.tenant(request)
        name, mark = run_name(tenant, request, key), self.settings.fingerprint(request)
        with self._lock:
            run = self._runs.get(name)
            first = run is None
            if run is None:
                run = self._runs[name] = Run(mark, self.settings.max_response_bytes)
        if not first:
            slot.leave()
            return self._join(run, mark, start_response)
        me = run.attach()
        try:
            found = self._ask(name, mark)
            lease = self._within_quota(found, tenant) if isinstance(found, Lease) else found
            self._begin(run, lease, name, environ, request, key, slot)
        except BaseException as error:
            run.breaks(error if isinstance(error, Exception) else None)
            self._forget(name)
            raise
        return self._follow(run, me, start_response, True)

    def _begin(
        self,
        run: Run,
        found: Union[Lease, Result, Refusal],
        name: bytes,
        environ: Environ,
        request: Incoming,
        key: bytes,
        slot: Slot,
    ) -> None:
        if isinstance(found, Lease):
            # The slot is the run's: a client that goes away frees nothing that is still being worked on.
            run.execute()
            work = Executing(self, run, found, slot.passed_on())
            arguments = (name, dict(environ), request, key, current_inbound())
            try:
                threading.Thread(target=work.go, args=arguments, name="agr-run").start()
            except BaseException:
                work.not_begun()
                raise
            return
        if isinstance(found, Refusal):
            run.refuse(found)
        else:
            with found:
                recorded = decode(bytes(found))
            if recorded is None:
                run.refuse(NOT_REPLAYABLE)
            else:
                run.load(recorded)
        self._forget(name)

    def _forget(self, name: bytes) -> None:
        with self._lock:
            self._runs.pop(name, None)

    def _join(self, run: Run, mark: bytes, start_response: StartResponse) -> Iterable[bytes]:
        if run.fingerprint != mark:
            return answer(start_response, KEY_REUSED)
        if not self.settings.joins:
            run.wait_known()
            if not run.replayed and run.refusal is None and not run.ended:
                return answer(start_response, self._in_progress)
        me = run.attach()
        if me is None:
            return answer(start_response, NOT_REPLAYABLE)
        if run.followed_by > self.settings.max_duplicates + 1:
            run.detach(me)
            return answer(start_response, overloaded(self.settings.retry_after, "too_many_duplicates"))
        return self._follow(run, me, start_response, False)

    def _follow(self, run: Run, me: object, start_response: StartResponse, first: bool) -> Iterable[bytes]:
        if not run.started():
            run.detach(me)
            if run.refusal is None and first and run.error is not None:
                raise run.error
            return answer(start_response, run.refusal or RUN_BROKE)
        headers = list(run.headers)
        if run.replayed or not first:
            headers = [*of_the_response(headers), REPLAYED]
        start_response(status_line(run.status), as_text(headers))
        return Following(run, me)

    def _ask(self, name: bytes, mark: bytes) -> Union[Lease, Result, Refusal]:
        cache = self.settings.cache
        try:
            if not self.settings.joins:
                return cache.begin(name, fingerprint=mark)
            found = cache.join(name, fingerprint=mark)
            if isinstance(found, Ticket):
                with found as ticket:
                    return ticket.wait()
            return found
        except Mismatch:
            return KEY_REUSED
        except InProgress:
            return self._in_progress
        except (CapacityError, OutOfMemory):
            return overloaded(self.settings.retry_after, "idempotency_full")
        except StoreError:
            log.warning("the store of the idempotency keys fails", exc_info=True)
            return overloaded(self.settings.retry_after, "idempotency_unavailable")

    def _within_quota(self, lease: Lease, tenant: bytes) -> Union[Lease, Refusal]:
        quota = self.settings.quota
        if quota is None:
            return lease
        try:
            if quota.try_acquire(tenant):
                return lease
            refusal = limited(self.settings.retry_after, "idempotency keys", [])
        except ReliabilityError:
            refusal = overloaded(self.settings.retry_after, "idempotency_quota_unavailable")
        with suppress(ReliabilityError):
            lease.fail()
        return refusal


class Following:
    """A response that is read from a run. Closing it, early or not, is nothing to the run."""

    def __init__(self, run: Run, me: object) -> None:
        self._run, self._me = run, me
        self._parts = run.parts(me)

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        self._run.detach(self._me)


class Executing:
    """One execution of the application for a key, in a thread of its own: clients come and go, it stays."""

    def __init__(self, keyed: Keyed, run: Run, lease: Lease, slot: Slot) -> None:
        self._keyed, self._run, self._lease, self._slot = keyed, run, lease, slot
        self._started: Optional[tuple[int, Pairs]] = None

    def go(self, name: bytes, environ: Environ, request: Incoming, key: bytes, inbound: Any) -> None:
        lease, run = self._lease, self._run
        body = request.body or b""
        told = Execution(key.decode("ascii"), lease.fence, lease.outcome_unknown, lease.lost_fence)
        environ.update({"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))})
        environ["autoglm_reliability"] = told
        self._keyed._renewals.add(lease)
        try:
            with serving(inbound):
                self._produce(environ, request)
        except Exception as error:
            if run.status:
                # Before, it is raised to the server by whoever waits for the response to begin.
                log.error("the application failed in the run of a key", exc_info=error)
            run.breaks(error)
        finally:
            run.breaks()
            self._keyed._renewals.remove(lease)
            with suppress(ReliabilityError):
                lease.abandon()  # what has not come to its end may or may not have had its effect
            self._keyed._forget(name)
            self._slot.leave()

    def not_begun(self) -> None:
        """The system had no thread for it."""
        self._slot.leave()
        with suppress(ReliabilityError):
            self._lease.fail()

    def _produce(self, environ: Environ, request: Incoming) -> None:
        iterable = self._keyed._serve(environ, self._start, request)
        try:
            for data in iterable:
                self._write(data)
            self._begin()
            # First kept, then told: whoever has all of a response finds it again.
            self._keyed._renewals.remove(self._lease)
            self._keep()
            self._run.end()
        finally:
            close_quietly(iterable)

    def _start(self, status: str, headers: Pairs, exc_info: Any = None) -> Callable[[bytes], None]:
        if self._run.status:
            if exc_info:
                raise exc_info[1].with_traceback(exc_info[2])
            raise AssertionError("start_response was called again")
        self._started = int(status.split(" ", 1)[0]), list(headers)
        return self._write

    def _begin(self) -> None:
        # A response begins with its first bytes; until then an application may change its mind.
        if not self._run.status:
            assert self._started is not None, "start_response was not called"
            status, headers = self._started
            self._run.start(status, as_bytes(headers))

    def _write(self, data: bytes) -> None:
        if data:
            self._begin()
            self._run.write(data)

    def _keep(self) -> None:
        lease, run = self._lease, self._run
        recorded = run.recorded()
        finish = lease.complete if self._keyed.settings.final(run.status) else lease.fail
        try:
            try:
                finish(MARKER if recorded is None else encode(recorded))
            except (CapacityError, NeverFits, OutOfMemory):
                finish(MARKER)
        except LeaseLost:
            log.warning("a run took longer than its lease; its response is not kept")
        except ReliabilityError:
            log.warning("the response of a key cannot be kept", exc_info=True)
