# SPDX-License-Identifier: Apache-2.0
"""A response of httpx, as the run of attempts sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any, Optional

import httpx

from .._calling.run import Answer
from ._headers import entries


class HttpxAnswer(Answer):
    _parts: Any = None

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._stream: Any = response.stream
        self.status: int = response.status_code
        self.is_json = self.says_zero = False
        # One look at all of them costs less than to ask for one by its name.
        for _, name, value in entries(response.headers):
            if value == b"0":
                self.says_zero = True
            elif name == b"content-type":
                self.is_json = value.startswith(b"application/json")

    def get(self, name: str) -> Optional[str]:
        value: Optional[str] = self.response.headers.get(name)
        return value

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
    _parts: Optional[Iterator[bytes]]

    async def read(self) -> Optional[bytes]:
        if self._parts is None:
            self._parts = iter(self._stream)
        return next(self._parts, None)

    async def close(self) -> None:
        self._stream.close()


class AsyncAnswer(HttpxAnswer):
    _parts: Optional[AsyncIterator[bytes]]

    async def read(self) -> Optional[bytes]:
        if self._parts is None:
            self._parts = self._stream.__aiter__()
        try:
            return await self._parts.__anext__()
        except StopAsyncIteration:
            return None

    async def close(self) -> None:
        await self._stream.aclose()
