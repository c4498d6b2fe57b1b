# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key at a Starlette application under uvicorn, over sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.responses import PlainTextResponse
from starlette.requests import Request
from starlette.responses import Response

import autoglm_reliability as agr
from asgi_server import AsgiServer, Raw, Steps, body_of, exchange, request_bytes, status_of, without
from autoglm_reliability.asgi import Execution, Idempotency, ReliabilityMiddleware
from helpers import eventually, in_threads

KEY = [("Idempotency-Key", '"k-1"')]


class World:
    """A FastAPI application which counts how often it is executed, and what it is told."""

    def __init__(self, **options: Any) -> None:
        self.cache = options.pop("cache", None) or agr.IdempotencyCache()
        self.calls = 0
        self.status = 200
        self.told: list[Execution] = []
        self.steps = Steps()
        app = FastAPI()
        self.idempotency = Idempotency(self.cache, **options)
        app.add_middleware(ReliabilityMiddleware, idempotency=self.idempotency, max_body_bytes=100_000)

        @app.api_route("/echo", methods=["GET", "POST", "PUT", "PATCH"])
        async def echo(request: Request) -> Response:
            self.calls += 1
            self.told.append(getattr(request.state, "autoglm_reliability", None))
            response = PlainTextResponse(b"%d:" % self.calls + await request.body(), self.status)
            response.headers.append("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
            response.set_cookie("a", "1")
            response.set_cookie("b", "2")
            return response

        @app.post("/slow")
        async def slow() -> str:
            self.calls += 1
            await self.steps.step()
            return f"run {self.calls}"

        @app.post("/raise")
        async def fails(request: Request) -> None:
            self.calls += 1
            self.told.append(getattr(request.state, "autoglm_reliability", None))
            if self.calls == 1:
                raise RuntimeError("on purpose")

        self.server = AsgiServer(app)
        self.port = self.server.port

    def post(
        self, path: str = "/echo", headers: Any = KEY, body: bytes = b"x", method: str = "POST"
    ) -> bytes:
        return exchange(self.port, method, path, headers, body)


@pytest.fixture
def make() -> Iterator[Any]:
    worlds: list[World] = []

    def build(**options: Any) -> World:
        worlds.append(World(**options))
        return worlds[-1]

    yield build
    for world in worlds:
        world.steps.allow(1000)
        world.server.__exit__()


def problem(response: bytes) -> dict[str, Any]:
    assert b"content-type: application/problem+json" in response
    found = json.loads(body_of(response))
    assert found["status"] == status_of(response)
    assert found["error"]["message"] == found["detail"]
    return found


def test_a_replay_is_the_response_byte_by_byte_and_says_that_it_is_one(make: Any) -> None:
    world = make()
    first, second = world.post(), world.post()
    assert world.calls == 1
    assert status_of(first) == 200
    assert body_of(first) == b"1:x"
    assert b"idempotency-replayed" not in first
    assert b"idempotency-replayed: true" in second
    ours = (b"date", b"idempotency-replayed")
    assert without(second, *ours) == without(first, *ours)
    assert second.count(b"set-cookie: ") == 2
    # The time is that of the replay, which the server adds, not that of the response.
    assert b"1970" in first
    assert b"1970" not in second
    assert second.count(b"date: ") == 1


def test_quoted_or_bare_it_is_the_same_key(make: Any) -> None:
    world = make()
    world.post(headers=[("Idempotency-Key", '"k \\"1\\""')])
    world.post(headers=[("idempotency-key", "k-1")])
    assert world.calls == 2
    assert b"replayed: true" in world.post(headers=[("IDEMPOTENCY-KEY", '"k-1"')])


@pytest.mark.parametrize(
    "value",
    ["", '""', '"open', 'open"', '"a"b', "two words", '"tab\tin"', "x" * 256, '"' + "x" * 256 + '"',
     "\xe4", '"\xe4"', '"a";p=1', '"bad \\escape"'],
)  # fmt: skip
def test_a_key_that_cannot_be_read_is_refused(make: Any, value: str) -> None:
    world = make()
    response = world.post(headers=[("Idempotency-Key", value)])
    assert status_of(response) == 400
    assert problem(response)["error"]["code"] == "invalid_idempotency_key"
    assert world.calls == 0


def test_two_keys_are_refused(make: Any) -> None:
    world = make()
    response = world.post(headers=[*KEY, ("Idempotency-Key", "k-2")])
    assert (status_of(response), world.calls) == (400, 0)


def test_a_key_that_is_missing_where_it_is_required_is_refused(make: Any) -> None:
    world = make(required=lambda request: request.path == "/echo")
    response = world.post(headers=[])
    assert problem(response)["error"]["code"] == "idempotency_key_missing"
    assert status_of(response) == 400
    assert status_of(world.post("/raise", [])) == 500
    assert status_of(world.post(headers=[], method="GET")) == 200


def test_another_payload_with_the_same_key_is_refused(make: Any) -> None:
    world = make()
    world.post()
    for response in (
        world.post(body=b"y"),
        world.post("/echo?q=1"),
        world.post(headers=[*KEY, ("content-type", "text/html")]),
    ):
        assert status_of(response) == 422
        assert problem(response)["error"]["code"] == "idempotency_key_reused"
        assert b"x-should-retry: false" in response
    assert world.calls == 1


def test_keys_belong_to_a_tenant_a_method_and_a_path(make: Any) -> None:
    world = make()
    for headers in (KEY, [*KEY, ("Authorization", "Bearer a")], [*KEY, ("x-api-key", "a")]):
        assert b"replayed" not in world.post(headers=headers)
    assert b"replayed" not in world.post(method="PATCH")
    assert world.calls == 4
    assert b"replayed" not in world.post(method="PUT")
    assert b"replayed" not in world.post(method="PUT"), "PUT is not among the methods"


def test_in_progress_is_a_conflict_where_that_was_chosen(make: Any) -> None:
    world = make(on_duplicate="conflict", retry_after=3)
    first = Raw(world.port, request_bytes("POST", "/slow", KEY))
    eventually(lambda: world.steps.waiting == 1, "it is not executed")
    response = world.post("/slow", body=b"")
    assert status_of(response) == 409
    assert problem(response)["error"]["code"] == "idempotency_key_in_progress"
    assert b"retry-after: 3\r\n" in response
    assert status_of(world.post("/slow", body=b"y")) == 422
    world.steps.allow()
    assert status_of(first.rest()) == 200
    assert b"replayed: true" in world.post("/slow", body=b"")
    assert world.calls == 1
    first.close()


def test_duplicates_join_the_run(make: Any) -> None:
    world = make()
    first = Raw(world.port, request_bytes("POST", "/slow", KEY))
    eventually(lambda: world.steps.waiting == 1, "it is not executed")
    others = [Raw(world.port, request_bytes("POST", "/slow", KEY)) for _ in range(20)]
    world.steps.allow()
    assert body_of(first.rest()) == b'"run 1"'
    for other in others:
        assert body_of(other.rest()) == b'"run 1"'
        assert b"replayed: true" in other.got
        other.close()
    first.close()
    assert world.calls == 1


def test_many_at_once_execute_once(make: Any) -> None:
    world = make()
    responses = in_threads(16, lambda _: world.post())
    assert world.calls == 1
    assert {body_of(response) for response in responses} == {b"1:x"}
    assert sum(b"replayed: true" in response for response in responses) == 15


def test_a_client_that_goes_away_neither_fails_nor_ends_the_run(make: Any) -> None:
    world = make()
    first = Raw(world.port, request_bytes("POST", "/slow", KEY))
    eventually(lambda: world.steps.waiting == 1, "it is not executed")
    first.close()
    second = Raw(world.port, request_bytes("POST", "/slow", KEY))
    world.steps.allow()
    assert body_of(second.rest()) == b'"run 1"'
    assert world.calls == 1
    assert world.cache.snapshot().executed == 1
    second.close()


@pytest.mark.parametrize(("status", "kept"), [(201, 1), (404, 1), (302, 1), (429, 0), (409, 0), (503, 0)])
def test_which_responses_are_the_result(make: Any, status: int, kept: int) -> None:
    world = make()
    world.status = status
    assert status_of(world.post()) == status
    assert status_of(world.post()) == status
    assert world.calls == 2 - kept
    assert not world.told[-1].outcome_unknown


def test_an_application_that_raises_leaves_the_outcome_unknown_and_the_next_is_told(make: Any) -> None:
    world = make()
    assert status_of(world.post("/raise")) == 500
    assert status_of(world.post("/raise")) == 200
    assert [told.outcome_unknown for told in world.told] == [False, True]
    assert world.told[1].fence > world.told[0].fence


def test_an_application_is_told_of_its_run(make: Any) -> None:
    world = make()
    world.post(headers=[("Idempotency-Key", '"a b"')])
    told = world.told[0]
    assert (told.key, told.outcome_unknown, told.lost_fence) == ("a b", False, 0)
    assert told.fence > 0
    world.post(headers=[])
    assert world.told[1] is None


def test_a_response_that_is_too_large_is_sent_once_and_the_key_is_not_executed_again(make: Any) -> None:
    world = make(max_response_bytes=1000)
    first, second = world.post(body=b"z" * 5000), world.post(body=b"z" * 5000)
    assert body_of(first) == b"1:" + b"z" * 5000
    assert problem(second)["error"]["code"] == "response_not_kept"
    assert status_of(second) == 409
    assert world.calls == 1


def test_a_response_that_the_cache_has_no_room_for_is_not_executed_again(make: Any) -> None:
    world = make(cache=agr.IdempotencyCache(max_bytes=4096))
    assert status_of(world.post(body=b"z" * 50_000)) == 200
    assert status_of(world.post(body=b"z" * 50_000)) == 409
    assert world.calls == 1


def test_a_body_that_is_too_large_is_refused_before_work_begins(make: Any) -> None:
    world = make()
    raw = Raw(
        world.port, b"POST /echo HTTP/1.1\r\nhost: t\r\nidempotency-key: k\r\ncontent-length: 100001\r\n\r\n"
    )
    assert status_of(raw.rest()) == 413
    raw.close()
    head = b"POST /echo HTTP/1.1\r\nhost: t\r\nidempotency-key: k\r\ntransfer-encoding: chunked\r\n\r\n"
    raw = Raw(world.port, head + b"c350\r\n" + b"x" * 50_000 + b"\r\n")
    raw.send(b"c351\r\n" + b"x" * 50_001 + b"\r\n")
    assert status_of(raw.rest()) == 413
    raw.close()
    assert world.calls == 0
    assert world.cache.snapshot().entries == 0


def test_an_empty_cache_is_full_and_says_so(make: Any) -> None:
    world = make(cache=agr.IdempotencyCache(max_entries=1))
    world.post()
    response = world.post(headers=[("Idempotency-Key", "k-2")])
    assert status_of(response) == 503
    assert json.loads(body_of(response))["error"]["code"] == "idempotency_full"
    assert b"retry-after: 1" in response
    assert b"replayed: true" in world.post()
