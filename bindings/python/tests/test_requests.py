# SPDX-License-Identifier: Apache-2.0
"""The adapter for requests, against real sockets."""

from __future__ import annotations

import gc
import gzip
import io
import pickle
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest
import requests
from urllib3.util import Timeout

from autoglm_reliability import ArgumentError, Backoff, CircuitBreaker, Policy, RateLimiter
from autoglm_reliability.propagation import Inbound, serving
from autoglm_reliability.requests import (
    CircuitOpenError,
    DeadlineError,
    RateLimitedError,
    ReliableAdapter,
    chat_costs,
)
from autoglm_reliability.testing import ManualClock
from calling import quick
from scripted_http import ScriptedServer, answer, chunked, document, raw, reset, silent, trickle

Make = Callable[..., requests.Session]


@pytest.fixture
def make_session() -> Iterator[Make]:
    made: list[requests.Session] = []

    def make(**options: Any) -> requests.Session:
        session = requests.Session()
        session.trust_env = False
        adapter = ReliableAdapter(**options)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        made.append(session)
        return session

    yield make
    for session in made:
        session.close()


@pytest.fixture
def session(make_session: Make, clock: ManualClock) -> requests.Session:
    return make_session(policy=quick(clock))


def snapshot(session: requests.Session, server: ScriptedServer) -> Any:
    adapter: Any = session.get_adapter(server.url)
    return adapter.policy(server.url).snapshot()


def test_a_good_answer_is_passed_on_as_it_is(session: requests.Session) -> None:
    with ScriptedServer(answer(200, b"hello", set_cookie="a=b"), document({"a": 1})) as server:
        response = session.get(f"{server.url}/a?b=c")
        assert (response.content, response.cookies["a"], response.request.method) == (b"hello", "b", "GET")
        assert session.get(server.url).json() == {"a": 1}
        assert server.connections == 1
    assert server.received[1].headers["cookie"] == "a=b"
    assert snapshot(session, server).succeeded == 2


@pytest.mark.parametrize(
    "failure", [answer(500), answer(503), answer(429), reset(), raw(b""), raw(b"nonsense\r\n\r\n")]
)
def test_a_passing_failure_is_repeated_with_the_same_key(session: requests.Session, failure: Any) -> None:
    with ScriptedServer(failure, failure, document({"a": 1})) as server:
        assert session.post(f"{server.url}/x", json={"prompt": "hi"}).json() == {"a": 1}
    assert [received.json for received in server.received] == [{"prompt": "hi"}] * 3
    assert len({received.headers["idempotency-key"] for received in server.received}) == 1
    assert [received.headers["agr-attempt"] for received in server.received] == ["1", "2", "3"]
    assert all(0 < int(received.headers["agr-timeout-ms"]) <= 60_000 for received in server.received)


def test_what_may_have_been_executed_is_not_repeated_without_a_key(
    make_session: Make, clock: ManualClock
) -> None:
    session = make_session(policy=quick(clock), idempotency_header="")
    with ScriptedServer(reset(), answer(500), answer(503), answer()) as server:
        with pytest.raises(requests.ConnectionError):
            session.post(server.url, data=b"x")
        assert session.post(server.url, data=b"x").status_code == 500
        assert session.post(server.url, data=b"x").status_code == 200
        assert len(server.received) == 4


def test_the_last_answer_is_passed_on_whole(session: requests.Session) -> None:
    with ScriptedServer(answer(503), answer(502, b"last", x_last="yes")) as server:
        response = session.get(server.url)
    assert (response.status_code, response.content, response.headers["x-last"]) == (502, b"last", "yes")
    assert len(server.received) == 3


def test_what_is_long_is_passed_on_whole(make_session: Make, clock: ManualClock) -> None:
    body = b"[" + b" " * 300_000 + b"]"
    session = make_session(policy=quick(clock), hold_json=1000)
    with ScriptedServer(answer(400, body), answer(200, body, "application/json")) as server:
        assert session.get(server.url).content == body
        assert session.get(server.url).content == body
    assert snapshot(session, server).calls_alive == 0


