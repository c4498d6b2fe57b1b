# SPDX-License-Identifier: Apache-2.0
"""What a hostile or careless server does to the transports, and what is left of them in the midst."""

from __future__ import annotations

import asyncio
import gzip
import os
import time
from contextlib import suppress
from typing import Any, Callable

import httpx
import pytest

from autoglm_reliability import Backoff, Jitter, Policy, Retry
from autoglm_reliability._calling.hosts import Hosts
from autoglm_reliability.httpx import AsyncReliableTransport, Endpoint, RateLimitedError, ReliableTransport
from autoglm_reliability.testing import ManualClock
from calling import Caller, quick
from helpers import collect, in_threads
from scripted_http import ScriptedServer, answer, chunked, document, raw, reset

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

Make = Callable[..., Caller]
YEAR = 365 * 86400


def fast(_: str) -> Policy:
    backoff = Backoff(max_attempts=2, base_delay=0.0001, jitter=Jitter.NONE)
    return Policy(retry=Retry(backoff), max_calls=64)


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


# Credentials and cookies


def test_a_redirect_to_another_host_has_no_credentials(make: Make, clock: ManualClock) -> None:
    with ScriptedServer(answer()) as other:
        there = other.url.replace("127.0.0.1", "localhost")
        with ScriptedServer(answer(307, location=there)) as server:
            caller = make(
                policy=quick(clock),
                endpoints=[Endpoint(server.url, headers={"Authorization": "Bearer of the endpoint"})],
            )
            headers = {"Authorization": "Bearer secret", "Cookie": "a=b"}
            caller.request("POST", server.url, headers=headers, content=b"x", follow_redirects=True)
    assert server.received[0].headers["authorization"] == "Bearer of the endpoint"
    (received,) = other.received
    assert not {"authorization", "cookie"} & set(received.headers)


def test_cookies_of_one_endpoint_are_not_taken_for_anothers(clock: ManualClock) -> None:
    with (
        ScriptedServer(answer(503, set_cookie="first=1")) as down,
        ScriptedServer(answer(200, set_cookie="second=1")) as up,
    ):
        endpoints = [Endpoint(down.url), Endpoint(up.url.replace("127.0.0.1", "localhost"))]
        transport = ReliableTransport(policy=quick(clock, attempts=1), endpoints=endpoints)
        with httpx.Client(transport=transport) as client:
            response = client.get(down.url)
            assert (response.status_code, dict(client.cookies)) == (200, {})
            client.get(down.url)
    assert all("cookie" not in received.headers for received in (*down.received, *up.received))


def test_a_redirect_by_another_endpoint_is_followed_there(clock: ManualClock) -> None:
    with (
        ScriptedServer(answer(503)) as down,
        ScriptedServer(answer(307, location="/elsewhere"), answer(200, b"found")) as up,
    ):
        endpoints = [Endpoint(down.url), Endpoint(up.url.replace("127.0.0.1", "localhost"))]
        transport = ReliableTransport(policy=quick(clock, attempts=1), endpoints=endpoints)
        with httpx.Client(transport=transport, follow_redirects=True) as client:
            response = client.get(down.url, headers={"Authorization": "Bearer secret"})
    assert response.content == b"found"
    assert [received.path for received in up.received] == ["/", "/elsewhere"]
    assert all("authorization" not in received.headers for received in up.received)


# What a server says about time


@pytest.mark.parametrize("text", ["-5", "Thu, 01 Jan 1970 00:00:00 GMT", "soon", "1e400", "9" * 5000, ""])
def test_a_delay_that_says_nothing_is_none(caller: Caller, clock: ManualClock, text: str) -> None:
    with ScriptedServer(answer(429, retry_after=text), answer()) as server:
        assert caller.request("GET", server.url).status_code == 200
        assert caller.request("GET", server.url).status_code == 200
    assert sum(clock.slept) < 2


@pytest.mark.parametrize("text", ["1000000000", "9223372036854775807", "Fri, 31 Dec 9999 23:59:59 GMT"])
def test_a_server_that_wants_to_be_left_alone_for_ever_is_asked_again_some_time(
    caller: Caller, clock: ManualClock, text: str
) -> None:
    with ScriptedServer(answer(429, retry_after=text), answer()) as server:
        assert caller.request("GET", server.url).status_code == 429
        with pytest.raises(RateLimitedError) as caught:
            caller.request("GET", server.url)
        assert 0 < caught.value.retry_after <= 600 * 1.25
        clock.advance(600)
        assert caller.request("GET", server.url).status_code == 200
    assert len(server.received) == 2


@pytest.mark.parametrize("jump", [-10 * YEAR, 10 * YEAR])
def test_a_wall_clock_that_is_set_changes_no_wait_that_has_begun(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, jump: int
) -> None:
    """The date is read once; what is left of the wait is then counted by the clock that nobody sets."""
    wall, wall_ns, jumped = time.time, time.time_ns, 0
    monkeypatch.setattr(time, "time", lambda: wall() + jumped)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + jumped * 10**9)
    then = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(wall() + 100))
    with ScriptedServer(answer(429, retry_after=then), answer()) as server:
        assert caller.request("GET", server.url).status_code == 429
        for _ in range(2):
            jumped += jump
            with pytest.raises(RateLimitedError) as caught:
                caller.request("GET", server.url)
            assert 98 <= caught.value.retry_after <= 101 + 1
        clock.advance(101)
        assert caller.request("GET", server.url).status_code == 200
    assert len(server.received) == 2


