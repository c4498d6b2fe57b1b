# SPDX-License-Identifier: Apache-2.0
"""The OpenAI SDK, LangChain and LiteLLM, unchanged, through the transports, against a server that speaks
their protocol."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from typing import Any, Callable

import httpx
import pytest

from autoglm_reliability import CircuitBreaker
from autoglm_reliability.httpx import CircuitOpenError, DeadlineError, Endpoint
from autoglm_reliability.testing import ManualClock
from calling import Caller, quick
from scripted_http import Reply, ScriptedServer, answer, chunked, document, raw, reset

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

# Nothing here may ask anybody but the server of the test.
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
os.environ["LITELLM_TELEMETRY"] = "False"
os.environ["LANGCHAIN_TRACING_V2"] = "false"

openai = pytest.importorskip("openai")
Make = Callable[..., Caller]
ASKED: Any = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
COMPLETION = {
    "id": "c-1",
    "object": "chat.completion",
    "created": 1,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "hello"}}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 4, "total_tokens": 7},
}


@pytest.fixture(autouse=True)
def own_loop() -> Iterator[None]:
    """Some of the packages ask for this thread's event loop, which would be made and never closed."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    asyncio.set_event_loop(None)
    loop.close()


def event(text: str) -> bytes:
    choice = {"index": 0, "delta": {"role": "assistant", "content": text}, "finish_reason": None}
    chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


DONE = b"data: [DONE]\n\n"


def stream(*texts: str) -> Reply:
    return chunked(*(event(text) for text in texts), DONE)


def error(status: int, code: str, **headers: str) -> Reply:
    return document(
        {"error": {"message": "no", "type": code, "code": code, "param": None}}, status, **headers
    )


class SDK:
    """Either client of the SDK, with its own retries off."""

    def __init__(self, caller: Caller, url: str) -> None:
        self._caller = caller
        settings: Any = {"base_url": f"{url}/v1", "api_key": "k", "max_retries": 0}
        if caller.is_async:
            http: Any = httpx.AsyncClient(transport=caller.transport)
            self.client = openai.AsyncOpenAI(http_client=http, **settings)
        else:
            self.client = openai.OpenAI(http_client=httpx.Client(transport=caller.transport), **settings)

    def ask(self, **more: Any) -> str:
        if not self._caller.is_async:
            return str(self.client.chat.completions.create(**ASKED, **more).choices[0].message.content)

        async def once() -> str:
            done = await self.client.chat.completions.create(**ASKED, **more)
            return str(done.choices[0].message.content)

        return str(self._caller.run(once))

    def stream(self, texts: list[str]) -> None:
        if not self._caller.is_async:
            for chunk in self.client.chat.completions.create(**ASKED, stream=True):
                texts.append(chunk.choices[0].delta.content)
            return

        async def once() -> None:
            async for chunk in await self.client.chat.completions.create(**ASKED, stream=True):
                texts.append(chunk.choices[0].delta.content)

        self._caller.run(once)


def test_a_completion_comes_through_failures(caller: Caller) -> None:
    with ScriptedServer(
        reset(), error(429, "rate_limit_exceeded", retry_after="1"), document(COMPLETION)
    ) as server:
        assert SDK(caller, server.url).ask() == "hello"
    assert len({received.headers["idempotency-key"] for received in server.received}) == 1
    assert {received.headers["x-stainless-retry-count"] for received in server.received} == {"0"}
    assert {received.path for received in server.received} == {"/v1/chat/completions"}


def test_a_stream_comes_through_failures_before_its_first_byte(caller: Caller) -> None:
    texts: list[str] = []
    with ScriptedServer(error(503, "server_error"), raw(b""), stream("a", "b", "c")) as server:
        SDK(caller, server.url).stream(texts)
    assert texts == ["a", "b", "c"]
    assert len(server.received) == 3


def test_a_stream_that_breaks_is_not_begun_again(caller: Caller) -> None:
    texts: list[str] = []
    with ScriptedServer(chunked(event("a"), end=reset()), stream("a", "b")) as server:
        with pytest.raises((openai.APIConnectionError, httpx.TransportError)):
            SDK(caller, server.url).stream(texts)
        assert len(server.received) == 1
    assert texts == ["a"]


