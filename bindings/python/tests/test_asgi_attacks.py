# SPDX-License-Identifier: Apache-2.0
"""What a hostile client and an unusual server may do to the middleware, by messages and over sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import autoglm_reliability as agr
from asgi_messages import KEY, Echo, Headers, keyed, request
from asgi_server import AsgiServer, Raw, status_of
from autoglm_reliability.asgi import Idempotency, RateLimit, ReliabilityMiddleware

HOUR = 3600


# Whose key it is


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([(b"cookie", b"session=a")], [(b"cookie", b"session=b")]),
        ([(b"cookie", b"session=a")], []),
        ([(b"host", b"a.example")], [(b"host", b"b.example")]),
        ([(b"authorization", b"Basic gate"), (b"x-api-key", b"a")],
         [(b"authorization", b"Basic gate"), (b"x-api-key", b"b")]),
        ([(b"api-key", b"a")], [(b"api-key", b"b")]),
        ([(b"x-goog-api-key", b"a")], [(b"x-goog-api-key", b"b")]),
    ],
)  # fmt: skip
def test_nobody_gets_the_response_of_another_who_comes_from_the_same_address(
    one: Headers, other: Headers
) -> None:
    async def main() -> None:
        app = Echo()
        middleware = keyed(app)
        assert (await request(middleware, [KEY, *one])).body == b"1:"
        told = await request(middleware, [KEY, *other])
        assert (told.status, told.body) == (200, b"2:") or told.code == "idempotency_key_reused"
        again = await request(middleware, [KEY, *one])
        assert (again.body, again.headers[-1]) == (b"1:", (b"idempotency-replayed", b"true"))

    asyncio.run(main())


def test_a_caller_with_credentials_may_change_its_cookies() -> None:
    async def main() -> None:
        middleware = keyed(Echo())
        mine = [KEY, (b"authorization", b"Bearer a")]
        first = await request(middleware, [*mine, (b"cookie", b"edge=1"), (b"host", b"a")])
        second = await request(middleware, [*mine, (b"cookie", b"edge=2"), (b"host", b"b")])
        assert second.body == first.body == b"1:"

    asyncio.run(main())


def test_whoever_sends_two_api_keys_is_the_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """As frameworks see it: otherwise a second, made up key would be another bucket for each request."""

    async def main() -> None:
        limits = [RateLimit(requests=agr.KeyedRateLimiter(2, 1, HOUR))]
        middleware = ReliabilityMiddleware(Echo(), limits=limits)
        told = [
            await request(middleware, [(b"x-api-key", b"mine"), (b"x-api-key", b"%d" % number)])
            for number in range(3)
        ]
        assert [one.status for one in told] == [200, 200, 429]

    asyncio.run(main())


# Bodies


@pytest.mark.parametrize(
    ("version", "headers"),
    [
        ("2", []),
        ("3", []),
        ("1.1", [(b"content-length", b"00000000000000000000000005")]),
    ],
)
def test_a_body_is_a_body_however_it_is_announced(version: str, headers: Headers) -> None:
    async def main() -> None:
        app = Echo()
        middleware = keyed(app)
        for body in (b"hello", b"other"):
            told = await request(middleware, [KEY, *headers], (body[:2], body[2:]), version=version)
            assert told.body == b"1:hello" or told.code == "idempotency_key_reused"
        assert app.bodies == [b"hello"]

    asyncio.run(main())


@pytest.mark.parametrize("length", [b"99999999999999999999", b"9" * 4000, b"0" * 30 + b"101"])
@pytest.mark.parametrize("extra", [[], [KEY]])
def test_an_absurd_length_is_too_large(length: bytes, extra: Headers) -> None:
    async def main() -> None:
        app = Echo()
        middleware = ReliabilityMiddleware(
            app, idempotency=Idempotency(agr.IdempotencyCache()), max_body_bytes=100
        )
        told = await request(middleware, [(b"content-length", length), *extra], (b"x" * 60, b"x" * 60))
        assert (told.status, app.bodies) == (413, [])

    asyncio.run(main())


@pytest.mark.parametrize("http", ["h11", "httptools"])
def test_an_absurd_length_is_too_large_for_every_parser(http: str) -> None:
    app = Echo()
    with AsgiServer(ReliabilityMiddleware(app, max_body_bytes=100), lifespan="off", http=http) as server:
        head = b"POST / HTTP/1.1\r\nhost: t\r\ncontent-length: %s\r\n\r\n"
        for length in (b"00000000000000000101", b"99999999999999999999", b"9" * 100):
            raw = Raw(server.port, head % length + b"x" * 101)
            assert status_of(raw.until(b"\r\n\r\n")) in (400, 413)
            raw.close()
    assert app.bodies == []


@pytest.mark.parametrize(
    "parts", [(b"hello",), (b"hello", b""), (b"", b"hello"), (b"", b"he", b"", b"llo", b"")]
)
def test_a_body_is_all_of_its_parts(parts: tuple[bytes, ...]) -> None:
    async def main() -> None:
        told = await request(keyed(Echo()), [KEY, (b"content-length", b"5")], parts)
        assert told.body == b"1:hello"

    asyncio.run(main())


def test_empty_parts_of_a_body_are_not_kept() -> None:
    from autoglm_reliability.asgi._body import Bounds, read_body

    left = 100_000

    async def receive() -> Any:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": b"" if left else b"end", "more_body": left > 0}

    async def main() -> None:
        import tracemalloc

        tracemalloc.start()
        try:
            assert await read_body(receive, Bounds(100, 60, 60)) == b"end"
            assert tracemalloc.get_traced_memory()[1] < 200_000
        finally:
            tracemalloc.stop()

    asyncio.run(main())


# Keys of limits


@pytest.mark.parametrize("model", [5, 2**40, -1, 1e300, ["a"], {"a": 1}, True])
def test_a_limits_key_may_be_anything_that_json_can_say(model: Any) -> None:
    async def main() -> None:
        limit = RateLimit(
            requests=agr.KeyedRateLimiter(2, 1, HOUR), reads_body=True, key=lambda asked: asked.json["model"]
        )
        middleware = ReliabilityMiddleware(Echo(), limits=[limit])
        body = json.dumps({"model": model}).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        told = [await request(middleware, headers, (body,)) for _ in range(3)]
        assert [one.status for one in told] == [200, 200, 429]

    asyncio.run(main())


def test_a_function_that_raises_takes_nothing() -> None:
    def fails(_: Any) -> Any:
        raise ValueError("on purpose")

    async def main() -> None:
        first = agr.KeyedRateLimiter(10, 1, HOUR)
        tokens = agr.KeyedRateLimiter(10_000, 1, HOUR)
        limits = [RateLimit(requests=first), RateLimit(tokens=tokens, estimate=fails)]
        middleware = ReliabilityMiddleware(Echo(), limits=limits)
        with pytest.raises(ValueError, match="on purpose"):
            await request(middleware, [(b"authorization", b"a")])
        limits = [RateLimit(requests=first, key=lambda _: "a"), RateLimit(requests=first, key=fails)]
        with pytest.raises(ValueError, match="on purpose"):
            await request(ReliabilityMiddleware(Echo(), limits=limits), [])
        assert (first.available("a"), first.snapshot().open_reservations) == (10, 0)

    asyncio.run(main())


@pytest.mark.parametrize("usage", [lambda usage: usage["missing"], lambda _: 2**80, lambda _: "30"])
def test_a_usage_that_cannot_be_read_keeps_the_hold_and_the_response(usage: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b'{"usage": {"total_tokens": 3}}'})

    async def main() -> None:
        tokens = agr.KeyedRateLimiter(10_000, 1, HOUR)
        limit = RateLimit(tokens=tokens, key=lambda _: "a", usage=usage, estimate=lambda _: 100)
        told = await request(ReliabilityMiddleware(app, limits=[limit]), [])
        assert (told.status, told.whole) == (200, True)
        assert (tokens.available("a"), tokens.snapshot().open_reservations) == (9900, 0)

    asyncio.run(main())
