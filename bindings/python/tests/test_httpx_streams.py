# SPDX-License-Identifier: Apache-2.0
"""The transports for httpx: bodies that are passed on as they come, and what becomes of them."""

from __future__ import annotations

import gc
import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Callable

import httpx
import pytest

from autoglm_reliability import Policy, RateLimiter
from autoglm_reliability.httpx import chat_costs
from autoglm_reliability.testing import ManualClock
from calling import Caller, quick
from scripted_http import ScriptedServer, answer, chunked, document, raw, reset, silent

Make = Callable[..., Caller]


def snapshot(caller: Caller, server: ScriptedServer) -> Any:
    return caller.transport.policy(server.url).snapshot()


def test_a_stream_is_one_call_from_its_first_byte_to_its_last(caller: Caller) -> None:
    with ScriptedServer(answer(503), chunked(b"one", b"two", b"three")) as server:
        parts = caller.stream("POST", server.url)
    assert b"".join(parts) == b"onetwothree"
    seen = snapshot(caller, server)
    assert (seen.calls, seen.attempts, seen.succeeded, seen.calls_alive) == (1, 2, 1, 0)


@pytest.mark.parametrize(
    "end", [reset(), raw(b""), raw(b"not a chunk\r\n")], ids=["reset", "closed", "malformed"]
)
def test_nothing_is_repeated_after_the_first_byte(caller: Caller, end: Any) -> None:
    with ScriptedServer(chunked(b"one", end=end), chunked(b"one", b"two")) as server:
        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)) as caught:
            caller.stream("POST", server.url)
        assert caught.value.parts == b"one"  # type: ignore[attr-defined]
        assert len(server.received) == 1
    seen = snapshot(caller, server)
    assert (seen.failed, seen.succeeded, seen.calls_alive) == (1, 0, 0)


def test_a_stream_that_falls_silent_is_a_time_out(make: Make, clock: ManualClock) -> None:
    # The server would close the connection in the end, which is another error.
    forever = {"first_byte_timeout": math.inf, "total_timeout": math.inf}
    caller = make(policy=quick(clock, idle_timeout=0.2, **forever))
    with ScriptedServer(chunked(b"one", end=silent)) as server, pytest.raises(httpx.ReadTimeout) as caught:
        caller.stream("GET", server.url, timeout=None)
    assert caught.value.parts == b"one"  # type: ignore[attr-defined]


def test_a_break_counts_for_the_breaker(make: Make, clock: ManualClock) -> None:
    from autoglm_reliability import CircuitBreaker

    breaker = CircuitBreaker(consecutive_failures=2, clock=clock)
    caller = make(policy=quick(clock, breaker=breaker))
    with ScriptedServer(chunked(b"one", end=reset())) as server:
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                caller.stream("GET", server.url)
        with pytest.raises(httpx.TransportError, match="breaker"):
            caller.stream("GET", server.url)
        assert len(server.received) == 2


def test_a_stream_that_comes_again_is_gone_on_with_when_asked(make: Make, clock: ManualClock) -> None:
    caller = make(policy=quick(clock), retry_after_first_byte=True)
    script = [
        chunked(b"one", end=reset()),
        chunked(b"on", b"e", b"two", end=reset()),
        chunked(b"onetw", b"othree"),
    ]
    with ScriptedServer(*script) as server:
        assert b"".join(caller.stream("POST", server.url)) == b"onetwothree"
        assert len({received.headers["idempotency-key"] for received in server.received}) == 1
    seen = snapshot(caller, server)
    assert (seen.attempts, seen.succeeded, seen.calls_alive) == (3, 1, 0)


@pytest.mark.parametrize(
    "second",
    [chunked(b"other", b"two"), chunked(b"on"), answer(400), reset()],
    ids=["other", "shorter", "400", "reset"],
)
def test_another_stream_is_not_taken_for_the_same(make: Make, clock: ManualClock, second: Any) -> None:
    caller = make(policy=quick(clock), retry_after_first_byte=True)
    with ScriptedServer(chunked(b"one", end=reset()), second) as server:
        with pytest.raises(httpx.ReadError) as caught:
            caller.stream("POST", server.url)
        assert caught.value.parts == b"one"  # type: ignore[attr-defined]
        assert len(server.received) >= 2
    assert snapshot(caller, server).calls_alive == 0


