# SPDX-License-Identifier: Apache-2.0
"""Limits of requests and tokens at an application under uvicorn, over sockets and with the OpenAI client."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

import autoglm_reliability as agr
from asgi_server import AsgiServer, Raw, Steps, exchange, request_bytes
from autoglm_reliability.asgi import RateLimit, ReliabilityMiddleware
from helpers import eventually

HOUR = 3600
TENANT = {"x-tenant": "a"}


class Model:
    """An API of chat completions, whose every response costs 30 tokens."""

    def __init__(self, **options: Any) -> None:
        self.requests = agr.KeyedRateLimiter(options.pop("requests", 100), 1, HOUR)
        self.tokens = agr.KeyedRateLimiter(options.pop("tokens", 1000), 1, HOUR)
        self.steps = Steps()
        self.calls = 0
        self.status = 200
        routes = [Route("/v1/chat/completions", self._complete, methods=["POST"])]
        limit = RateLimit(requests=self.requests, tokens=self.tokens, key="x-tenant", **options)
        self.server = AsgiServer(ReliabilityMiddleware(Starlette(routes=routes), limits=[limit]))
        self.http = httpx.Client(base_url=f"{self.server.url}/v1", headers=TENANT, timeout=30)

    async def _complete(self, request: Request) -> Response:
        self.calls += 1
        body = await request.json()
        usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}
        told = usage if not body.get("secretive") else None
        if body.get("stream"):
            return StreamingResponse(self._stream(told, body), media_type="text/event-stream")
        message = {"role": "assistant", "content": "hello"}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        content = {"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]}
        return JSONResponse({**content, "usage": told}, self.status)

    async def _stream(self, usage: Any, body: Any) -> AsyncIterator[bytes]:
        base = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
        for number in range(3):
            await self.steps.step()
            if body.get("breaks") == number:
                raise RuntimeError("on purpose")
            choice = {"index": 0, "delta": {"content": f"w{number}"}, "finish_reason": None}
            yield b"data: " + json.dumps({**base, "choices": [choice], "usage": None}).encode() + b"\n\n"
        yield b"data: " + json.dumps({**base, "choices": [], "usage": usage}).encode() + b"\n\n"
        yield b"data: [DONE]\n\n"

    def ask(self, tenant: str = "a", **body: Any) -> httpx.Response:
        body = {"model": "m", "messages": [], "max_tokens": 100, **body}
        return self.http.post("/chat/completions", json=body, headers={"x-tenant": tenant})

    def spent(self, tenant: str = "a") -> int:
        return int(1000 - self.tokens.available(tenant))

    def close(self) -> None:
        self.steps.allow(1000)
        self.http.close()
        self.server.__exit__()


@pytest.fixture
def make() -> Iterator[Any]:
    made: list[Model] = []

    def build(**options: Any) -> Model:
        made.append(Model(**options))
        return made[-1]

    yield build
    for model in made:
        model.close()


def test_tokens_are_settled_by_the_usage_of_the_response(make: Any) -> None:
    model = make()
    assert model.ask().status_code == 200
    assert model.spent() == 30
    assert model.requests.available("a") == 99
    assert model.tokens.snapshot().open_reservations == 0


def test_tokens_are_held_while_a_stream_runs_and_settled_at_its_end(make: Any) -> None:
    model = make()
    with model.http.stream(
        "POST", "/chat/completions", json={"stream": True, "max_tokens": 500, "messages": []}
    ) as response:
        lines = response.iter_lines()
        model.steps.allow()
        assert next(lines).startswith("data: ")
        assert 500 < model.spent() < 530
        model.steps.allow(2)
        assert sum(line.startswith("data: ") for line in lines) == 4
    eventually(lambda: model.spent() == 30, "the tokens are not settled")


def test_a_stream_that_breaks_off_costs_what_was_sent(make: Any) -> None:
    model = make()
    model.steps.allow(3)
    with pytest.raises(httpx.RemoteProtocolError):
        model.ask(stream=True, breaks=2, max_tokens=500)
    # Two events, and what went in: the bytes of the body / 4.
    eventually(lambda: 2 < model.spent() < 40, f"{model.spent()} are spent")
    assert model.tokens.snapshot().open_reservations == 0


def test_a_client_that_goes_away_in_a_stream_pays_for_what_was_sent(make: Any) -> None:
    model = make()
    body = json.dumps({"stream": True, "max_tokens": 500, "messages": []}).encode()
    raw = Raw(model.server.port, request_bytes("POST", "/v1/chat/completions", TENANT.items(), body))
    model.steps.allow()
    raw.until(b"w0")
    raw.close()
    eventually(lambda: model.tokens.snapshot().open_reservations == 0, "the tokens are still held")
    assert 0 < model.spent() < 60


def test_usage_that_nobody_tells_keeps_the_hold(make: Any) -> None:
    model = make()
    model.ask(secretive=True)
    assert 100 < model.spent() < 140


def test_a_refusal_by_the_application_costs_no_tokens_and_an_error_the_hold(make: Any) -> None:
    model = make()
    model.status = 404
    assert model.ask(secretive=True).status_code == 404
    assert model.spent() == 0
    model.status = 500
    model.ask(secretive=True)
    assert model.spent() > 100


def test_too_many_requests_are_refused_in_the_words_of_the_api(make: Any) -> None:
    model = make(requests=2)
    responses = [model.ask() for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    headers = responses[1].headers
    assert (headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]) == ("2", "0")
    assert (headers["x-ratelimit-limit-tokens"], headers["x-ratelimit-limit-requests"]) == ("1000", "2")
    assert headers["ratelimit-policy"] == '"requests";q=2;w=7200, "tokens";q=1000;w=3600000'
    assert headers["ratelimit"].startswith('"requests";r=0;t=7')
    assert headers["x-ratelimit-reset-requests"].startswith(("1h59m", "2h0m"))
    refused = responses[2]
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "requests"
    assert 3500 < int(refused.headers["retry-after"]) <= 3600
    assert int(refused.headers["retry-after-ms"]) <= 1000 * int(refused.headers["retry-after"])
    assert refused.headers["x-ratelimit-remaining-requests"] == "0"
    assert model.calls == 2
    # Neither were its tokens taken, nor does another tenant know of it.
    assert model.spent() == 60
    assert model.ask(tenant="b").status_code == 200


def test_too_many_tokens_are_refused_and_cost_no_request(make: Any) -> None:
    model = make()
    model.status = 500
    assert model.ask(max_tokens=700, secretive=True).status_code == 500
    refused = model.ask(max_tokens=700)
    assert refused.status_code == 429
    assert refused.json()["error"]["type"] == "tokens"
    assert model.requests.available("a") == 99


def test_what_can_never_fit_is_not_worth_a_retry(make: Any) -> None:
    model = make()
    refused = model.ask(max_tokens=5000)
    assert refused.status_code == 413
    assert refused.json()["error"]["code"] == "request_exceeds_limit"
    assert refused.headers["x-should-retry"] == "false"
    assert "retry-after" not in refused.headers
    assert model.requests.available("a") == 100


def test_the_openai_client_reads_what_the_server_tells(make: Any) -> None:
    model = make(requests=1)
    with openai.OpenAI(
        base_url=f"{model.server.url}/v1", api_key="k", default_headers=TENANT, max_retries=0
    ) as client:
        ask = client.chat.completions
        first = ask.with_raw_response.create(model="m", messages=[], max_tokens=10)
        assert first.headers["x-ratelimit-remaining-requests"] == "0"
        assert first.parse().usage.total_tokens == 30
        with pytest.raises(openai.RateLimitError) as caught:
            ask.create(model="m", messages=[])
    assert caught.value.code == "rate_limit_exceeded"
    assert caught.value.type == "requests"


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff\xfe", b'{"max_tokens":1e999}', b'{"max_tokens":"x"}', b"[" * 999]
)
def test_a_body_that_is_no_json_is_the_applications_to_refuse(make: Any, body: bytes) -> None:
    model = make()
    response = exchange(model.server.port, "POST", "/v1/chat/completions", TENANT.items(), body)
    assert model.calls == 1
    assert b"x-ratelimit-limit-tokens: 1000" in response or b"HTTP/1.1 500" in response


def test_a_turn_may_be_waited_for(make: Any) -> None:
    model = make(requests=1, max_wait=HOUR * 2)
    model.requests.reconfigure(refill_tokens=1000, refill_interval=1)
    responses = [model.ask() for _ in range(5)]
    assert {response.status_code for response in responses} == {200}
    assert model.requests.snapshot().open_reservations == 0


def test_several_limits_are_taken_together() -> None:
    tenant = agr.KeyedRateLimiter(100, 1, HOUR)
    address = agr.KeyedRateLimiter(2, 1, HOUR)
    limits = [
        RateLimit(requests=tenant, key="x-tenant", name="tenant"),
        RateLimit(requests=address, key=lambda request: request.client, name="address"),
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    with AsgiServer(ReliabilityMiddleware(app, limits=limits), lifespan="off") as server:
        responses = [exchange(server.port, "GET", "/", TENANT.items()) for _ in range(3)]
    assert [response.split(b" ")[1] for response in responses] == [b"204", b"204", b"429"]
    assert b'"tenant-requests";r=98;t=7200, "address-requests";r=0' in responses[1]
    assert tenant.available("a") == 98
    assert tenant.snapshot().open_reservations == 0
