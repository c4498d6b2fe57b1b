# SPDX-License-Identifier: Apache-2.0
"""What a careless application may do to the middleware, message by message."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

import autoglm_reliability as agr
from asgi_messages import KEY, keyed, request
from autoglm_reliability.asgi import RateLimit, ReliabilityMiddleware

HOUR = 3600


def test_headers_may_be_an_iterator() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json"), (b"x-after", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": iter(headers)})
        await send({"type": "http.response.body", "body": b"{}"})

    async def main() -> None:
        limit = RateLimit(tokens=agr.KeyedRateLimiter(10_000, 1, HOUR))
        told = await request(ReliabilityMiddleware(app, limits=[limit]), [])
        assert (b"x-after", b"1") in told.headers

    asyncio.run(main())


@pytest.mark.parametrize(
    "kinds",
    [
        ["http.response.start", "http.response.start"],
        ["http.response.body"],
        ["http.response.start", "http.response.body", "http.response.body"],
        ["http.response.start", "http.response.body", "http.response.start"],
    ],
)
def test_an_application_that_answers_out_of_turn_is_told_so_as_by_a_server(kinds: list[str]) -> None:
    raised: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for number, kind in enumerate(kinds):
            try:
                await send({"type": kind, "status": 200 + number, "headers": [], "body": b"%d" % number})
            except RuntimeError as error:
                raised.append(str(error))
        if kinds[-1] == "http.response.start":
            await send({"type": "http.response.body", "body": b"late"})

    async def main() -> None:
        middleware = keyed(app)
        first = await request(middleware, [KEY])
        await asyncio.sleep(0)
        second = await request(middleware, [KEY])
        assert len(raised) >= 1
        if first.whole and first.status == 200:
            assert (second.status, second.body) == (first.status, first.body)

    try:
        asyncio.run(main())
    except RuntimeError as error:
        raised.append(str(error))


@pytest.mark.parametrize("after", ["nothing", "start", "part", "end"])
def test_no_exception_of_an_application_is_lost(after: str, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if after != "nothing":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if after in ("part", "end"):
            await send({"type": "http.response.body", "body": b"x", "more_body": after == "part"})
        raise ValueError("on purpose")

    async def main() -> BaseException | None:
        middleware = keyed(app)
        try:
            await request(middleware, [KEY])
        except ValueError as error:
            return error
        assert middleware._keyed is not None
        await middleware._keyed.drained(10)
        return None

    with caplog.at_level(logging.ERROR, "autoglm_reliability"):
        raised = asyncio.run(main())
    logged = [
        record for record in caplog.records if record.exc_info and "on purpose" in str(record.exc_info[1])
    ]
    assert (raised is None) == (after != "nothing")
    assert len(logged) == (raised is None)
