# SPDX-License-Identifier: Apache-2.0
"""The middleware: what is refused is refused early, and the rest is served."""

from __future__ import annotations

import io
import math
import time
from collections.abc import Iterable, Sequence
from typing import Optional, Union

from .._convert import Duration, nanoseconds
from .._serving.idempotency import Idempotency
from .._serving.incoming import Incoming
from .._serving.key import read_key
from .._serving.limits import Held, Limits, RateLimit
from .._serving.line import Admission
from .._serving.refusal import BODY_TOO_LARGE, CALLER_GAVE_UP, KEY_MISSING, Refusal
from ..propagation import NOTHING, Inbound, current_inbound, read_inbound, serving
from ._gate import Gate, Slot
from ._keyed import Keyed
from ._response import Metered
from ._types import App, Environ, StartResponse, answer, declared_length, incoming, read_body


class ReliabilityMiddleware:
    """Around any WSGI application. The arguments are those of the one for ASGI; how long a body may take to
    arrive is for a WSGI server to say."""

    def __init__(
        self,
        app: App,
        *,
        idempotency: Optional[Idempotency] = None,
        limits: Sequence[RateLimit] = (),
        admission: Optional[Admission] = None,
        max_body_bytes: int = 16 << 20,
        deadline: Optional[Duration] = None,
    ) -> None:
        self.app = app
        self._largest = max_body_bytes
        self._deadline = None if deadline is None else nanoseconds(deadline, "deadline") / 1e9
        self._gate = None if admission is None else Gate(admission)
        self._limits = Limits(limits) if limits else None
        self._reads_body = self._limits is not None and self._limits.reads_body
        self._keyed = None if idempotency is None else Keyed(idempotency, self._limited)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        inbound = read_inbound(environ.get("HTTP_AGR_TIMEOUT_MS"), environ.get("HTTP_AGR_ATTEMPT"))
        if self._deadline is not None:
            own = time.monotonic() + self._deadline
            inbound = Inbound(min(inbound.deadline, own), inbound.attempt)
        if inbound == NOTHING:
            return self._admit(environ, start_response, math.inf)
        with serving(inbound):
            return self._admit(environ, start_response, inbound.remaining)

    def _admit(self, environ: Environ, start_response: StartResponse, longest: float) -> Iterable[bytes]:
        request = incoming(environ)
        key = self._early(environ, request, longest)
        if isinstance(key, Refusal):
            return answer(start_response, key)
        if self._gate is not None:
            refusal = self._gate.enter(request, longest)
            if refusal is not None:
                return answer(start_response, refusal)
        slot = Slot(self._gate)
        try:
            return self._read(environ, start_response, request, key, slot)
        except BaseException:
            slot.leave()
            raise

    def _early(self, environ: Environ, request: Incoming, longest: float) -> Union[bytes, Refusal, None]:
        """What can be refused before anything is taken; else the key, if there is one."""
        if longest <= 0:
            return CALLER_GAVE_UP
        if declared_length(environ) > self._largest:
            return BODY_TOO_LARGE
        if self._keyed is None or request.method not in self._keyed.settings.methods:
            return None
        sent = environ.get("HTTP_IDEMPOTENCY_KEY")
        if sent is not None:
            return read_key([str(sent).encode("latin-1", "replace")])
        return KEY_MISSING if self._keyed.settings.required(request) else None

    def _read(
        self,
        environ: Environ,
        start_response: StartResponse,
        request: Incoming,
        key: Optional[bytes],
        slot: Slot,
    ) -> Iterable[bytes]:
        if key is not None or self._reads_body:
            body = read_body(environ, self._largest)
            if isinstance(body, Refusal):
                slot.leave()
                return answer(start_response, body)
            request.body = body
            if key is not None and self._keyed is not None:
                try:
                    return self._keyed(environ, start_response, request, key, slot)
                finally:
                    slot.leave()  # unless it was passed on to the run
            environ["wsgi.input"] = io.BytesIO(body)
            environ["CONTENT_LENGTH"] = str(len(body))
        return self._limited(environ, start_response, request, slot)

    def _limited(
        self, environ: Environ, start_response: StartResponse, request: Incoming, slot: Optional[Slot] = None
    ) -> Iterable[bytes]:
        slot = Slot(None) if slot is None else slot
        held = None
        if self._limits is not None:
            taken = self._limits.take(request, current_inbound().remaining)
            if isinstance(taken, Refusal):
                slot.leave()
                return answer(start_response, taken)
            held = self._turn(taken)
        metered = Metered(held, slot)
        try:
            return metered.of(self.app(environ, metered.starting(start_response)))
        except BaseException:
            metered.over()
            raise

    def _turn(self, held: Held) -> Held:
        if held.wait > 0:
            try:
                time.sleep(held.wait)
            except BaseException:
                held.cancel()
                raise
        return held
