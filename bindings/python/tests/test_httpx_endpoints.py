# SPDX-License-Identifier: Apache-2.0
"""The transports for httpx: several endpoints, and connections that are encrypted."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any, Callable

import httpx
import pytest

from autoglm_reliability import ArgumentError, CircuitBreaker, ClosedError, Policy
from autoglm_reliability.httpx import CircuitOpenError, Endpoint
from autoglm_reliability.testing import ManualClock
from calling import Caller, quick
from scripted_http import ScriptedServer, answer, document, reset

Make = Callable[..., Caller]
KEYS = {"Authorization": "Bearer first", "Cookie": "a=b", "x-other": "kept"}


def pair(first: ScriptedServer, second: ScriptedServer) -> list[Endpoint]:
    return [
        Endpoint(f"{first.url}/v1"),
        Endpoint(f"{second.url}/other/v2", headers={"Authorization": "Bearer second"}, model="its-own"),
    ]


def test_the_next_endpoint_serves_while_the_first_is_down_and_no_longer(
    make: Make, clock: ManualClock
) -> None:
    def policy(origin: str) -> Policy:
        breaker = CircuitBreaker(consecutive_failures=2, open=5, open_jitter=0, clock=clock)
        return quick(clock, attempts=2, breaker=breaker)(origin)

    failing = ScriptedServer(reset(), answer(500), answer(200, b"first"))
    with failing as first, ScriptedServer(answer(200, b"second")) as second:
        caller = make(policy=policy, endpoints=pair(first, second))

        def ask() -> bytes:
            url = f"{first.url}/v1/chat?a=b"
            return caller.request("POST", url, json={"model": "m", "n": 1}, headers=KEYS).content

        assert [ask(), ask()] == [b"second", b"second"]
        assert len(first.received) == 2  # then its breaker was open
        clock.advance(6)
        assert ask() == b"first"
    sent = second.received[0]
    assert sent.path == "/other/v2/chat?a=b"
    assert sent.json == {"model": "its-own", "n": 1}
    assert sent.headers["authorization"] == "Bearer second"
    assert sent.headers["x-other"] == "kept"
    assert sent.headers["host"] == second.url.partition("//")[2]
    assert sent.headers["idempotency-key"] == first.received[0].headers["idempotency-key"]
    assert "cookie" not in sent.headers
    assert first.received[0].json == {"model": "m", "n": 1}
    assert first.received[0].headers["authorization"] == "Bearer first"


def test_nobody_listens_at_the_first(make: Make, clock: ManualClock) -> None:
    with ScriptedServer(answer()) as gone:
        pass
    with ScriptedServer(answer(200, b"second")) as second:
        caller = make(policy=quick(clock), endpoints=pair(gone, second))
        assert caller.request("GET", f"{gone.url}/v1/x").content == b"second"


@pytest.mark.parametrize(
    ("status", "code", "served_by"),
    [
        (429, "insufficient_quota", b"second"),
        (401, "invalid_api_key", b"second"),
        (404, "model_not_found", b"second"),
        (400, "context_length_exceeded", b"first"),
        (404, "no_such_file", b"first"),
    ],
)
def test_what_is_wrong_with_the_request_is_wrong_everywhere(
    make: Make, clock: ManualClock, status: int, code: str, served_by: bytes
) -> None:
    refusal = document({"error": {"code": code}, "by": "first"}, status)
    with ScriptedServer(refusal) as first, ScriptedServer(answer(200, b"second")) as second:
        caller = make(policy=quick(clock, attempts=1), endpoints=pair(first, second))
        assert served_by in caller.request("POST", f"{first.url}/v1/x", json={}).content


def test_what_may_have_been_executed_goes_to_no_other(make: Make, clock: ManualClock) -> None:
    with ScriptedServer(answer(500), reset()) as first, ScriptedServer(answer()) as second:
        caller = make(policy=quick(clock), endpoints=pair(first, second), idempotency_header="")
        assert caller.request("POST", f"{first.url}/v1/x").status_code == 500
        with pytest.raises(httpx.TransportError):
            caller.request("POST", f"{first.url}/v1/x")
        assert second.received == []


def test_the_last_endpoint_has_the_last_word(make: Make, clock: ManualClock) -> None:
    with ScriptedServer(answer(503, b"first")) as first, ScriptedServer(answer(502, b"second")) as second:
        caller = make(policy=quick(clock, attempts=1), endpoints=pair(first, second))
        assert caller.request("GET", f"{first.url}/v1/x").content == b"second"
        breakers = [caller.transport.policy(server.url) for server in (first, second)]
    assert breakers[0] is not breakers[1]
    assert [policy.snapshot().failed for policy in breakers] == [1, 1]


@pytest.mark.parametrize("path", ["/v10/x", "/x", "/"])
def test_another_url_is_served_where_it_is(make: Make, clock: ManualClock, path: str) -> None:
    with ScriptedServer(answer(503)) as first, ScriptedServer(answer()) as second:
        caller = make(policy=quick(clock), endpoints=pair(first, second))
        assert caller.request("GET", first.url + path).status_code == 503
        assert second.received == []


@pytest.mark.parametrize("url", ["", "ftp://a/", "/v1", "http://", "http://a/?b=c"])
def test_an_endpoint_is_a_url(url: str) -> None:
    with pytest.raises(ArgumentError) as caught:
        Endpoint(url)
    assert caught.value.field == "base_url"


def test_an_endpoint_does_not_print_its_keys() -> None:
    assert "secret" not in repr(Endpoint("http://a", headers={"Authorization": "secret"}))


def test_each_origin_has_a_policy_and_the_oldest_goes_first(make: Make, clock: ManualClock) -> None:
    made: list[str] = []

    def policy(origin: str) -> Policy:
        made.append(origin)
        return quick(clock, attempts=1, breaker=CircuitBreaker(consecutive_failures=1, clock=clock))(origin)

    with ScriptedServer(answer(500)) as one, ScriptedServer(answer()) as two:
        caller = make(policy=policy, max_hosts=1)
        assert caller.request("GET", one.url).status_code == 500
        with pytest.raises(CircuitOpenError):
            caller.request("GET", one.url)
        assert caller.request("GET", two.url).status_code == 200
        assert caller.request("GET", one.url).status_code == 500  # forgotten
    assert made == [one.url, two.url, one.url]


def test_one_policy_can_be_for_all(make: Make, clock: ManualClock) -> None:
    policy = quick(clock)("")
    with ScriptedServer(answer()) as one, ScriptedServer(answer()) as two:
        caller = make(policy=policy)
        caller.request("GET", one.url)
        caller.request("GET", two.url)
    assert policy.snapshot().succeeded == 2


def test_a_closed_transport_says_so(kind: str) -> None:
    caller = Caller(kind)
    caller.close()
    with pytest.raises(ClosedError):
        caller.transport.policy("http://127.0.0.1")


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"policy": 1}, TypeError),
        ({"costs": 1}, TypeError),
        ({"idempotency_header": None}, TypeError),
        ({"idempotency_header": "cl\u00e9"}, ArgumentError),
        ({"hold_json": -1}, ArgumentError),
        ({"buffer_body": -1}, ArgumentError),
        ({"max_pause": float("nan")}, ArgumentError),
        ({"max_hosts": 0}, ArgumentError),
        ({"unknown": 1}, TypeError),
    ],
)
def test_bad_options_are_named(kind: str, options: dict[str, Any], error: type[Exception]) -> None:
    from autoglm_reliability.httpx import AsyncReliableTransport, ReliableTransport

    with pytest.raises(error, match=next(iter(options))):
        (ReliableTransport if kind == "sync" else AsyncReliableTransport)(**options)


def test_a_policy_that_is_none_is_named(make: Make) -> None:
    caller = make(policy=lambda _: 7)
    with pytest.raises(TypeError, match="policy"):
        caller.request("GET", "http://127.0.0.1:1/")


def secured(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    return context


def inner(kind: str, **arguments: Any) -> Any:
    return (httpx.HTTPTransport if kind == "sync" else httpx.AsyncHTTPTransport)(**arguments)


def test_an_unknown_certificate_is_not_tried_again(
    make: Make, clock: ManualClock, certificate: tuple[Path, Path]
) -> None:
    with ScriptedServer(answer(), tls=secured(certificate)) as server:
        with pytest.raises(httpx.ConnectError, match=r"(?i)certificate"):
            make(policy=quick(clock)).request("GET", server.url)
        assert server.connections == 1


def test_a_known_certificate_is_retried_over(
    kind: str, make: Make, clock: ManualClock, certificate: tuple[Path, Path]
) -> None:
    trust = ssl.create_default_context(cafile=str(certificate[1]))
    with ScriptedServer(reset(), answer(), tls=secured(certificate)) as server:
        caller = make(policy=quick(clock), transport=inner(kind, verify=trust))
        assert caller.request("POST", server.url).status_code == 200
        assert len(server.received) == 2


def test_a_handshake_that_breaks_is_tried_again(make: Make, clock: ManualClock) -> None:
    # It speaks no TLS at all, and nothing was sent: that may be repeated, for a POST without a key too.
    caller = make(policy=quick(clock), idempotency_header="")
    with ScriptedServer(answer()) as server:
        with pytest.raises((httpx.ConnectError, httpx.ReadError, httpx.ConnectTimeout)):
            caller.request("POST", server.url.replace("http", "https"), timeout=0.3)
        assert server.connections == 3
