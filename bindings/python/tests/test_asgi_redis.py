# SPDX-License-Identifier: Apache-2.0
"""The middleware with keys and limits in Redis: two of them are two hosts, each with a loop and a store."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

import autoglm_reliability as agr
from asgi_server import AsgiServer, Raw, Steps, body_of, exchange, request_bytes, status_of
from autoglm_reliability.asgi import Idempotency, RateLimit, ReliabilityMiddleware
from helpers import eventually, in_threads, unique
from redis_server import RedisServer
from stored import HOUR

CAPACITY = 20


class Host:
    """A process of its own, as far as Redis can tell."""

    def __init__(self, store: agr.RedisStore, name: str, **options: Any) -> None:
        self.store, self.name, self.calls = store, name, 0
        self.steps = Steps()
        self.told: list[Any] = []
        self.cache = agr.IdempotencyCache(scope=store, name="runs", max_entries=1000, **options)
        self.requests = agr.KeyedRateLimiter(CAPACITY, 1, HOUR, scope=store, name="requests", max_keys=100)
        self.tokens = agr.KeyedRateLimiter(1000, 1, HOUR, scope=store, name="tokens", max_keys=100)
        limit = RateLimit(
            requests=self.requests, tokens=self.tokens, key=lambda asked: asked.header("x-tenant"),
            estimate=lambda _: 100,
        )  # fmt: skip
        middleware = ReliabilityMiddleware(self._app, idempotency=Idempotency(self.cache), limits=[limit])
        self.server = AsgiServer(middleware, lifespan="off")
        self.port = self.server.port

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        self.calls += 1
        self.told.append(scope.get("state", {}).get("autoglm_reliability"))
        if scope["path"] == "/slow":
            await self.steps.step()
        body = b'{"by": "%s", "usage": {"total_tokens": 30}}' % self.name.encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def post(self, path: str = "/", **headers: str) -> bytes:
        return exchange(
            self.port, "POST", path, [(name.replace("_", "-"), headers[name]) for name in headers]
        )

    def close(self) -> None:
        self.steps.allow(1000)
        self.server.__exit__()
        for part in (self.cache, self.requests, self.tokens):
            part.close()


@contextlib.contextmanager
def hosts_on(redis: RedisServer, count: int = 2, timeout: float = 30, **options: Any) -> Iterator[list[Host]]:
    prefix = unique()
    with contextlib.ExitStack() as stack:
        made = []
        for number in range(count):
            store = stack.enter_context(redis.store(prefix=prefix, timeout=timeout))
            made.append(Host(store, f"host {number}", **options))
            stack.callback(made[-1].close)
        yield made


def test_hosts_share_a_key_in_progress_and_afterwards(redis: RedisServer) -> None:
    with hosts_on(redis) as (one, two):
        first = Raw(one.port, request_bytes("POST", "/slow", [("idempotency-key", "k")]))
        eventually(lambda: one.steps.waiting == 1, "it is not executed")
        asked = two.store.snapshot().calls
        second = Raw(two.port, request_bytes("POST", "/slow", [("idempotency-key", "k")]))
        eventually(lambda: two.store.snapshot().calls > asked, "the other host does not ask")
        one.steps.allow()
        assert body_of(first.rest()) == body_of(second.rest())
        assert b"idempotency-replayed: true" in second.got
        assert b"idempotency-replayed" not in first.got
        assert b"idempotency-replayed: true" in two.post("/slow", idempotency_key="k")
        assert status_of(exchange(two.port, "POST", "/slow", [("idempotency-key", "k")], b"other")) == 422
        assert (one.calls, two.calls) == (1, 0)
        first.close()
        second.close()


def test_hosts_share_the_limits_of_a_tenant(redis: RedisServer) -> None:
    with hosts_on(redis) as hosts:
        answers = in_threads(
            8, lambda index: [status_of(hosts[index % 2].post(x_tenant="a")) for _ in range(5)]
        )
        counts = Counter(status for some in answers for status in some)
        # Of 40 that come at once there are tokens for ten at a time; none is admitted too many.
        assert counts[200] + counts[429] == 40
        assert 10 <= counts[200] <= CAPACITY
        assert hosts[0].calls + hosts[1].calls == counts[200]
        eventually(
            lambda: hosts[0].tokens.available("a") == 1000 - 30 * counts[200], "tokens are not settled"
        )
        assert status_of(hosts[0].post(x_tenant="b")) == 200


@pytest.mark.parametrize("what", ["key", "limit"])
def test_without_redis_it_refuses_and_the_loop_goes_on(own_redis: RedisServer, what: str) -> None:
    headers = {"idempotency_key": "k"} if what == "key" else {"x_tenant": "a"}
    with hosts_on(own_redis, count=1, timeout=0.2) as (host,):
        assert status_of(host.post(**headers)) == 200
        own_redis.kill()
        refused = host.post(**{name: value + "2" for name, value in headers.items()})
        assert status_of(refused) == 503
        assert b"retry-after" in refused
        assert status_of(host.post()) == 200  # what needs no store
        own_redis.start()
        eventually(lambda: status_of(host.post(**headers)) == 200, "it does not come back")


def test_the_loop_serves_others_while_redis_is_held_up(own_redis: RedisServer) -> None:
    with hosts_on(own_redis, count=1) as (host,):
        calls = host.store.snapshot().calls
        own_redis.hold_up()
        waiting = [
            Raw(host.port, request_bytes("POST", "/", headers))
            for headers in ([("idempotency-key", "k")], [("x-tenant", "a")])
        ]
        eventually(lambda: host.store.snapshot().calls >= calls + 2, "Redis is not asked")
        assert [status_of(host.post()) for _ in range(10)] == [200] * 10
        assert host.calls == 10
        own_redis.go_on()
        assert [status_of(client.rest()) for client in waiting] == [200, 200]
        for client in waiting:
            client.close()