def test_what_is_compressed_is_passed_on_and_understood(session: requests.Session) -> None:
    body = gzip.compress(b'{"error":{"code":"insufficient_quota"}}')
    with ScriptedServer(answer(429, body, "application/json", content_encoding="gzip")) as server:
        assert session.get(server.url).json() == {"error": {"code": "insufficient_quota"}}
        assert len(server.received) == 1
    with ScriptedServer(
        answer(200, gzip.compress(b"[1]"), "application/json", content_encoding="gzip")
    ) as server:
        assert session.get(server.url).json() == [1]


def test_nobody_listens(make_session: Make, clock: ManualClock) -> None:
    session = make_session(policy=quick(clock), idempotency_header="")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(requests.ConnectionError):
        session.post(f"http://127.0.0.1:{port}/", data=b"x")
    assert len(clock.slept) == 2  # nothing was sent


def test_the_servers_delay_is_kept(session: requests.Session, clock: ManualClock) -> None:
    used_up = {"x_ratelimit_remaining_requests": "0", "x_ratelimit_reset_requests": "20s"}
    with ScriptedServer(answer(429, retry_after="4"), answer(200, **used_up), answer()) as server:
        session.get(server.url)
        session.get(server.url)
    assert 4 <= clock.slept[0] < 5
    assert 20 <= clock.slept[1] <= 21


def test_refusals_are_errors_of_requests(make_session: Make, clock: ManualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, clock=clock)
    session = make_session(policy=quick(clock, attempts=1, breaker=breaker))
    with ScriptedServer(answer(500)) as server:
        assert session.get(server.url).status_code == 500
        with pytest.raises(CircuitOpenError) as caught:
            session.get(server.url)
        assert isinstance(caught.value, requests.ConnectionError)
        assert caught.value.request.method == "GET"
        assert caught.value.retry_after > 0
        with serving(Inbound(deadline=0)), pytest.raises(DeadlineError) as late:
            session.get(server.url)
        assert isinstance(late.value, requests.Timeout)
        assert late.value.request.method == "GET"
        assert len(server.received) == 1
    assert issubclass(RateLimitedError, requests.ConnectionError)


def test_an_outer_layer_that_retries_is_left_to_it(session: requests.Session) -> None:
    with ScriptedServer(answer(503)) as server, serving(Inbound(attempt=1)):
        assert session.get(server.url).status_code == 503
        assert len(server.received) == 1


def test_a_file_is_sent_again_from_where_it_was(session: requests.Session) -> None:
    file = io.BytesIO(b"skipped, sent")
    file.seek(9)
    with ScriptedServer(answer(503), answer()) as server:
        assert session.post(server.url, data=file).status_code == 200
    assert [received.body for received in server.received] == [b"sent", b"sent"]


def test_a_generator_is_sent_once(session: requests.Session) -> None:
    with ScriptedServer(answer(503), answer()) as server:
        assert session.post(server.url, data=iter([b"one", b"two"])).status_code == 503
    assert [received.body for received in server.received] == [b"onetwo"]


@pytest.mark.parametrize("timeout", [0.05, (5, 0.05), Timeout(0.05), Timeout(connect=5, read=0.05)])
def test_no_time_out_is_longer_than_the_callers(session: requests.Session, timeout: Any) -> None:
    with ScriptedServer(silent) as server, pytest.raises(requests.ReadTimeout):
        session.get(server.url, timeout=timeout)
    assert len(server.received) == 3


@pytest.mark.parametrize(
    ("field", "script"),
    [
        ("first_byte_timeout", silent),
        ("attempt_timeout", silent),
        ("idle_timeout", chunked(b"one", kind="application/json", end=silent)),
        ("attempt_timeout", chunked(kind="application/json", end=trickle(b"1\r\nx\r\n"))),
    ],
    ids=["first byte", "attempt", "idle", "trickling body"],
)
def test_each_time_out_ends_an_attempt_which_is_then_repeated(
    make_session: Make, clock: ManualClock, field: str, script: Any
) -> None:
    session = make_session(policy=quick(clock, **{field: 0.2}))
    with ScriptedServer(script, document([1])) as server:
        assert session.post(server.url).json() == [1]
    assert len(server.received) == 2


