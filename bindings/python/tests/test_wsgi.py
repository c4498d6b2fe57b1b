# SPDX-License-Identifier: Apache-2.0
"""The WSGI twin: a Flask application under a threaded server, over sockets."""

from __future__ import annotations

import io
import json
import logging
import threading
from collections.abc import Iterator
from typing import Any

import flask
import pytest
from werkzeug.serving import make_server

import autoglm_reliability as agr
from asgi_server import HOST, Raw, body_of, exchange, is_whole, request_bytes, status_of, without
from autoglm_reliability.wsgi import (
    Admission,
    Idempotency,
    RateLimit,
    ReliabilityMiddleware,
    current_inbound,
)
from helpers import eventually, in_threads

HOUR = 3600
KEY = [("Idempotency-Key", '"k"')]
PARTS = [f"data: part {number}\n\n".encode() for number in range(4)]


class World:
    def __init__(self, cache: Any = None, **options: Any) -> None:
        self.cache = cache or agr.IdempotencyCache()
        own = {
            name: options.pop(name) for name in ("limits", "admission", "max_body_bytes") if name in options
        }
        self.steps = threading.Semaphore(0)
        self.calls = self.waiting = self.ended = 0
        self.broken = False
        self.told: list[Any] = []
        self.app = flask.Flask("test")
        self._routes()
        self.middleware = ReliabilityMiddleware(
            self.app.wsgi_app, idempotency=Idempotency(self.cache, **options), **own
        )
        self.server = make_server(HOST, 0, self.middleware, threaded=True)
        self.port = self.server.server_port
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()
        self.clients: list[Raw] = []

    def _routes(self) -> None:
        @self.app.route("/echo", methods=["GET", "POST"])
        def echo() -> flask.Response:
            self.calls += 1
            self.told.append(flask.request.environ.get("autoglm_reliability"))
            response = flask.Response(b"%d:" % self.calls + flask.request.get_data(), mimetype="text/plain")
            response.set_cookie("a", "1")
            response.set_cookie("b", "2")
            return response

        @self.app.route("/events", methods=["POST"])
        def events() -> flask.Response:
            self.calls += 1
            self.told.append(flask.request.environ.get("autoglm_reliability"))
            return flask.Response(self._events(), mimetype="text/event-stream")

        @self.app.route("/usage", methods=["POST"])
        def usage() -> Any:
            return {"usage": {"total_tokens": 30}}

        @self.app.route("/inbound")
        def inbound() -> str:
            return f"{current_inbound().remaining <= 5} {current_inbound().attempt}"

    def _events(self) -> Iterator[bytes]:
        for part in PARTS:
            self.waiting += 1
            self.steps.acquire()
            self.waiting -= 1
            if self.broken:
                raise RuntimeError("on purpose")
            yield part
        self.ended += 1

    def allow(self, count: int) -> None:
        for _ in range(count):
            self.steps.release()

    def client(self, path: str = "/events", headers: Any = KEY, body: bytes = b"") -> Raw:
        self.clients.append(Raw(self.port, request_bytes("POST", path, headers, body)))
        return self.clients[-1]

    def post(self, path: str = "/echo", headers: Any = KEY, body: bytes = b"x") -> bytes:
        return exchange(self.port, "POST", path, headers, body)

    def close(self) -> None:
        self.allow(1000)
        for client in self.clients:
            client.close()
        self.server.shutdown()
        self._thread.join(30)
        self.server.server_close()


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[World] = []
    logging.getLogger("werkzeug").setLevel(logging.CRITICAL + 1)

    def build(*arguments: Any, **options: Any) -> World:
        made.append(World(*arguments, **options))
        return made[-1]

    yield build
    for world in made:
        world.close()


def test_a_replay_is_the_response_byte_by_byte(make: Any) -> None:
    world = make()
    first, second = world.post(), world.post()
    assert body_of(first) == b"1:x"
    assert b"Idempotency-Replayed" not in first.title()
    assert b"idempotency-replayed: true" in second
    ours = (b"date", b"idempotency-replayed")
    assert without(second, *ours) == without(first, *ours)
    assert world.calls == 1
    assert world.told[0].key == "k"


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [([("Idempotency-Key", "a b")], b"x", 400), ([], b"x", 400), (KEY, b"y", 422), (KEY, b"x" * 2000, 413)],
)
def test_what_is_wrong_with_a_key_is_said(make: Any, headers: Any, body: bytes, status: int) -> None:
    world = make(required=True, max_body_bytes=1000)
    world.post()
    assert status_of(world.post(headers=headers, body=body)) == status
    assert world.calls == 1


