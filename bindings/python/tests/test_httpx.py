# SPDX-License-Identifier: Apache-2.0
"""The transports for httpx, against real sockets: what is retried, and what is told."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Callable

import httpx
import pytest

from autoglm_reliability import Backoff, CircuitBreaker, Policy, Reason, RetryBudget
from autoglm_reliability.httpx import (
    BudgetExhaustedError,
    CircuitOpenError,
    DeadlineError,
    RateLimitedError,
    RefusedError,
    ReliableTransport,
    _headers,
    _plan,
)
from autoglm_reliability.propagation import Inbound, serving
from autoglm_reliability.testing import ManualClock
from calling import Caller, quick
from scripted_http import ScriptedServer, answer, chunked, document, raw, reset, silent, trickle


def test_a_good_answer_is_passed_on_as_it_is(caller: Caller) -> None:
    with ScriptedServer(answer(200, b"hello", x_other="1")) as server:
        response = caller.request("GET", f"{server.url}/a?b=c")
    assert (response.status_code, response.content, response.headers["x-other"]) == (200, b"hello", "1")
    (received,) = server.received
    assert (received.method, received.path) == ("GET", "/a?b=c")
    assert caller.transport.policy(server.url).snapshot().succeeded == 1


@pytest.mark.parametrize(
    "failure", [answer(500), answer(503), answer(429), reset(), raw(b""), raw(b"nonsense\r\n\r\n")]
)
def test_a_passing_failure_is_repeated_with_the_same_key(caller: Caller, failure: Any) -> None:
    with ScriptedServer(failure, failure, document({"a": 1})) as server:
        response = caller.request("POST", f"{server.url}/x", json={"prompt": "hi"})
    assert response.json() == {"a": 1}
    assert [received.json for received in server.received] == [{"prompt": "hi"}] * 3
    keys = {received.headers["idempotency-key"] for received in server.received}
    assert len(keys) == 1
    assert len(keys.pop()) >= 32
    assert [received.headers["agr-attempt"] for received in server.received] == ["1", "2", "3"]
    times = [int(received.headers["agr-timeout-ms"]) for received in server.received]
    assert times == sorted(times, reverse=True)
    assert 0 < times[-1] < times[0] <= 60_000


def test_a_key_of_the_callers_own_is_sent_as_it_is(caller: Caller) -> None:
    with ScriptedServer(reset(), answer()) as server:
        caller.request("POST", server.url, headers={"idempotency-key": "mine"}, content=b"x")
    assert [received.headers["idempotency-key"] for received in server.received] == ["mine", "mine"]


def test_two_requests_have_two_keys(caller: Caller) -> None:
    with ScriptedServer(answer()) as server:
        caller.request("POST", server.url)
        caller.request("POST", server.url)
    first, second = server.received
    assert first.headers["idempotency-key"] != second.headers["idempotency-key"]


def test_what_may_have_been_executed_is_not_repeated_without_a_key(
    make: Callable[..., Caller], clock: ManualClock
) -> None:
    caller = make(policy=quick(clock), idempotency_header="")
    with ScriptedServer(reset(), answer(500), answer(503), answer()) as server:
        with pytest.raises(httpx.TransportError):
            caller.request("POST", server.url, content=b"x")
        assert caller.request("POST", server.url, content=b"x").status_code == 500
        assert len(server.received) == 2
        assert caller.request("POST", server.url, content=b"x").status_code == 200  # 503: it did nothing
        assert len(server.received) == 4
    assert all("idempotency-key" not in received.headers for received in server.received)


def test_a_get_is_repeated_and_has_no_key(caller: Caller) -> None:
    with ScriptedServer(reset(), answer()) as server:
        assert caller.request("GET", server.url).status_code == 200
    assert "idempotency-key" not in server.received[1].headers


def test_the_last_answer_is_passed_on_whole(caller: Caller) -> None:
    with ScriptedServer(
        answer(503, b"one"), answer(503, b"two"), answer(502, b"three", x_last="yes")
    ) as server:
        response = caller.request("GET", server.url)
    assert (response.status_code, response.content, response.headers["x-last"]) == (502, b"three", "yes")
    assert len(server.received) == 3


def test_a_long_error_is_passed_on_whole(caller: Caller) -> None:
    body = b"x" * 300_000
    with ScriptedServer(answer(400, body)) as server:
        assert caller.request("GET", server.url).content == body


def test_the_last_exception_is_raised_as_itself(caller: Caller) -> None:
    with ScriptedServer(reset()) as server:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)) as caught:
            caller.request("GET", server.url)
        assert not isinstance(caught.value, RefusedError)
        assert caught.value.request.url == server.url
        assert len(server.received) == 3


def test_nobody_listens(caller: Caller, clock: ManualClock) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(httpx.ConnectError):
        caller.request("POST", f"http://127.0.0.1:{port}/", content=b"x")
    assert len(clock.slept) == 2


def test_a_name_that_does_not_exist_is_not_asked_for_again(caller: Caller, clock: ManualClock) -> None:
    with pytest.raises(httpx.ConnectError):
        caller.request("GET", "http://no-such-host.invalid/")
    assert len(clock.slept) <= 2  # without a resolver it is "try again"
    policy = caller.transport.policy("http://no-such-host.invalid")
    assert policy.snapshot().attempts == len(clock.slept) + 1


def test_the_servers_delay_is_kept(caller: Caller, clock: ManualClock) -> None:
    with ScriptedServer(answer(429, retry_after_ms="1500", retry_after="9"), answer()) as server:
        caller.request("GET", server.url)
    assert 1.5 <= clock.slept[0] < 2


def test_a_limit_that_is_used_up_is_waited_for(caller: Caller, clock: ManualClock) -> None:
    used_up = {"x_ratelimit_remaining_tokens": "0", "x_ratelimit_reset_tokens": "6s"}
    with ScriptedServer(answer(429, **used_up), answer()) as server:
        caller.request("GET", server.url)
    assert 6 <= clock.slept[0] < 7


def test_what_one_request_was_told_holds_for_the_next(caller: Caller, clock: ManualClock) -> None:
    used_up = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "20s"}
    with ScriptedServer(answer(200, **used_up), answer()) as server:
        caller.request("GET", server.url)
        assert clock.slept == []
        caller.request("GET", server.url)
    assert len(clock.slept) == 1
    assert 20 <= clock.slept[0] <= 21
    assert caller.transport.policy(server.url).snapshot().abandoned == 1  # the call begins after the wait


def test_a_longer_rest_than_anybody_waits_is_a_refusal(caller: Caller, clock: ManualClock) -> None:
    used_up = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "5m0s"}
    with ScriptedServer(answer(200, **used_up), answer()) as server:
        caller.request("GET", server.url)
        with pytest.raises(RateLimitedError) as caught:
            caller.request("GET", server.url)
        assert caught.value.retry_after == pytest.approx(300, abs=2)
        clock.advance(301)
        assert caller.request("GET", server.url).status_code == 200


def test_x_should_retry_wins(caller: Caller) -> None:
    with ScriptedServer(answer(503, x_should_retry="false"), answer()) as server:
        assert caller.request("GET", server.url).status_code == 503
    with ScriptedServer(answer(400, x_should_retry="true"), answer()) as server:
        assert caller.request("GET", server.url).status_code == 200


def body_of(code: str, kind: str = "") -> dict[str, Any]:
    return {"error": {"message": "no", "type": kind or code, "code": code, "param": None}}


@pytest.mark.parametrize(
    ("status", "code", "attempts"),
    [
        (429, "insufficient_quota", 1),
        (429, "rate_limit_exceeded", 3),
        (400, "context_length_exceeded", 1),
        (401, "invalid_api_key", 1),
        (401, "something_else", 1),
        (404, "model_not_found", 1),
        (400, "content_policy_violation", 1),
        (500, "server_error", 3),
        (529, "overloaded_error", 3),
        (503, "invalid_request_error", 3),
        (400, "rate_limit_exceeded", 1),
        (418, "never_heard_of", 1),
    ],
)
def test_the_body_of_an_error_decides(caller: Caller, status: int, code: str, attempts: int) -> None:
    with ScriptedServer(document(body_of(code), status)) as server:
        response = caller.request("POST", server.url, json={})
    assert response.status_code == status
    assert response.json() == body_of(code)
    assert len(server.received) == attempts


def test_the_callers_own_faults_do_not_open_the_breaker(
    make: Callable[..., Caller], clock: ManualClock
) -> None:
    breaker = CircuitBreaker(consecutive_failures=2, clock=clock)
    caller = make(policy=quick(clock, attempts=1, breaker=breaker))
    with ScriptedServer(document(body_of("context_length_exceeded"), 400)) as server:
        for _ in range(5):
            assert caller.request("POST", server.url).status_code == 400
    assert breaker.snapshot().consecutive_failures == 0


def test_an_open_breaker_refuses_without_a_connection(
    make: Callable[..., Caller], clock: ManualClock
) -> None:
    breaker = CircuitBreaker(consecutive_failures=2, open=5, open_jitter=0, clock=clock)
    caller = make(policy=quick(clock, attempts=1, breaker=breaker))
    with ScriptedServer(answer(500), answer(500), answer()) as server:
        for _ in range(2):
            assert caller.request("GET", server.url).status_code == 500
        with pytest.raises(CircuitOpenError) as caught:
            caller.request("GET", server.url)
        assert isinstance(caught.value, httpx.TransportError)
        assert caught.value.reason is Reason.OPEN
        assert 0 < caught.value.retry_after <= 5
        assert caught.value.request.method == "GET"
        assert len(server.received) == 2
        clock.advance(6)
        assert caller.request("GET", server.url).status_code == 200


def test_a_spent_budget_ends_the_retries(make: Callable[..., Caller], clock: ManualClock) -> None:
    budget = RetryBudget(ratio=0, min_per_second=0, quota=1, initial=1, clock=clock)
    caller = make(policy=quick(clock, budget=budget))
    with ScriptedServer(answer(500)) as server:
        assert caller.request("GET", server.url).status_code == 500
    assert len(server.received) == 2
    assert not issubclass(BudgetExhaustedError, httpx.TimeoutException)


def test_a_body_that_can_be_sent_only_once_is_sent_once(
    kind: str, make: Callable[..., Caller], clock: ManualClock
) -> None:
    caller = make(policy=quick(clock))

    def parts() -> Any:
        yield b"one"

    async def parts_async() -> Any:
        yield b"one"

    with ScriptedServer(answer(503), answer()) as server:
        response = caller.request("POST", server.url, content=parts_async() if kind == "async" else parts())
        assert response.status_code == 503
    assert [received.body for received in server.received] == [b"one"]


def test_a_short_body_of_known_length_is_kept_for_repetition(caller: Caller) -> None:
    with ScriptedServer(answer(503), answer()) as server:
        response = caller.request("POST", server.url, files={"file": ("a.txt", b"content")})
        assert response.status_code == 200
    assert len({received.body for received in server.received}) == 1
    assert b"content" in server.received[1].body


def test_an_outer_layer_that_retries_is_left_to_it(make: Callable[..., Caller], clock: ManualClock) -> None:
    nested = make(policy=quick(clock), nested_retries=True)
    with ScriptedServer(answer(503)) as server, serving(Inbound(attempt=1)):
        assert make(policy=quick(clock)).request("GET", server.url).status_code == 503
        assert len(server.received) == 1
        assert nested.request("GET", server.url).status_code == 503
        assert len(server.received) == 4


def test_the_callers_deadline_is_kept_and_told(make: Callable[..., Caller], clock: ManualClock) -> None:
    caller = make(policy=quick(clock))
    with ScriptedServer(answer()) as server:
        with serving(Inbound(deadline=time.monotonic() + 5)):
            caller.request("GET", server.url)
        with serving(Inbound(deadline=time.monotonic() + 500)):
            caller.request("GET", server.url)
        assert 0 < int(server.received[0].headers["agr-timeout-ms"]) <= 5000
        assert 5000 < int(server.received[1].headers["agr-timeout-ms"]) <= 60_000
        with serving(Inbound(deadline=time.monotonic() - 1)), pytest.raises(DeadlineError) as caught:
            caller.request("GET", server.url)
        assert isinstance(caught.value, httpx.TimeoutException)
        assert isinstance(caught.value, TimeoutError)
        assert caught.value.request.method == "GET"
        assert len(server.received) == 2


def test_the_request_keeps_its_key_and_nothing_of_its_attempts(caller: Caller) -> None:
    with ScriptedServer(answer(503), answer()) as server:
        response = caller.request("POST", server.url, headers={"agr-attempt": "7", "AGR-Timeout-MS": "1"})
    told = [received.headers for received in server.received]
    assert [headers["agr-attempt"] for headers in told] == ["1", "2"]
    assert all(1 < int(headers["agr-timeout-ms"]) <= 60_000 for headers in told)
    assert response.request.headers["idempotency-key"] == told[0]["idempotency-key"]
    assert not [name for name in response.request.headers if name.startswith("agr-")]


@pytest.mark.parametrize("known", [True, False])
def test_headers_are_the_same_however_httpx_keeps_them(
    make: Callable[..., Caller], clock: ManualClock, known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_headers, "_KNOWN", known)
    monkeypatch.setattr(_plan, "_PARTS_ARE_KNOWN", known)
    caller = make(policy=quick(clock))
    with ScriptedServer(answer(503), answer(), answer()) as server:
        first = caller.request("POST", server.url, headers={"agr-attempt": "7", "X-Own": "a"})
        second = caller.request("POST", server.url, headers={"Idempotency-Key": "own"})
    told = [received.headers for received in server.received]
    assert [headers["agr-attempt"] for headers in told] == ["1", "2", "1"]
    assert told[0]["idempotency-key"] == told[1]["idempotency-key"] != "own"
    assert told[2]["idempotency-key"] == "own"
    assert [headers.get("x-own") for headers in told] == ["a", "a", None]
    for response in (first, second):
        assert not [name for name in response.request.headers if name.startswith("agr-")]


def test_nothing_is_told_when_it_is_not_to_be(make: Callable[..., Caller], clock: ManualClock) -> None:
    caller = make(policy=quick(clock), propagate=False)
    with ScriptedServer(answer()) as server:
        caller.request("GET", server.url, headers={"x-stainless-retry-count": "0"})
    assert not [name for name in server.received[0].headers if name.startswith("agr-")]
    assert server.received[0].headers["x-stainless-retry-count"] == "0"


def test_the_requests_own_time_outs_are_as_they_were(caller: Caller) -> None:
    with ScriptedServer(answer()) as server:
        response = caller.request("GET", server.url, timeout=httpx.Timeout(7))
    assert response.request.extensions["timeout"] == httpx.Timeout(7).as_dict()


@pytest.mark.parametrize(
    ("field", "script"),
    [
        ("first_byte_timeout", silent),
        ("attempt_timeout", silent),
        ("idle_timeout", chunked(b"one", kind="application/json", end=silent)),
        ("attempt_timeout", trickle(b"x")),
        ("attempt_timeout", chunked(kind="application/json", end=trickle(b"1\r\nx\r\n"))),
    ],
    ids=["first byte", "attempt", "idle", "trickling headers", "trickling body"],
)
def test_each_time_out_ends_an_attempt_which_is_then_repeated(
    make: Callable[..., Caller], clock: ManualClock, field: str, script: Any
) -> None:
    caller = make(policy=quick(clock, **{field: 0.2}))
    with ScriptedServer(script, document([1])) as server:
        assert caller.request("POST", server.url).json() == [1]
    assert len(server.received) == 2


def test_the_total_ends_everything(make: Callable[..., Caller]) -> None:
    caller = make(policy=lambda _: Policy(retry=Backoff(max_attempts=9), total_timeout=0.3))
    with ScriptedServer(trickle(b"x")) as server, pytest.raises(httpx.TimeoutException):
        caller.request("GET", server.url, timeout=None)
    assert len(server.received) == 1


def test_no_time_out_is_longer_than_the_clients(caller: Caller) -> None:
    with ScriptedServer(silent) as server, pytest.raises(httpx.ReadTimeout):
        caller.request("GET", server.url, timeout=0.05)
    assert len(server.received) == 3


def test_a_full_pool_is_not_the_hosts_failure(
    kind: str, make: Callable[..., Caller], clock: ManualClock
) -> None:
    inner: Any = httpx.AsyncHTTPTransport if kind == "async" else httpx.HTTPTransport
    limits = httpx.Limits(max_connections=1)
    caller = make(transport=inner(limits=limits), policy=quick(clock))
    with ScriptedServer(answer()) as server:
        if kind == "sync":
            client = httpx.Client(transport=caller.transport, timeout=httpx.Timeout(10, pool=0.05))
            with client.stream("GET", server.url), pytest.raises(httpx.PoolTimeout):
                client.get(server.url)
        else:

            async def work() -> None:
                client = httpx.AsyncClient(transport=caller.transport, timeout=httpx.Timeout(10, pool=0.05))
                async with client.stream("GET", server.url):
                    with pytest.raises(httpx.PoolTimeout):
                        await client.get(server.url)

            caller.run(work)
    assert clock.slept == []


def test_threads_share_a_transport() -> None:
    transport = ReliableTransport(policy=lambda _: Policy(retry=Backoff(max_attempts=2, base_delay=0)))
    with ScriptedServer(document([1])) as server, httpx.Client(transport=transport, timeout=30) as client:

        def work(_: int) -> list[int]:
            return [client.post(server.url, json={}).status_code for _ in range(20)]

        with ThreadPoolExecutor(8) as pool:
            assert all(status == 200 for statuses in pool.map(work, range(8)) for status in statuses)
        seen = transport.policy(server.url).snapshot()
    assert (seen.succeeded, seen.calls_alive) == (160, 0)
    assert len({received.headers["idempotency-key"] for received in server.received}) == 160


def test_more_calls_than_a_policy_has_room_for_are_refused(clock: ManualClock) -> None:
    transport = ReliableTransport(policy=quick(clock, max_calls=1))
    with ScriptedServer(answer()) as server, httpx.Client(transport=transport) as client:
        with client.stream("GET", server.url), pytest.raises(RefusedError) as caught:
            client.get(server.url)
        assert caught.value.field == "max_calls"
        assert client.get(server.url).status_code == 200
