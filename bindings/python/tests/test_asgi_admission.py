# SPDX-License-Identifier: Apache-2.0
"""Who is served when a server is full, and how long a body may take, over sockets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

import autoglm_reliability as agr
from asgi_server import AsgiServer, Raw, Steps, body_of, exchange, is_whole, request_bytes, status_of
from autoglm_reliability.asgi import Admission, Idempotency, ReliabilityMiddleware, current_inbound
from helpers import eventually


class Server:
    def __init__(self, *admission: Any, **options: Any) -> None:
        self.steps = Steps()
        self.order: list[str] = []
        self.cache = agr.IdempotencyCache()
        priority = options.pop("priority", None)
        middleware = {
            name: options.pop(name) for name in list(options) if name.endswith(("timeout", "bytes"))
        }
        queue_timeout = middleware.pop("queue_timeout", 3600)
        self.app = ReliabilityMiddleware(
            Starlette(routes=[Route("/{name}", self._serve, methods=["GET", "POST"])]),
            idempotency=Idempotency(self.cache),
            admission=Admission(*admission, queue_timeout=queue_timeout, priority=priority),
            **middleware,
        )
        self.server = AsgiServer(self.app)
        self.port = self.server.port
        self.clients: list[Raw] = []

    async def _serve(self, request: Request) -> Response:
        name = request.path_params["name"]
        self.order.append(name)
        if name == "body":
            return PlainTextResponse(str(len(await request.body())))
        if name == "inbound":
            return PlainTextResponse(f"{current_inbound().remaining <= 5} {current_inbound().attempt}")
        if name == "stream":
            return StreamingResponse(self._stream())
        await self.steps.step()
        return PlainTextResponse(name)

    async def _stream(self) -> Any:
        yield b"begun"
        await self.steps.step()

    def client(self, name: str, *headers: tuple[str, str]) -> Raw:
        self.clients.append(Raw(self.port, request_bytes("GET", f"/{name}", headers)))
        return self.clients[-1]

    def served(self, count: int) -> None:
        eventually(lambda: len(self.order) == count, f"{self.order} were served")

    def waiting(self, count: int) -> None:
        gate = self.app._gate
        assert gate is not None
        eventually(lambda: gate.waiting == count, f"{gate.waiting} wait")

    def close(self) -> None:
        self.steps.allow(1000)
        for client in self.clients:
            client.close()
        self.server.__exit__()
        gate = self.app._gate
        assert gate is not None
        assert (gate.free, gate.waiting) == (gate.settings.concurrency, 0), "a slot was lost"


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Server] = []

    def build(*arguments: Any, **options: Any) -> Server:
        made.append(Server(*arguments, **options))
        return made[-1]

    yield build
    for server in made:
        server.close()


def priority(request: Any) -> int:
    return int(request.header("x-priority") or 0)


def test_a_full_server_refuses_before_the_body_is_read(make: Any) -> None:
    server = make(1)
    server.client("a")
    server.served(1)
    # The body never comes, and the answer does not wait for it.
    raw = Raw(
        server.port, b"POST /body HTTP/1.1\r\nhost: t\r\nconnection: close\r\ncontent-length: 1000\r\n\r\n"
    )
    response = raw.rest()
    raw.close()
    assert status_of(response) == 503
    assert b"retry-after: 1\r\n" in response
    assert b"server_overloaded" in response
    assert server.order == ["a"]


def test_who_waits_is_served_in_turn(make: Any) -> None:
    server = make(1, 2)
    server.client("a")
    server.served(1)
    for number, name in enumerate("bc"):
        server.client(name)
        server.waiting(number + 1)
    assert status_of(server.client("d").rest()) == 503
    for count in (2, 3):
        server.steps.allow()
        server.served(count)
    server.steps.allow()
    assert [body_of(client.rest()) for client in server.clients[:3]] == [b"a", b"b", b"c"]
    assert server.order == ["a", "b", "c"]


def test_priority_goes_first_and_the_lowest_gives_way(make: Any) -> None:
    server = make(1, 2, priority=priority)
    server.client("a")
    server.served(1)
    low = server.client("low")
    server.waiting(1)
    server.client("mid", ("x-priority", "1"))
    server.waiting(2)
    server.client("high", ("x-priority", "2"))
    assert status_of(low.rest()) == 503
    for count in (2, 3):
        server.steps.allow()
        server.served(count)
    assert server.order == ["a", "high", "mid"]


def test_a_client_that_goes_away_leaves_the_line(make: Any) -> None:
    server = make(1, 1)
    server.client("a")
    server.served(1)
    server.client("gone")
    server.waiting(1)
    server.clients[-1].close()
    server.waiting(0)
    server.client("b")
    server.waiting(1)
    server.steps.allow()
    server.served(2)
    assert server.order == ["a", "b"]


def test_a_body_that_comes_while_its_request_waits_is_not_lost(make: Any) -> None:
    server = make(1, 1)
    server.client("a")
    server.served(1)
    body = b"x" * 500_000
    raw = Raw(
        server.port,
        request_bytes("POST", "/body", body=body[:100_000])[:-100_000].replace(b"100000", b"500000"),
    )
    raw.send(body[:1000])
    server.waiting(1)
    raw.send(body[1000:])
    server.steps.allow()
    assert body_of(raw.rest()) == b"500000"
    raw.close()


def test_the_line_is_not_waited_in_for_ever(make: Any) -> None:
    server = make(1, 1, queue_timeout=0.05)
    server.client("a")
    server.served(1)
    assert status_of(server.client("b").rest()) == 503
    assert server.order == ["a"]


def test_a_slot_is_held_until_the_end_of_a_stream(make: Any) -> None:
    server = make(1)
    stream = server.client("stream")
    stream.until(b"begun")
    assert status_of(server.client("b").rest()) == 503
    server.steps.allow()
    assert is_whole(stream.rest())
    server.steps.allow()
    eventually(lambda: status_of(server.client("c").rest()) == 200, "the slot is not free")


def test_slow_clients_hold_no_slot_for_ever(make: Any) -> None:
    server = make(4, body_timeout=0.3, body_idle_timeout=3600)
    slow = [Raw(server.port, request_bytes("POST", "/body", body=b"x" * 9)[:-8]) for _ in range(4)]
    server.served(4)
    assert status_of(exchange(server.port, "GET", "/inbound")) == 503
    for raw in slow:
        assert status_of(raw.rest()) == 408
        assert b"connection: close" in raw.got
        raw.close()
    # Heads that never end reach no application and hold no slot.
    heads = [Raw(server.port, b"GET / HTTP/1.1\r\nhost: t\r\nx-a: ") for _ in range(50)]
    assert status_of(exchange(server.port, "GET", "/inbound")) == 200
    for raw in heads:
        raw.close()


def test_a_slow_body_with_a_key_begins_no_run(make: Any) -> None:
    server = make(1, body_timeout=0.1)
    head = request_bytes("POST", "/body", [("Idempotency-Key", "k")], b"x" * 9)
    raw = Raw(server.port, head[:-8])
    assert status_of(raw.rest()) == 408
    raw.close()
    assert server.order == []
    assert server.cache.snapshot().entries == 0


def test_a_run_keeps_its_slot_when_its_client_goes_away_and_duplicates_need_none(make: Any) -> None:
    server = make(2, 0)
    keyed = server.app._keyed
    raws = [Raw(server.port, request_bytes("POST", "/a", [("Idempotency-Key", "k")])) for _ in range(1)]
    server.served(1)
    for number in range(2, 4):
        raws.append(Raw(server.port, request_bytes("POST", "/a", [("Idempotency-Key", "k")])))
        followed = lambda number=number: next(iter(keyed._runs.values())).followed_by == number  # noqa: E731
        eventually(followed, "a duplicate got no answer")
    raws[0].close()
    server.client("b")
    server.served(2)
    assert status_of(server.client("c").rest()) == 503, "the run's slot was given away"
    server.steps.allow(2)
    for raw in raws[1:]:
        assert body_of(raw.rest()) == b"a"
        raw.close()
    assert server.order == ["a", "b"]


def test_a_body_that_drips_is_too_slow(make: Any) -> None:
    server = make(1, body_idle_timeout=0.1)
    raw = Raw(server.port, request_bytes("POST", "/body", body=b"x" * 9)[:-8])
    assert status_of(raw.rest()) == 408
    raw.close()


def test_a_body_of_unknown_length_is_refused_when_it_is_too_large(make: Any) -> None:
    server = make(1, max_body_bytes=1000)
    raw = Raw(server.port, b"POST /body HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n")
    raw.send(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\nx\r\n")
    assert status_of(raw.rest()) == 413
    raw.close()
    assert body_of(exchange(server.port, "POST", "/body", body=b"x" * 1000)) == b"1000"


@pytest.mark.parametrize(
    "head",
    [b"content-length: -1", b"content-length: 1_0", b"content-length: " + b"9" * 23, b"bad header: 1",
     b"transfer-encoding: gzip", b"agr-timeout-ms: soon", b"agr-attempt: \xff", b"authorization: \xff\xfe"],
)  # fmt: skip
def test_malformed_headers_break_nothing(make: Any, head: bytes) -> None:
    server = make(1)
    raw = Raw(
        server.port, b"POST /body HTTP/1.1\r\nhost: t\r\nconnection: close\r\n" + head + b"\r\n\r\n0\r\n\r\n"
    )
    assert status_of(raw.rest()) in (200, 400, 413, 501)
    raw.close()
    assert status_of(exchange(server.port, "GET", "/inbound")) == 200


def test_broken_chunks_break_nothing(make: Any) -> None:
    server = make(1)
    head = b"POST /body HTTP/1.1\r\nhost: t\r\ntransfer-encoding: chunked\r\n\r\n"
    raw = Raw(server.port, head + b"5\r\nhello\r\nzz\r\n")
    raw.rest()
    raw.close()
    eventually(lambda: status_of(exchange(server.port, "GET", "/inbound")) == 200, "the slot is not free")


def test_what_the_caller_tells_is_known_to_the_application(make: Any) -> None:
    server = make(1)
    headers = [("agr-timeout-ms", "5000"), ("agr-attempt", "3")]
    assert body_of(exchange(server.port, "GET", "/inbound", headers)) == b"True 3"
    assert body_of(exchange(server.port, "GET", "/inbound")) == b"False 0"


def test_a_caller_that_has_given_up_is_not_served(make: Any) -> None:
    server = make(1)
    response = exchange(server.port, "GET", "/inbound", [("agr-timeout-ms", "0")])
    assert status_of(response) == 504
    assert server.order == []


def test_a_caller_does_not_wait_longer_than_it_said(make: Any) -> None:
    server = make(1, 1)
    server.client("a")
    server.served(1)
    assert status_of(server.client("b", ("agr-timeout-ms", "50")).rest()) == 504
    assert server.order == ["a"]
