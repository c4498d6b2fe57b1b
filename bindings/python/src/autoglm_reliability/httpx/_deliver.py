# SPDX-License-Identifier: Apache-2.0
"""A request, delivered to the endpoint that answers it."""

from __future__ import annotations

import math
import time
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Callable, Generic, Protocol, TypeVar

import httpx

from .._calling.answer import UNDONE
from .._calling.exchange import Exchange
from .._calling.hosts import Hosts
from .._calling.options import Options
from .._calling.run import IO, Run
from ..errors import DeadlineExceeded, Refused
from ..propagation import current_inbound
from ._answer import HttpxAnswer
from ._endpoint import Endpoint
from ._errors import KINDS, refused
from ._headers import Name
from ._plan import Places, give_key, origin_of

A = TypeVar("A", bound=HttpxAnswer)
C = TypeVar("C", bound=HttpxAnswer, covariant=True)


class Beginning(IO[C], Protocol[C]):
    """The attempts of `request`."""

    request: httpx.Request

    def restore(self) -> None:
        """Leaves the request as it was before its attempts."""

    async def begun(self, begin: Callable[[], Exchange]) -> Exchange:
        """What may wait for a store. Whoever is cancelled meanwhile has begun nothing."""


class Deliverer(Generic[A]):
    def __init__(
        self,
        hosts: Hosts,
        options: Options,
        endpoints: Sequence[Endpoint],
        io: Callable[[httpx.Request], Beginning[A]],
    ) -> None:
        self._hosts = hosts
        self._places = Places(hosts)
        self._options = options
        name = options.idempotency_header
        self._key = Name(name) if name else None
        self._endpoints = endpoints
        self._io = io

    def deliver(self, request: httpx.Request, whole: bool) -> Coroutine[Any, Any, Run[A]]:
        """whole: its body can be sent as often as one likes. The run has an answer to pass on."""
        repeatable = give_key(request, self._key)
        if self._endpoints:
            return self._to_one(request, repeatable, whole)
        return self._to(request, repeatable, whole)

    async def _to_one(self, request: httpx.Request, repeatable: bool, whole: bool) -> Run[A]:
        targets = self._targets(request) if whole else [request]
        until = math.inf
        for target in targets[:-1]:
            run = await self._begin(self._io(target), repeatable, whole, until)
            until = min(until, time.monotonic() + run.exchange.remaining)
            if await self._tried(run):
                return _of(request, target, run)
        return _of(request, targets[-1], await self._to(targets[-1], repeatable, whole, until))

    def _targets(self, request: httpx.Request) -> list[httpx.Request]:
        rest = self._endpoints[0].rest_of(request.url)
        if rest is None:
            return [request]
        return [endpoint.request(request, rest) for endpoint in self._endpoints]

    async def _begin(self, io: Beginning[A], repeatable: bool, resendable: bool, until: float) -> Run[A]:
        options, request = self._options, io.request
        costs = None if options.costs is None else tuple(options.costs(request))
        host = self._places.find(request.url)
        how = (self._hosts, host, options, repeatable, resendable, costs, until, current_inbound())
        try:
            exchange = await io.begun(partial(Exchange, *how)) if host.policy._waits else Exchange(*how)
        except Refused as error:
            raise refused(error) from None
        return Run(io, exchange, 0 if costs is None else len(costs))

    async def _to(
        self, request: httpx.Request, repeatable: bool, resendable: bool, until: float = math.inf
    ) -> Run[A]:
        io = self._io(request)
        run = await self._begin(io, repeatable, resendable, until)
        try:
            await run.obtain()
            return run
        finally:
            io.restore()

    async def _tried(self, run: Run[A]) -> bool:
        """No: it is the next endpoint's turn."""
        try:
            answer = await run.obtain()
        except httpx.TransportError as error:
            if not _next_may_try(run, error):
                raise
            return False
        if answer.status < 400 or not _next_may_answer(run, answer.status):
            return True
        await run.close()
        return False


def _of(request: httpx.Request, target: httpx.Request, run: Run[A]) -> Run[A]:
    if origin_of(target.url) != origin_of(request.url):
        run.obtained.came_from(target.url)
    return run


def _next_may_try(run: Run[A], error: httpx.TransportError) -> bool:
    """After an exception: whether another endpoint may be asked."""
    if isinstance(error, (DeadlineExceeded, *KINDS.own)):
        return False
    if isinstance(error, Refused) and run.exchange.failure is None:
        return True
    return run.exchange.repeatable or isinstance(error, KINDS.unsent)


def _next_may_answer(run: Run[A], status: int) -> bool:
    """After an answer that refuses: whether another endpoint's may be better."""
    if run.of_the_account or status in UNDONE:
        return True
    return status >= 500 and run.exchange.repeatable
