# SPDX-License-Identifier: Apache-2.0
"""The body of an answer on its way to the caller. The call of the policy lives as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Optional

import httpx

from .._calling.run import Run, run_now
from ._answer import AsyncAnswer, SyncAnswer


class Held(httpx.SyncByteStream, httpx.AsyncByteStream, AsyncIterator[bytes]):
    """A body that has been read already, to be passed on once. It is no generator, for asyncio keeps account
    of each of those."""

    def __init__(self, body: bytes) -> None:
        self._body: Optional[bytes] = body

    def __iter__(self) -> Iterator[bytes]:
        body, self._body = self._body, None
        return iter(() if body is None else (body,))

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        body, self._body = self._body, None
        if body is None:
            raise StopAsyncIteration
        return body


class SyncBody(httpx.SyncByteStream):
    def __init__(self, run: Run[SyncAnswer]) -> None:
        self._run = run

    def __iter__(self) -> Iterator[bytes]:
        run = self._run
        while True:
            part = run_now(run.next())
            if part is None:
                return
            yield part

    def close(self) -> None:
        run_now(self._run.close())

    def __del__(self) -> None:
        # Nobody has read it to its end, nor closed it: its connection is not to be lost to the pool.
        with suppress(Exception):
            self.close()


class AsyncBody(httpx.AsyncByteStream):
    """One that is neither read to its end nor closed gives back what it holds of the policy; its connection
    only httpx could close, which leaves it open as it does its own."""

    def __init__(self, run: Run[AsyncAnswer]) -> None:
        self._run = run

    async def __aiter__(self) -> AsyncIterator[bytes]:
        run = self._run
        while True:
            part = await run.next()
            if part is None:
                return
            yield part

    async def aclose(self) -> None:
        await self._run.close()