def test_in_progress_is_a_conflict_where_that_was_chosen(make: Any) -> None:
    world = make(on_duplicate="conflict")
    first = world.client()
    eventually(lambda: world.waiting == 1, "it is not executed")
    assert status_of(world.post("/events", body=b"")) == 409
    world.allow(4)
    assert body_of(first.rest()) == b"".join(PARTS)


def test_many_at_once_execute_once(make: Any) -> None:
    world = make()
    responses = in_threads(12, lambda _: world.post())
    assert {body_of(response) for response in responses} == {b"1:x"}
    assert sum(b"idempotency-replayed" in response for response in responses) == 11


def test_a_duplicate_follows_a_stream_from_its_start(make: Any) -> None:
    world = make()
    first = world.client()
    world.allow(2)
    first.until(b"part 1")
    second = world.client()
    second.until(b"part 1")
    world.allow(2)
    for client in (first, second):
        assert body_of(client.rest()) == b"".join(PARTS)
    assert body_of(world.client().rest()) == b"".join(PARTS)
    assert world.calls == 1


def test_a_client_that_goes_away_is_nothing_to_the_run(make: Any) -> None:
    world = make()
    first = world.client()
    world.allow(1)
    first.until(b"part 0")
    first.close()
    world.allow(3)
    eventually(lambda: world.ended == 1, "the run does not end")
    assert body_of(world.client().rest()) == b"".join(PARTS)
    assert world.calls == 1


def test_a_stream_that_breaks_off_is_whole_for_nobody_and_the_next_is_told(make: Any) -> None:
    world = make()
    first = world.client()
    world.allow(1)
    first.until(b"part 0")
    second = world.client()
    second.until(b"part 0")
    world.broken = True
    world.allow(1)
    for client in (first, second):
        assert not is_whole(client.rest())
    world.broken = False
    world.allow(4)
    assert body_of(world.client().rest()) == b"".join(PARTS)
    assert [told.outcome_unknown for told in world.told] == [False, True]