def test_a_document_is_passed_on_whole_or_asked_for_again(caller: Caller) -> None:
    broken = [
        chunked(b'{"a":', kind="application/json", end=reset()),
        raw(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"),
    ]
    with ScriptedServer(*broken, document({"a": 1})) as server:
        assert caller.request("POST", server.url).json() == {"a": 1}
        assert len(server.received) == 3


def test_a_document_that_is_too_long_is_passed_on_as_it_comes(make: Make, clock: ManualClock) -> None:
    caller = make(policy=quick(clock), hold_json=1000)
    parts = [b"x" * 600] * 4
    with ScriptedServer(chunked(*parts, kind="application/json"), chunked(*parts, end=reset())) as server:
        assert caller.request("GET", server.url).content == b"".join(parts)
        with pytest.raises(httpx.ReadError):
            caller.request("GET", server.url)
        assert len(server.received) == 2


def test_who_stops_reading_is_nobodys_failure(caller: Caller) -> None:
    with ScriptedServer(chunked(b"one", b"two", end=reset())) as server:
        assert caller.stream("GET", server.url, take=1) == [b"one"]
    seen = snapshot(caller, server)
    assert (seen.abandoned, seen.failed, seen.succeeded, seen.calls_alive) == (1, 0, 0, 0)


def test_what_is_read_to_its_end_gives_its_connection_back(caller: Caller) -> None:
    with ScriptedServer(answer(503, b"x" * 10), chunked(b"one"), answer(), document([])) as server:
        caller.stream("GET", server.url)
        caller.request("GET", server.url)
        caller.request("GET", server.url)
        assert server.connections == 1


def test_a_response_that_is_forgotten_gives_back_its_call_and_its_connection(clock: ManualClock) -> None:
    caller = Caller(
        "sync", policy=quick(clock), transport=httpx.HTTPTransport(limits=httpx.Limits(max_connections=1))
    )
    client = httpx.Client(transport=caller.transport, timeout=httpx.Timeout(10, pool=0.1))
    with ScriptedServer(chunked(b"one", b"two")) as server:
        response = client.send(client.build_request("GET", server.url), stream=True)
        assert snapshot(caller, server).calls_alive == 1
        del response
        gc.collect()
        assert snapshot(caller, server).calls_alive == 0
        assert client.get(server.url).content == b"onetwo"
    client.close()


def test_a_response_that_is_forgotten_gives_back_its_call(clock: ManualClock) -> None:
    caller = Caller("async", policy=quick(clock))

    async def forget() -> None:
        client = httpx.AsyncClient(transport=caller.transport)
        await client.send(client.build_request("GET", server.url), stream=True)

    with ScriptedServer(chunked(b"one", b"two")) as server:
        caller.run(forget)
        gc.collect()
        assert snapshot(caller, server).calls_alive == 0
        caller.close()


def test_a_cancelled_task_leaves_nothing_behind(clock: ManualClock) -> None:
    import anyio

    caller = Caller("async", policy=quick(clock))

    async def work() -> None:
        client = httpx.AsyncClient(transport=caller.transport)

        async def call(started: anyio.Event) -> None:
            started.set()
            await client.get(server.url)

        async with anyio.create_task_group() as group:
            started = anyio.Event()
            group.start_soon(call, started)
            await started.wait()
            while not server.received:
                await anyio.sleep(0.001)
            group.cancel_scope.cancel()

    with ScriptedServer(silent) as server:
        caller.run(work)
        seen = snapshot(caller, server)
        caller.close()
    assert (seen.abandoned, seen.calls_alive) == (1, 0)


SERVER = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
while True:
    connection, _ = listener.accept()
    connection.recv(65536)
    connection.sendall(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n"
                       b"transfer-encoding: chunked\\r\\n\\r\\n9\\r\\ndata: 1\\n\\n\\r\\n")
    connection.recv(1)
"""


def test_a_server_that_is_killed_in_the_midst_of_a_stream(
    make: Make, clock: ManualClock, tmp_path: Path
) -> None:
    caller = make(policy=quick(clock, attempts=1))
    program = tmp_path / "server.py"
    program.write_text(SERVER)
    with subprocess.Popen([sys.executable, str(program)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        url = f"http://127.0.0.1:{int(child.stdout.readline())}/"
        parts: list[bytes] = []

        def see(part: bytes) -> None:
            parts.append(part)
            child.send_signal(signal.SIGKILL)

        with pytest.raises((httpx.ReadError, httpx.RemoteProtocolError)):
            caller.stream("GET", url, see=see)
    assert b"".join(parts) == b"data: 1\n\n"
    with pytest.raises(httpx.ConnectError):
        caller.request("GET", url)
    assert caller.transport.policy(url).snapshot().calls_alive == 0


def charged(clock: ManualClock) -> tuple[Callable[[str], Policy], RateLimiter, RateLimiter]:
    requests = RateLimiter(100, 0, clock=clock)
    tokens = RateLimiter(10_000, 0, clock=clock)
    return quick(clock, limiters=[requests, tokens]), requests, tokens


USAGE = b'{"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}'


@pytest.mark.parametrize(
    "script",
    [
        answer(200, USAGE, "application/json"),
        chunked(b'data: {"choices":[]}\n\n', b"data: " + USAGE + b"\n\n", b"data: [DONE]\n\n"),
        chunked(b'data: {"type":"end","response":', USAGE, b"}\n\n"),
    ],
    ids=["document", "stream", "stream of responses"],
)
def test_tokens_are_charged_by_an_estimate_and_settled_by_the_usage(
    make: Make, clock: ManualClock, script: Any
) -> None:
    policy, requests, tokens = charged(clock)
    caller = make(policy=policy, costs=chat_costs)
    during: list[int] = []
    with ScriptedServer(script) as server:
        caller.stream(
            "POST", server.url, json={"max_tokens": 1000}, see=lambda _: during.append(tokens.available)
        )
    assert requests.available == 99
    assert tokens.available == 10_000 - 7
    assert "stream" not in str(script) or during[0] < 9_000


def test_without_a_usage_the_estimate_stays(make: Make, clock: ManualClock) -> None:
    policy, _, tokens = charged(clock)
    caller = make(policy=policy, costs=chat_costs)
    with ScriptedServer(answer()) as server:
        caller.request("POST", server.url, content=b'{"max_tokens":1000}')
    assert tokens.available == 10_000 - 1000 - 4
