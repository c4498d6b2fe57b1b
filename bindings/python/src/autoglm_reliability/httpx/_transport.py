# SPDX-License-Identifier: Apache-2.0
"""The two transports."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from types import TracebackType
from typing import Any, Callable, Optional, TypeVar

import httpx

from .._calling.hosts import Hosts
from .._calling.options import Options
from .._calling.run import Run, run_now
from ..policy import Policy
from ._answer import AsyncAnswer, SyncAnswer
from ._backend import limit_reads
from ._deliver import Deliverer
from ._endpoint import Endpoint
from ._io import AsyncIO, SyncIO
from ._plan import buffered_length, is_whole, origin_of
from ._stream import AsyncBody, Held, SyncBody

Self = TypeVar("Self", bound="_Common")


class _Common:
    _hosts: Hosts
    _options: Options

    def _set_up(self, endpoints: Sequence[Endpoint], options: dict[str, Any]) -> None:
        self._options = Options(**options)
        self._hosts = Hosts(self._options.policy, self._options.max_hosts)
        self._endpoints = tuple(endpoints)

    def policy(self, url: str) -> Policy:
        """The policy for the origin of a URL: its events, its snapshot, its switches."""
        return self._hosts.find(origin_of(httpx.URL(url))).policy

    def _deliverer(self, io: Callable[..., Any]) -> Deliverer[Any]:
        return Deliverer(self._hosts, self._options, self._endpoints, io)


class ReliableTransport(_Common, httpx.BaseTransport):
    """For httpx.Client: every request is a call of its origin's policy.

        httpx.Client(transport=ReliableTransport())

    transport  what makes the connections, and from then on is this transport's own, such as
               httpx.HTTPTransport(http2=True); a plain httpx.HTTPTransport() by default.
    endpoints  places that serve the same, in the order in which they are tried: a request to the first is
               served by the next when that one is refused or fails for another reason than the request.
    Others     the fields of Options.
    """

    def __init__(
        self,
        transport: Optional[httpx.BaseTransport] = None,
        *,
        endpoints: Sequence[Endpoint] = (),
        **options: Any,
    ) -> None:
        self._set_up(endpoints, options)
        self._inner = httpx.HTTPTransport() if transport is None else transport
        limit_reads(self._inner)
        self._deliver = self._deliverer(partial(SyncIO, self._inner)).deliver

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        whole = is_whole(request)
        if not whole and buffered_length(request, self._options):
            request.read()
            whole = True
        run: Run[SyncAnswer] = run_now(self._deliver(request, whole))
        response = run.obtained.response
        response.stream = Held(run.held) if run.whole else SyncBody(run)
        return response

    def close(self) -> None:
        self._hosts.close()  # first, so that no other thread opens a connection afterwards
        self._inner.close()

    def __enter__(self: Self) -> Self:
        self._inner.__enter__()  # type: ignore[attr-defined]
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]] = None,
        value: Optional[BaseException] = None,
        traceback: Optional[TracebackType] = None,
    ) -> None:
        self._hosts.close()
        self._inner.__exit__(kind, value, traceback)


class AsyncReliableTransport(_Common, httpx.AsyncBaseTransport):
    """As ReliableTransport, for httpx.AsyncClient."""

    def __init__(
        self,
        transport: Optional[httpx.AsyncBaseTransport] = None,
        *,
        endpoints: Sequence[Endpoint] = (),
        **options: Any,
    ) -> None:
        self._set_up(endpoints, options)
        self._inner = httpx.AsyncHTTPTransport() if transport is None else transport
        self._deliver = self._deliverer(partial(AsyncIO, self._inner)).deliver

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        whole = is_whole(request)
        if not whole and buffered_length(request, self._options):
            await request.aread()
            whole = True
        run: Run[AsyncAnswer] = await self._deliver(request, whole)
        response = run.obtained.response
        response.stream = Held(run.held) if run.whole else AsyncBody(run)
        return response

    async def aclose(self) -> None:
        self._hosts.close()
        await self._inner.aclose()

    async def __aenter__(self: Self) -> Self:
        await self._inner.__aenter__()  # type: ignore[attr-defined]
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]] = None,
        value: Optional[BaseException] = None,
        traceback: Optional[TracebackType] = None,
    ) -> None:
        self._hosts.close()
        await self._inner.__aexit__(kind, value, traceback)
