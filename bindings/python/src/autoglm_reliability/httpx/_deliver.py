# SPDX-License-Identifier: Apache-2.0
"""A request, delivered to the endpoint that answers it."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Callable, Generic, Optional, Protocol, TypeVar

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
from ._plan import Sending, give_key, is_whole, origin_of

A = TypeVar("A", bound=HttpxAnswer)
C = TypeVar("C", bound=HttpxAnswer, covariant=True)


@dataclass
class Delivery(Generic[A]):
    run: Run[A]
    answer: A


class Beginning(IO[C], Protocol[C]):
    async def begun(self, begin: Callable[[], Exchange]) -> Exchange:
        """What may wait for a store. Whoever is cancelled meanwhile has begun nothing."""


class Deliverer(Generic[A]):
    def __init__(
        self,
        hosts: Hosts,
        options: Options,
        endpoints: Sequence[Endpoint],
        io: Callable[[Sending], Beginning[A]],
    ) -> None:
        self._hosts = hosts
        self._options = options
        self._endpoints = endpoints
        self._io = io

    async def deliver(self, request: httpx.Request) -> Delivery[A]:
        repeatable, resendable = give_key(request, self._options), is_whole(request)
        if not self._endpoints:
            return await self._to(request, repeatable, resendable)
        targets = self._targets(request) if resendable else [request]
        until = math.inf
        for target in targets[:-1]:
            run = await self._begin(Sending(target), repeatable, resendable, until)
            until = min(until, time.monotonic() + run.exchange.remaining)
            delivery = await self._tried(run)
            if delivery is not None:
                return _of(request, target, delivery)
        return _of(request, targets[-1], await self._to(targets[-1], repeatable, resendable, until))

    def _targets(self, request: httpx.Request) -> list[httpx.Request]:
        rest = self._endpoints[0].rest_of(request.url)
        if rest is None:
            return [request]
        return [endpoint.request(request, rest) for endpoint in self._endpoints]

    async def _begin(self, sending: Sending, repeatable: bool, resendable: bool, until: float) -> Run[A]:
        request, io = sending.request, self._io(sending)
        costs = None if self._options.costs is None else tuple(self._options.costs(request))
        host, inbound = self._hosts.find(origin_of(request.url)), current_inbound()

        def begin() -> Exchange:
            return Exchange(self._hosts, host, self._options, repeatable, resendable, costs, until, inbound)

        try:
            exchange = await io.begun(begin) if host.policy._waits else begin()
        except Refused as error:
            raise refused(error) from None
        return Run(io, exchange, 0 if costs is None else len(costs))

    async def _to(
        self, request: httpx.Request, repeatable: bool, resendable: bool, until: float = math.inf
    ) -> Delivery[A]:
        sending = Sending(request)
        run = await self._begin(sending, repeatable, resendable, until)
        try:
            return Delivery(run, await run.obtain())
        finally:
            sending.restore()

    async def _tried(self, run: Run[A]) -> Optional[Delivery[A]]:
        """None: it is the next endpoint's turn."""
        try:
            answer = await run.obtain()
        except httpx.TransportError as error:
            if not _next_may_try(run, error):
                raise
            return None
        if answer.status < 400 or not _next_may_answer(run, answer.status):
            return Delivery(run, answer)
        await run.close()
        return None


def _of(request: httpx.Request, target: httpx.Request, delivery: Delivery[A]) -> Delivery[A]:
    if origin_of(target.url) != origin_of(request.url):
        delivery.answer.came_from(target.url)
    return delivery


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
