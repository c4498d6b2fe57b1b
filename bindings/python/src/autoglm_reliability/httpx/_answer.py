# SPDX-License-Identifier: Apache-2.0
"""A response of httpx, as the run of attempts sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Optional

import httpx

from .._calling.limits import Get
from .._calling.run import Answer
from ._headers import entries


class HttpxAnswer(Answer):
    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status: int = response.status_code
        self.get: Get = response.headers.get
        self.is_json = self.says_zero = False
        # One look at all of them costs less than to ask for one by its name.
        for _, name, value in entries(response.headers):
            if value == b"0":
                self.says_zero = True
            elif name == b"content-type":
                self.is_json = value.startswith(b"application/json")

    def came_from(self, url: httpx.URL) -> None:
        """The request that the client will take it for was made for another origin: its cookies are not that
        one's, and a redirect is not within that one."""
        headers = self.response.headers
        headers.pop("set-cookie", None)
        if "location" in headers:
            with suppress(httpx.InvalidURL):
                headers["location"] = str(url.join(headers["location"]))

    def decoded(self, body: bytes) -> bytes:
        encoding = self.get("content-encoding")
        if not encoding:
            return body
        try:
            return httpx.Response(200, headers={"content-encoding": encoding}, content=body).content
        except httpx.DecodingError:
            return b""


class SyncAnswer(HttpxAnswer):
    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response)
        assert isinstance(response.stream, httpx.SyncByteStream)
        self._stream = response.stream
        self._parts: Optional[Iterator[bytes]] = None

    async def read(self) -> Optional[bytes]:
        if self._parts is None:
            self._parts = iter(self._stream)
        return next(self._parts, None)

    async def close(self) -> None:
        self._stream.close()


class AsyncAnswer(HttpxAnswer):
    def __init__(self, response: httpx.Response) -> None:
        super().__init__(response)
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._stream = response.stream
        self._parts: Optional[AsyncIterator[bytes]] = None

    async def read(self) -> Optional[bytes]:
        if self._parts is None:
            self._parts = self._stream.__aiter__()
        try:
            return await self._parts.__anext__()
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        await self._stream.aclose()
