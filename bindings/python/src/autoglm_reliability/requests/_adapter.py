# SPDX-License-Identifier: Apache-2.0
"""The adapter."""

from __future__ import annotations

import os
import time
from collections.abc import Coroutine, Sequence
from io import BytesIO
from typing import Any, Callable, Optional, TypeVar
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.utils import rewind_body
from urllib3.util import Timeout

from .._calling import usage
from .._calling.exchange import IDEMPOTENT, KEYED, Exchange, least
from .._calling.hosts import Hosts
from .._calling.options import Options
from .._calling.run import Run, run_now
from .._drive import _wait
from .._time import sleep
from ..errors import ArgumentError, Refused
from ..policy import Policy
from ..propagation import current_inbound
from ._answer import LATE, RequestsAnswer, Rest
from ._errors import KINDS, refused

T = TypeVar("T")


def chat_costs(request: requests.PreparedRequest) -> Sequence[int]:
    """(1, tokens), for a policy with a limiter of requests and one of tokens: those of the text that is sent,
    by its length, and of the longest answer that it allows."""
    body = request.body
    if isinstance(body, str):
        body = body.encode()
    return usage.chat_costs(body if isinstance(body, bytes) else b"")


class ReliableAdapter(HTTPAdapter):
    """Every request is a call of its origin's policy.

    pool_connections, pool_maxsize, pool_block  as of HTTPAdapter, whose own retries are off.
    Others                                      the fields of Options, but retry_after_first_byte.
    """

    def __init__(
        self,
        *,
        pool_connections: int = 10,
        pool_maxsize: int = 10,
        pool_block: bool = False,
        **options: Any,
    ) -> None:
        self._options = Options(**options)
        if self._options.retry_after_first_byte:
            field = "retry_after_first_byte"
            raise ArgumentError(f"{field}: only the transports for httpx can do that", field)
        self._hosts = Hosts(self._options.policy, self._options.max_hosts)
        super().__init__(pool_connections, pool_maxsize, max_retries=0, pool_block=pool_block)

    def policy(self, url: str) -> Policy:
        """The policy for the origin of a URL: its events, its snapshot, its switches."""
        return self._hosts.find(_origin(url)).policy

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        whole = request.body is None or isinstance(request.body, (str, bytes))
        resendable = whole or isinstance(getattr(request, "_body_position", None), int)
        costs = None if self._options.costs is None else tuple(self._options.costs(request))
        repeatable = self._give_key(request)
        origin = _origin(request.url or "")
        try:
            host, inbound = self._hosts.find(origin), current_inbound()
            exchange = Exchange(
                self._hosts, host, self._options, repeatable, resendable, costs, inbound=inbound
            )
        except Refused as error:
            raise refused(error, request) from None
        how = {"stream": True, "verify": verify, "cert": cert, "proxies": proxies}
        io = _IO(self, request, timeout, how, rewind=not whole)
        run: Run[RequestsAnswer] = Run(io, exchange, 0 if costs is None else len(costs))
        return _passed_on(run, run_now(run.obtain()))

    def _give_key(self, request: requests.PreparedRequest) -> bool:
        """Whether the request may be repeated though it may have been executed; a key makes it so."""
        name, method = self._options.idempotency_header, request.method or ""
        if method in IDEMPOTENT or not name or name in request.headers:
            return method in IDEMPOTENT or bool(name)
        if method not in KEYED:
            return False
        request.headers[name] = os.urandom(16).hex()
        return True

    def close(self) -> None:
        super().close()
        self._hosts.close()

    def __getstate__(self) -> Any:
        raise TypeError("a ReliableAdapter belongs to one process: make one in each")


def _passed_on(run: Run[RequestsAnswer], answer: RequestsAnswer) -> requests.Response:
    if run.whole:
        return answer.with_body(BytesIO(run.held))
    if run.held:
        return answer.with_body(Rest(run, lambda: run_now(run.next())))
    return answer.watched(run)


class _IO:
    kinds = KINDS

    def __init__(
        self,
        adapter: HTTPAdapter,
        request: requests.PreparedRequest,
        timeout: Any,
        how: dict[str, Any],
        rewind: bool,
    ) -> None:
        self._adapter = adapter
        self._request = request
        self._timeout = timeout
        self._how = how
        self._rewind = rewind

    async def send(self, exchange: Exchange) -> RequestsAnswer:
        total = exchange.attempt_time
        connect, read = _asked(self._timeout)
        connect = least(connect, min(exchange.connect_ns / 1e9, total))
        first = least(read, min(exchange.first_byte_ns / 1e9, total))
        if exchange.options.propagate:
            self._request.headers.update((name, str(value)) for name, value in exchange.headers())
        if self._rewind and exchange.number > 1:
            rewind_body(self._request)
        response = HTTPAdapter.send(self._adapter, self._request, timeout=(connect, first), **self._how)
        # From here on the time-out is for what lies between two reads.
        connection = getattr(getattr(response.raw, "connection", None), "sock", None)
        if connection is not None:
            connection.settimeout(least(read, min(exchange.idle_ns / 1e9, total)))
        return RequestsAnswer(response, exchange.limit)

    async def within(self, limit: float, work: Coroutine[Any, Any, T]) -> T:
        done = await work
        if time.monotonic() > limit:
            raise requests.ReadTimeout(LATE, request=self._request)
        return done

    async def sleep(self, exchange: Exchange, duration: float) -> None:
        sleep(exchange.policy._clock, duration)

    async def wait(self, exchange: Exchange) -> None:
        _wait(exchange.policy._clock, exchange.call.step)

    async def aside(self, work: Callable[[], object]) -> None:
        work()

    def refused(self, error: Refused) -> Exception:
        return refused(error, self._request)


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _asked(timeout: Any) -> tuple[Optional[float], Optional[float]]:
    """The time-outs for the connection and for a read, in any of the forms that requests takes."""
    if isinstance(timeout, Timeout):
        timeout = timeout.clone()
        timeout.start_connect()
        connect, read = timeout.connect_timeout, timeout.read_timeout
        return (connect if isinstance(connect, (int, float)) else None), read
    if isinstance(timeout, tuple):
        connect, read = timeout
        return connect, read
    return timeout, timeout
