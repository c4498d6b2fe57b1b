# SPDX-License-Identifier: Apache-2.0
"""What the tests of the transports share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Callable

import httpx
from anyio.from_thread import start_blocking_portal

from autoglm_reliability import Backoff, CircuitBreaker, Jitter, Policy, Retry
from autoglm_reliability.httpx import AsyncReliableTransport, ReliableTransport
from autoglm_reliability.testing import ManualClock


def quick(clock: ManualClock, attempts: int = 3, **fields: Any) -> Callable[[str], Policy]:
    """Waits move the clock and take no time."""
    backoff = Backoff(max_attempts=attempts, base_delay=0.25, jitter=Jitter.NONE)

    def make(_: str) -> Policy:
        fields.setdefault("breaker", CircuitBreaker(minimum_calls=50, clock=clock))
        return Policy(retry=Retry(backoff, server_delay_spread=0), clock=clock, **fields)

    return make


class Caller:
    """The same calls by either kind of client."""

    def __init__(self, kind: str, **options: Any) -> None:
        self.is_async = kind == "async"
        self.transport: Any = (
            AsyncReliableTransport(**options) if self.is_async else ReliableTransport(**options)
        )

        self._portal: Any = None
        if self.is_async:
            self._context = start_blocking_portal()
            self._portal = self._context.__enter__()

    def run(self, work: Callable[..., Any]) -> Any:
        """A coroutine function, in the event loop that the transport lives in."""
        return self._portal.call(work)

    def close(self) -> None:
        if not self.is_async:
            self.transport.close()
            return
        self.run(self.transport.aclose)
        self._context.__exit__(None, None, None)

    def request(self, method: str, url: str, *, timeout: Any = 10, **arguments: Any) -> httpx.Response:
        if not self.is_async:
            return httpx.Client(transport=self.transport, timeout=timeout).request(method, url, **arguments)

        async def once() -> httpx.Response:
            client = httpx.AsyncClient(transport=self.transport, timeout=timeout)
            return await client.request(method, url, **arguments)

        return self.run(once)

    def stream(
        self, method: str, url: str, *, timeout: Any = 10, take: int = -1, see: Any = None, **arguments: Any
    ) -> list[bytes]:
        """The parts of the body, at most `take` of them; a failure has those before it in `parts`."""
        parts: list[bytes] = []
        see = see or (lambda _: None)
        if not self.is_async:
            client = httpx.Client(transport=self.transport, timeout=timeout)
            with _with(parts), client.stream(method, url, **arguments) as response:
                for part in response.iter_raw():
                    parts.append(part)
                    see(part)
                    if len(parts) == take:
                        break
            return parts

        async def once() -> None:
            client = httpx.AsyncClient(transport=self.transport, timeout=timeout)
            async with client.stream(method, url, **arguments) as response:
                stream = response.aiter_raw()
                async for part in stream:
                    parts.append(part)
                    see(part)
                    if len(parts) == take:
                        break
                await stream.aclose()

        with _with(parts):
            self.run(once)
        return parts


@contextmanager
def _with(parts: list[bytes]) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.parts = b"".join(parts)  # type: ignore[attr-defined]
        raise