@pytest.mark.parametrize(
    ("status", "code", "raised", "attempts"),
    [
        (429, "insufficient_quota", "RateLimitError", 1),
        (429, "rate_limit_exceeded", "RateLimitError", 3),
        (400, "context_length_exceeded", "BadRequestError", 1),
        (401, "invalid_api_key", "AuthenticationError", 1),
        (500, "server_error", "InternalServerError", 3),
    ],
)
def test_the_errors_are_the_sdks_own(
    caller: Caller, status: int, code: str, raised: str, attempts: int
) -> None:
    with ScriptedServer(error(status, code)) as server:
        with pytest.raises(getattr(openai, raised)) as caught:
            SDK(caller, server.url).ask()
        assert caught.value.code == code
        assert len(server.received) == attempts


def test_a_refusal_is_a_connection_error_of_the_sdks(make: Make, clock: ManualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, clock=clock)
    sdk_of = make(policy=quick(clock, attempts=1, breaker=breaker))
    with ScriptedServer(error(500, "server_error")) as server:
        sdk = SDK(sdk_of, server.url)
        with pytest.raises(openai.InternalServerError):
            sdk.ask()
        with pytest.raises(openai.APIConnectionError) as caught:
            sdk.ask()
    assert isinstance(caught.value.__cause__, CircuitOpenError)
    assert caught.value.__cause__.retry_after > 0


def test_the_deadline_is_a_time_out_of_the_sdks(make: Make) -> None:
    from autoglm_reliability import Backoff, Policy
    from autoglm_reliability.propagation import Inbound, serving

    caller = make(policy=lambda _: Policy(retry=Backoff()))
    with ScriptedServer(document(COMPLETION)) as server:
        sdk = SDK(caller, server.url)
        with serving(Inbound(deadline=0)), pytest.raises(openai.APITimeoutError) as caught:
            sdk.ask()
    assert isinstance(caught.value.__cause__, DeadlineError)


def test_another_model_elsewhere_answers_for_one_that_is_down(make: Make, clock: ManualClock) -> None:
    with (
        ScriptedServer(error(503, "overloaded_error")) as first,
        ScriptedServer(document(COMPLETION)) as second,
    ):
        keys = {"Authorization": "Bearer other"}
        places = [Endpoint(f"{first.url}/v1"), Endpoint(f"{second.url}/api", headers=keys, model="small")]
        caller = make(policy=quick(clock, attempts=1), endpoints=places)
        assert SDK(caller, first.url).ask() == "hello"
    (sent,) = second.received
    assert (sent.path, sent.json["model"], sent.headers["authorization"]) == (
        "/api/chat/completions",
        "small",
        "Bearer other",
    )


def test_langchain_goes_through_it(make: Make, kind: str, clock: ManualClock) -> None:
    chat = pytest.importorskip("langchain_openai").ChatOpenAI
    caller = make(policy=quick(clock))
    texts: list[str] = []
    replies = [answer(503), document(COMPLETION), reset(), stream("a", "b")]
    with ScriptedServer(*replies) as server:
        settings: Any = {"model": "m", "base_url": f"{server.url}/v1", "api_key": "k", "max_retries": 0}
        if kind == "sync":
            model = chat(http_client=httpx.Client(transport=caller.transport), **settings)
            assert model.invoke("hi").content == "hello"
            texts = [chunk.content for chunk in model.stream("hi")]
        else:
            model = chat(http_async_client=httpx.AsyncClient(transport=caller.transport), **settings)

            async def work() -> None:
                assert (await model.ainvoke("hi")).content == "hello"
                texts.extend([chunk.content async for chunk in model.astream("hi")])

            caller.run(work)
    assert "".join(texts) == "ab"
    assert len(server.received) == 4


# What the package warns of is its own.
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
def test_litellm_goes_through_it(make: Make, kind: str, clock: ManualClock) -> None:
    litellm = pytest.importorskip("litellm")
    caller = make(policy=quick(clock))
    with ScriptedServer(answer(503), document(COMPLETION)) as server:
        client = SDK(caller, server.url).client
        asked: Any = {**ASKED, "model": "openai/m", "client": client, "max_retries": 0}
        if kind == "sync":
            done = litellm.completion(**asked)
        else:

            async def work() -> Any:
                return await litellm.acompletion(**asked)

            done = caller.run(work)
    assert done.choices[0].message.content == "hello"
    assert len(server.received) == 2
