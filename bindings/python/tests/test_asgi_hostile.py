# SPDX-License-Identifier: Apache-2.0
"""A client that makes up as many keys as it can: memory stays bounded, and honest tenants do not notice."""

from __future__ import annotations

from typing import Any

import pytest

import autoglm_reliability as agr
from asgi_server import AsgiServer, Raw, body_of, exchange, status_of
from autoglm_reliability.asgi import Admission, Idempotency, RateLimit, ReliabilityMiddleware

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

HOUR = 3600
MANY = 100_000


class Counting:
    def __init__(self) -> None:
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        body = b"%d" % self.calls
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def pipelined(port: int, heads: list[bytes]) -> list[int]:
    """The statuses of requests that are sent on one connection, a batch at a time."""
    raw, statuses = Raw(port), list[int]()
    for start in range(0, len(heads), 100):
        batch = heads[start : start + 100]
        raw.got = b""
        raw.send(b"".join(batch))
        raw.until(b"HTTP/1.1 ", len(batch))
        statuses += [int(part[:3]) for part in raw.got.split(b"HTTP/1.1 ")[1:]]
    raw.close()
    return statuses


def post(port: int, tenant: str, key: str) -> bytes:
    return exchange(port, "POST", "/", [("authorization", tenant), ("Idempotency-Key", key)])


def test_idempotency_keys_by_the_hundred_thousand_take_their_tenants_quota_and_no_more() -> None:
    cache = agr.IdempotencyCache(max_entries=4096)
    quota = agr.KeyedRateLimiter(1000, 1, HOUR)
    app = Counting()
    middleware = ReliabilityMiddleware(app, idempotency=Idempotency(cache, quota=quota))
    with AsgiServer(middleware, lifespan="off") as server:
        honest = post(server.port, "honest", "before")
        heads = [
            b"POST / HTTP/1.1\r\nhost: t\r\nauthorization: hostile\r\nidempotency-key: k%d\r\n\r\n" % number
            for number in range(MANY)
        ]
        statuses = pipelined(server.port, heads)
        assert (len(statuses), set(statuses)) == (MANY, {200, 429})
        assert statuses.count(200) == 1000
        assert body_of(post(server.port, "honest", "before")) == body_of(honest)
        assert status_of(post(server.port, "honest", "after")) == 200
    assert app.calls == 1002
    assert cache.snapshot().entries == 1002
    assert middleware._keyed is not None
    assert middleware._keyed.running == 0
    assert not middleware._keyed._tasks


def test_tenants_by_the_hundred_thousand_are_bounded_by_the_limit_of_their_address() -> None:
    tenants = agr.KeyedRateLimiter(10, 1, HOUR, max_keys=2048)
    addresses = agr.KeyedRateLimiter(1000, 1, HOUR)
    limits = [
        RateLimit(requests=addresses, key=lambda request: request.header("x-forwarded-for"), name="address"),
        RateLimit(requests=tenants),
    ]
    middleware = ReliabilityMiddleware(Counting(), limits=limits, admission=Admission(100, 100))
    before = tenants.snapshot().bytes
    with AsgiServer(middleware, lifespan="off") as server:
        line = b"GET / HTTP/1.1\r\nhost: t\r\nx-forwarded-for: 6.6.6.6\r\nauthorization: %d\r\n\r\n"
        statuses = pipelined(server.port, [line % number for number in range(MANY)])
        assert (statuses.count(200), statuses.count(429)) == (1000, MANY - 1000)
        honest = [("x-forwarded-for", "1.1.1.1"), ("authorization", "honest")]
        assert [status_of(exchange(server.port, "GET", "/", honest)) for _ in range(11)] == [200] * 10 + [429]
    assert tenants.snapshot().busy_keys <= 1001
    assert tenants.snapshot().bytes == before
    assert addresses.snapshot().open_reservations == 0


def test_a_clock_that_is_set_changes_neither_limits_nor_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    cache, limiter = agr.IdempotencyCache(), agr.KeyedRateLimiter(3, 1, HOUR)
    middleware = ReliabilityMiddleware(
        Counting(), idempotency=Idempotency(cache), limits=[RateLimit(requests=limiter)]
    )
    wall = time.time
    with AsgiServer(middleware, lifespan="off") as server:
        first = post(server.port, "a", "k")
        for days in (-3650, 3650):
            monkeypatch.setattr(time, "time", lambda days=days: wall() + days * 86400)
            monkeypatch.setattr(time, "time_ns", lambda days=days: int((wall() + days * 86400) * 1e9))
            assert body_of(post(server.port, "a", "k")) == body_of(first)
            assert status_of(post(server.port, "a", f"k{days}")) == 200
        assert status_of(post(server.port, "a", "another")) == 429
