# SPDX-License-Identifier: Apache-2.0
"""A response of requests, as the run of attempts sees it, and its body on the way to the caller."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Callable, Optional

import requests
import urllib3
from urllib3.exceptions import HTTPError, ProtocolError, ReadTimeoutError

from .._calling.failure import classify_failure
from .._calling.limits import Get
from .._calling.run import Answer, Run
from .._calling.usage import TAIL_BYTES
from ._errors import KINDS

PART_BYTES = 65_536
LATE = "the time for the whole of the attempt is over"


class RequestsAnswer(Answer):
    """limit: when all of it has to be over, on time.monotonic()."""

    def __init__(self, response: requests.Response, limit: float) -> None:
        self._limit = limit
        self._raw: Any = response.raw
        self._response: Optional[requests.Response] = response
        self.is_json = response.headers.get("content-type", "").startswith("application/json")
        self.says_zero = "0" in response.headers.values()
        self.status: int = response.status_code
        self.get: Get = response.headers.get
        self._parts: Optional[Iterator[bytes]] = None

    async def read(self) -> Optional[bytes]:
        if self._parts is None:
            self._parts = self._raw.stream(PART_BYTES, decode_content=False)
        if time.monotonic() > self._limit:
            raise requests.ReadTimeout(LATE)
        try:
            return next(self._parts, None)
        except ProtocolError as error:
            raise requests.exceptions.ChunkedEncodingError(error) from error
        except ReadTimeoutError as error:
            raise requests.exceptions.ReadTimeout(error) from error

    async def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        self._raw.close()
        self._raw.release_conn()

    def decoded(self, body: bytes) -> bytes:
        encoding = self.get("content-encoding")
        if not encoding:
            return body
        try:
            return urllib3.HTTPResponse(io.BytesIO(body), headers={"content-encoding": encoding}).data
        except HTTPError:
            return b""

    def with_body(self, body: Any) -> requests.Response:
        """The response with another body in the place of its own: something that can be read."""
        old = self._raw
        response = self._let_go()
        response.raw = urllib3.HTTPResponse(
            body=body,
            headers=old.headers,
            status=old.status,
            version=old.version,
            reason=old.reason,
            preload_content=False,
            # The cookies are in it.
            original_response=getattr(old, "_original_response", None),
        )
        return response

    def watched(self, run: Run[RequestsAnswer]) -> requests.Response:
        """The response, whose body's way to the caller the run is told of."""
        response = self._let_go()
        response.raw = Stream(self._raw, run)
        return response

    def _let_go(self) -> requests.Response:
        # The body will refer to the run, and so to this: whoever drops the response is to drop all of it.
        assert self._response is not None
        response, self._response = self._response, None
        return response


class Rest(io.RawIOBase):
    """What has been read of a body already, and the rest."""

    def __init__(self, run: Run[RequestsAnswer], next_part: Callable[[], Optional[bytes]]) -> None:
        super().__init__()
        self._run = run
        self._next = next_part
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = self._next() or b""
        count = min(len(buffer), len(self._left))
        buffer[:count], self._left = self._left[:count], self._left[count:]
        return count

    def close(self) -> None:
        if not self.closed:
            self._run.exchange.close()
            if self._run.answer is not None:
                self._run.answer.close_now()
        super().close()


class Stream:
    """urllib3's response, watched: whoever reads it reads it as before."""

    def __init__(self, raw: Any, run: Run[RequestsAnswer]) -> None:
        self._raw = raw
        self._run = run
        self._begun = False
        self._tail = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def __iter__(self) -> Iterator[bytes]:
        return self.stream()

    def stream(self, *arguments: Any, **keywords: Any) -> Iterator[bytes]:
        parts = self._raw.stream(*arguments, **keywords)
        while True:
            part = self._watched(lambda: next(parts, None))
            if part is None:
                return self._end()
            self._pass(part)
            yield part

    def read(self, amt: Optional[int] = None, *arguments: Any, **keywords: Any) -> bytes:
        data: bytes = self._watched(lambda: self._raw.read(amt, *arguments, **keywords))
        if data:
            self._pass(data)
        if amt is None or (amt and not data):
            self._end()
        return data

    def _watched(self, work: Callable[[], Any]) -> Any:
        exchange = self._run.exchange
        try:
            if time.monotonic() > exchange.limit:
                raise ReadTimeoutError(self._raw._pool, None, LATE)
            return work()
        except Exception as error:
            if not exchange.closed:
                exchange.fail(classify_failure(error, KINDS))
                exchange.close()
            raise

    def _pass(self, part: bytes) -> None:
        if not self._begun and not self._run.exchange.closed:
            self._begun = True
            self._run.exchange.commit()
        self._tail = (self._tail + part)[-TAIL_BYTES:]

    def _end(self) -> None:
        if not self._run.exchange.closed:
            self._run.exchange.succeed(self._run.costs_of(self._tail))

    def close(self) -> None:
        self._run.exchange.close()
        self._raw.close()

    def __del__(self) -> None:
        # Nobody has read it to its end, nor closed it: its connection is not to be lost to the pool.
        with suppress(Exception):
            self.close()

    def release_conn(self) -> None:
        self._run.exchange.close()
        self._raw.release_conn()
