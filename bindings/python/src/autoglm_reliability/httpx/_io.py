# SPDX-License-Identifier: Apache-2.0
"""How attempts are made and waits are waited, blocking and not."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Coroutine
from typing import Any, Callable, TypeVar

import anyio
import anyio.lowlevel
import httpx

from .. import _generated as c
from .._aside import asked, ended
from .._calling.exchange import Exchange
from .._drive import _wait, _wait_async
from .._time import sleep
from .._timeout import start
from ..errors import Refused
from ._answer import AsyncAnswer, SyncAnswer
from ._backend import LATE, within
from ._errors import KINDS, refused
from ._plan import Sending

T = TypeVar("T")


class _Common(Sending):
    kinds = KINDS

    def refused(self, error: Refused) -> Exception:
        return refused(error)


class SyncIO(_Common):
    _inner: httpx.BaseTransport

    async def send(self, exchange: Exchange) -> SyncAnswer:
        timeouts = self.prepare(exchange)
        response = self._inner.handle_request(self.request)
        timeouts["read"] = self.body_read
        return SyncAnswer(response)

    async def within(self, limit: float, work: Coroutine[Any, Any, T]) -> T:
        return await within(limit, work)

    async def sleep(self, exchange: Exchange, duration: float) -> None:
        sleep(exchange.policy._clock, duration)

    async def wait(self, exchange: Exchange) -> None:
        _wait(exchange.policy._clock, exchange.call.step)

    async def begun(self, begin: Callable[[], Exchange]) -> Exchange:
        return begin()

    async def aside(self, work: Callable[[], object]) -> None:
        work()


class AsyncIO(_Common):
    _inner: httpx.AsyncBaseTransport

    async def send(self, exchange: Exchange) -> AsyncAnswer:
        timeouts = self.prepare(exchange)
        response = await self._inner.handle_async_request(self.request)
        timeouts["read"] = self.body_read
        return AsyncAnswer(response)

    async def within(self, limit: float, work: Coroutine[Any, Any, T]) -> T:
        if limit == math.inf:
            return await work
        left = max(0.0, limit - time.monotonic())
        try:
            timer = start(left)
        except RuntimeError:
            return await _elsewhere(left, work)
        try:
            return await work
        except asyncio.CancelledError:
            if timer.was_late():
                raise httpx.ReadTimeout(LATE) from None
            raise
        finally:
            timer.stop()

    async def sleep(self, exchange: Exchange, duration: float) -> None:
        virtual = getattr(exchange.policy._clock, "sleep", None)
        if virtual is None:
            await anyio.sleep(duration)
        else:
            virtual(duration)
            await anyio.lowlevel.checkpoint()

    async def wait(self, exchange: Exchange) -> None:
        if exchange.kind == c.AGR_STEP_JOIN:
            await _wait_async(exchange.policy._clock, exchange.call.step)
        else:
            await self.sleep(exchange, exchange.call._raw.wait_ns / 1e9)

    async def begun(self, begin: Callable[[], Exchange]) -> Exchange:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            raise RuntimeError("a policy with a part in a store needs the event loop of asyncio") from None
        return await asked(begin, Exchange.close)

    async def aside(self, work: Callable[[], object]) -> None:
        await ended(work)


async def _elsewhere(left: float, work: Coroutine[Any, Any, T]) -> T:
    """In an event loop that is not asyncio's."""
    try:
        with anyio.fail_after(left):
            return await work
    except TimeoutError:
        raise httpx.ReadTimeout(LATE) from None