def test_a_stream_comes_as_it_comes(session: requests.Session) -> None:
    with ScriptedServer(answer(503), chunked(b"a\n", b"b\n")) as server:
        response = session.get(server.url, stream=True)
        assert snapshot(session, server).calls_alive == 1
        assert list(response.iter_lines()) == [b"a", b"b"]
    seen = snapshot(session, server)
    assert (seen.succeeded, seen.attempts, seen.calls_alive) == (1, 2, 0)


@pytest.mark.parametrize(
    "end", [reset(), raw(b""), raw(b"not a chunk\r\n")], ids=["reset", "closed", "malformed"]
)
def test_nothing_is_repeated_after_the_first_byte(session: requests.Session, end: Any) -> None:
    parts: list[bytes] = []
    with ScriptedServer(chunked(b"one", end=end), chunked(b"one", b"two")) as server:
        response = session.post(server.url, stream=True)
        with pytest.raises(requests.RequestException):
            parts.extend(response.iter_content(None))
        assert len(server.received) == 1
    seen = snapshot(session, server)
    assert (seen.failed, seen.succeeded, seen.calls_alive) == (1, 0, 0)


def test_a_document_that_breaks_is_asked_for_again(session: requests.Session) -> None:
    broken = raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{")
    with ScriptedServer(broken, chunked(b"{", kind="application/json", end=reset()), document([1])) as server:
        assert session.post(server.url).json() == [1]
        assert len(server.received) == 3


def test_who_stops_reading_is_nobodys_failure(session: requests.Session) -> None:
    with ScriptedServer(chunked(b"one", b"two")) as server:
        with session.get(server.url, stream=True) as response:
            assert next(response.iter_content(3)) == b"one"
        forgotten = session.get(server.url, stream=True)
        assert snapshot(session, server).calls_alive == 1
        forgotten.raw.read(3)
        del forgotten
        gc.collect()
    seen = snapshot(session, server)
    assert (seen.abandoned, seen.failed, seen.calls_alive) == (2, 0, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_are_settled_by_the_usage(make_session: Make, clock: ManualClock, stream: bool) -> None:
    requests_left, tokens = RateLimiter(100, 0, clock=clock), RateLimiter(10_000, 0, clock=clock)
    session = make_session(policy=quick(clock, limiters=[requests_left, tokens]), costs=chat_costs)
    usage = b'{"usage":{"input_tokens":3,"output_tokens":4}}'
    script = chunked(b"data: " + usage + b"\n\n") if stream else answer(200, usage, "application/json")
    with ScriptedServer(script) as server:
        assert session.post(server.url, json={"max_tokens": 1000}).ok
    assert (requests_left.available, tokens.available) == (99, 10_000 - 7)


def test_redirects_are_calls_of_their_own(session: requests.Session) -> None:
    with ScriptedServer(answer(302, location="/there"), answer(503), answer(200, b"there")) as server:
        assert session.get(server.url).content == b"there"
    assert [received.path for received in server.received] == ["/", "/there", "/there"]


def test_an_unknown_certificate_is_not_tried_again(
    session: requests.Session, clock: ManualClock, certificate: tuple[Path, Path]
) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate[1], certificate[0])
    with ScriptedServer(reset(), answer(), tls=context) as server:
        with pytest.raises(requests.exceptions.SSLError):
            session.get(server.url)
        assert clock.slept == []
        assert session.post(server.url, verify=str(certificate[1])).status_code == 200


def test_the_total_ends_the_retries(make_session: Make) -> None:
    session = make_session(policy=lambda _: Policy(retry=Backoff(max_attempts=9), total_timeout=0.2))
    with ScriptedServer(silent) as server, pytest.raises(requests.Timeout):
        session.get(server.url)
    assert len(server.received) == 1


def test_what_it_cannot_do_it_says(make_session: Make) -> None:
    with pytest.raises(ArgumentError) as caught:
        ReliableAdapter(retry_after_first_byte=True)
    assert caught.value.field == "retry_after_first_byte"
    with pytest.raises(TypeError, match="one process"):
        pickle.dumps(ReliableAdapter())