@pytest.mark.parametrize("off", [-10 * YEAR, 10 * YEAR])
def test_a_date_is_read_by_the_servers_own_clock(
    caller: Caller, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, off: int
) -> None:
    """Of a machine whose clock is wrong."""
    wall, wall_ns = time.time, time.time_ns
    date, then = (time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(wall() + more)) for more in (0, 4))
    monkeypatch.setattr(time, "time", lambda: wall() + off)
    monkeypatch.setattr(time, "time_ns", lambda: wall_ns() + off * 10**9)
    with ScriptedServer(answer(429, retry_after=then, date=date), answer()) as server:
        assert caller.request("GET", server.url).status_code == 200
    assert 4 <= sum(clock.slept) <= 6


# What a server answers


def test_an_error_in_an_answer_of_200_is_an_answer(caller: Caller) -> None:
    with ScriptedServer(document({"error": {"code": "server_error"}})) as server:
        assert caller.request("POST", server.url).json()["error"]["code"] == "server_error"
    assert len(server.received) == 1


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "no-such", "gzip, gzip"])
def test_a_body_that_is_not_what_its_encoding_says_is_no_reason_to_fail(
    caller: Caller, encoding: str
) -> None:
    reply = answer(400, b'{"error": 1}', "application/json", content_encoding=encoding)
    with ScriptedServer(reply) as server:
        parts = caller.stream("GET", server.url)
    assert b"".join(parts) == b'{"error": 1}'
    assert len(server.received) == 1


def test_a_compressed_error_is_understood(caller: Caller) -> None:
    body = gzip.compress(b'{"error": {"code": "insufficient_quota"}}')
    with ScriptedServer(answer(429, body, "application/json", content_encoding="gzip")) as server:
        assert caller.request("POST", server.url).json()["error"]["code"] == "insufficient_quota"
    assert len(server.received) == 1


# Leaving


@pytest.mark.parametrize(
    "reply", [reset(), raw(b"HTTP/1.1 200 OK\r\n\r"), answer(500), answer(400, b"x" * 99_999)]
)
def test_a_thousand_failures_leave_nothing_open(kind: str, make: Make, reply: Any) -> None:
    caller = make(policy=fast, max_pause=0)
    with ScriptedServer(reply) as server:

        def fail(times: int) -> None:
            for _ in range(times):
                with suppress(httpx.TransportError):
                    caller.request("GET", server.url)

        fail(5)
        collect()
        before = open_files()
        fail(500)
        collect()
        # The server's ends are this process's as well, and go a little later.
        deadline = time.monotonic() + 20
        while open_files() > before + 4 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert open_files() <= before + 4
        policy = caller.transport.policy(server.url)
        assert policy.snapshot().calls == 505


def test_a_task_may_be_cancelled_at_any_await() -> None:
    """The policy has all of it back. Connections are httpx's, which loses one that is cancelled while it is
    opened or closed, as without the transport."""

    async def main() -> None:
        transport = AsyncReliableTransport(policy=fast)
        async with httpx.AsyncClient(transport=transport, timeout=30) as client:

            async def request() -> None:
                async with client.stream("POST", server.url, content=b"x") as response:
                    async for _ in response.aiter_raw():
                        pass

            policy = transport.policy(server.url)
            for turns in range(60):
                task = asyncio.ensure_future(request())
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])
                snapshot = policy.snapshot()
                ended = snapshot.succeeded + snapshot.failed + snapshot.abandoned
                assert snapshot.calls == ended, turns
            await request()

    with ScriptedServer(
        *[reply for _ in range(70) for reply in (answer(503), chunked(b"a", b"b"))]
    ) as server:
        asyncio.run(main())


def test_a_policy_that_is_closed_in_use_lets_calls_end_and_begins_none(caller: Caller) -> None:
    def close(_: bytes) -> None:
        policy.close()

    with ScriptedServer(chunked(b"a", b"b")) as server:
        policy = caller.transport.policy(server.url)
        assert b"".join(caller.stream("GET", server.url, see=close)) == b"ab"
        with pytest.raises(Exception, match="closed"):
            caller.request("GET", server.url)
    assert len(server.received) == 1


def test_threads_may_close_a_transport_that_others_use(clock: ManualClock) -> None:
    with ScriptedServer(document({})) as server:
        transport = ReliableTransport(policy=fast)

        def work(index: int) -> list[str]:
            seen: list[str] = []
            client = httpx.Client(transport=transport)
            for number in range(30):
                if index == 0 and number == 15:
                    transport.close()
                try:
                    seen.append(str(client.get(server.url).status_code))
                except Exception as error:
                    seen.append(str(error))
            return seen

        seen = {one for some in in_threads(4, work) for one in some}
        transport.close()  # what was just being opened httpx opens all the same
    assert "200" in seen
    assert "the transport is closed" in seen


def test_an_origin_that_makes_room_is_found_by_nobody_once_its_policy_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hosts = Hosts(None, 1)
    found = []
    close = Policy.close

    def look(policy: Policy) -> None:
        close(policy)
        found.append(hosts.latest)

    monkeypatch.setattr(Policy, "close", look)
    hosts.find("http://one")
    hosts.find("http://two")
    assert found == [None]
    hosts.close()