def test_a_lease_is_renewed_for_as_long_as_the_run_lasts(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    renewed: list[bool] = []
    original = agr.Lease.renew

    def renew(lease: agr.Lease, duration: Any = 0) -> bool:
        renewed.append(original(lease, duration))
        return renewed[-1]

    monkeypatch.setattr(agr.Lease, "renew", renew)
    world = make(agr.IdempotencyCache(lease=0.2))
    first = world.client()
    eventually(lambda: len(renewed) >= 9, "the lease is not renewed")
    world.allow(4)
    assert body_of(first.rest()) == b"".join(PARTS)
    assert b"idempotency-replayed" in world.post("/events", body=b"")
    assert all(renewed)


def test_a_response_that_is_too_large_is_not_sent_again(make: Any) -> None:
    world = make(max_response_bytes=100)
    assert body_of(world.post(body=b"x" * 500)) == b"1:" + b"x" * 500
    assert status_of(world.post(body=b"x" * 500)) == 409
    assert world.calls == 1


def test_limits_are_kept_told_and_settled(make: Any) -> None:
    requests, tokens = agr.KeyedRateLimiter(2, 1, HOUR), agr.KeyedRateLimiter(1000, 1, HOUR)
    world = make(limits=[RateLimit(requests=requests, tokens=tokens, key="x-tenant")])
    headers = [("x-tenant", "a")]
    body = b'{"max_tokens": 100}'
    responses = [world.post("/usage", headers, body) for _ in range(3)]
    assert [status_of(response) for response in responses] == [200, 200, 429]
    assert b"x-ratelimit-remaining-requests: 1" in responses[0]
    assert json.loads(body_of(responses[2]))["error"]["code"] == "rate_limit_exceeded"
    assert tokens.available("a") == 940
    assert tokens.snapshot().open_reservations == 0


def test_a_full_server_refuses_and_serves_by_priority(make: Any) -> None:
    world = make(admission=Admission(1, 1, 3600, priority=lambda request: int(request.header("x-p") or 0)))
    gate = world.middleware._gate
    first = world.client()
    eventually(lambda: world.waiting == 1, "it is not executed")
    low = world.client("/echo", [])
    eventually(lambda: gate.waiting == 1, "nobody waits")
    high = world.client("/echo", [("x-p", "1")])
    assert status_of(low.rest()) == 503
    assert status_of(world.post(headers=[])) == 503
    world.allow(4)
    assert body_of(first.rest()) == b"".join(PARTS)
    assert status_of(high.rest()) == 200
    eventually(lambda: (gate.free, gate.waiting) == (1, 0), "a slot was lost")


def test_the_line_is_not_waited_in_for_ever(make: Any) -> None:
    world = make(admission=Admission(1, 1, 0.05))
    world.client()
    eventually(lambda: world.waiting == 1, "it is not executed")
    assert status_of(world.post(headers=[])) == 503
    assert status_of(world.post(headers=[("agr-timeout-ms", "10")])) == 504


def test_what_the_caller_tells_is_known_to_the_application(make: Any) -> None:
    world = make()
    told = [("agr-timeout-ms", "5000"), ("agr-attempt", "3")]
    assert body_of(exchange(world.port, "GET", "/inbound", told)) == b"True 3"
    assert status_of(exchange(world.port, "GET", "/inbound", [("agr-timeout-ms", "0")])) == 504


@pytest.mark.parametrize("after", ["nothing", "part"])
def test_no_exception_of_an_application_is_lost(after: str, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ: Any, start_response: Any) -> Iterator[bytes]:
        if after == "part":
            start_response("200 OK", [])
            yield b"x"
        raise ValueError("on purpose")

    middleware = ReliabilityMiddleware(app, idempotency=Idempotency(agr.IdempotencyCache()))
    raised: Any = None
    with caplog.at_level(logging.ERROR, "autoglm_reliability"):
        try:
            list(middleware(environ_of(), lambda *_: None))
        except Exception as error:
            raised = error
        eventually(lambda: not middleware._keyed._runs, "the run does not end")  # type: ignore[union-attr]
    logged = [one for one in caplog.records if one.exc_info and "on purpose" in str(one.exc_info[1])]
    assert isinstance(raised, ValueError) == (after == "nothing")
    assert len(logged) == (after == "part")


def environ_of(**more: str) -> dict[str, Any]:
    environ: dict[str, Any] = {"wsgi.input": io.BytesIO(b"x" * 200), "HTTP_IDEMPOTENCY_KEY": "k"}
    return {**environ, "REQUEST_METHOD": "POST", "PATH_INFO": "/", "REMOTE_ADDR": "10.0.0.1", **more}


def test_a_run_that_gets_no_thread_keeps_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    middleware = ReliabilityMiddleware(
        lambda _, start_response: [start_response("200 OK", []), b"done"][1:],
        idempotency=Idempotency(agr.IdempotencyCache()),
        admission=Admission(1),
    )

    def refuses(_: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", refuses)
    for _ in range(3):
        with pytest.raises(RuntimeError, match="start new thread"):
            middleware(environ_of(), lambda *_: None)
    monkeypatch.undo()
    statuses: list[str] = []
    assert b"".join(middleware(environ_of(), lambda status, *_: statuses.append(status))) == b"done"
    assert statuses == ["200 OK"]


@pytest.mark.parametrize("length", ["9" * 20, "9" * 4000, "0" * 30 + "101"])
def test_an_absurd_length_is_too_large(length: str) -> None:
    def app(*_: Any) -> Any:
        raise AssertionError("it is served")

    middleware = ReliabilityMiddleware(
        app, idempotency=Idempotency(agr.IdempotencyCache()), max_body_bytes=100
    )
    for more in ({}, {"HTTP_IDEMPOTENCY_KEY": "k"}):
        environ, statuses = environ_of(CONTENT_LENGTH=length, **more), list[str]()
        middleware(environ, lambda status, *_, to=statuses: to.append(status))
        assert [status[:3] for status in statuses] == ["413"]
