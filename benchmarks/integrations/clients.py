# SPDX-License-Identifier: Apache-2.0
"""Calls by httpx, bare, through our transport with its default policy, and wrapped by tenacity: a POST of a
short document on a connection that is kept alive, to a server in another process that does next to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Iterator
from typing import Any, Callable

import httpx
import tenacity

from autoglm_reliability.httpx import AsyncReliableTransport, ReliableTransport

BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
REPLY = b'{"choices":[]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY) + REPLY
)
KINDS = ("bare", "ours", "quiet", "tenacity")
# No headers of its own: a POST is then not repeated unless nothing of it was sent.
QUIET: dict[str, Any] = {"idempotency_header": "", "propagate": False}
RETRY: dict[str, Any] = {
    "stop": tenacity.stop_after_attempt(3),
    "wait": tenacity.wait_random_exponential(0.5, 8),
    "retry": tenacity.retry_if_exception_type(httpx.TransportError),
    "reraise": True,
}
Round = dict[str, float]


def serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(
        target=lambda: (sys.stdin.read(), listener.shutdown(socket.SHUT_RDWR)), daemon=True
    ).start()
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def answer(connection: socket.socket) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = b""
    while True:
        part = connection.recv(65536)
        if not part:
            return
        data += part
        # Every request of this benchmark ends with its document.
        if data.endswith(b"}]}"):
            connection.sendall(ANSWER)
            data = b""


@contextlib.contextmanager
def server() -> Iterator[str]:
    command = [sys.executable, __file__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        yield f"http://127.0.0.1:{int(child.stdout.readline())}/v1/chat/completions"
        child.stdin.close()


def in_turn(turn: int) -> list[str]:
    """Another goes first each time."""
    first = turn % len(KINDS)
    return [*KINDS[first:], *KINDS[:first]]


def blocking(url: str, rounds: int, calls: int) -> list[Round]:
    """Microseconds a call, round by round; the first one only warms up."""
    quietly = httpx.Client(transport=ReliableTransport(**QUIET))
    with httpx.Client() as client, httpx.Client(transport=ReliableTransport()) as guarded, quietly as quiet:
        retried = tenacity.retry(**RETRY)(client.post)
        posts: dict[str, Callable[..., httpx.Response]] = {
            "bare": client.post, "ours": guarded.post, "quiet": quiet.post, "tenacity": retried
        }  # fmt: skip

        def once(kind: str) -> float:
            post = posts[kind]
            start = time.perf_counter()
            for _ in range(calls):
                post(url, json=BODY)
            return (time.perf_counter() - start) / calls * 1e6

        return [{kind: once(kind) for kind in in_turn(turn)} for turn in range(rounds + 1)][1:]


async def suspending(url: str, rounds: int, calls: int) -> list[Round]:
    guarding = httpx.AsyncClient(transport=AsyncReliableTransport())
    quietly = httpx.AsyncClient(transport=AsyncReliableTransport(**QUIET))
    async with httpx.AsyncClient() as client, guarding as guarded, quietly as quiet:
        retried = tenacity.retry(**RETRY)(client.post)
        posts: dict[str, Callable[..., Awaitable[httpx.Response]]] = {
            "bare": client.post, "ours": guarded.post, "quiet": quiet.post, "tenacity": retried
        }  # fmt: skip

        async def once(kind: str) -> float:
            post = posts[kind]
            start = time.perf_counter()
            for _ in range(calls):
                await post(url, json=BODY)
            return (time.perf_counter() - start) / calls * 1e6

        return [{kind: await once(kind) for kind in in_turn(turn)} for turn in range(rounds + 1)][1:]


def measured(rounds: int, calls: int) -> dict[str, list[Round]]:
    with server() as url:
        return {
            "sync": blocking(url, rounds, calls),
            "async": asyncio.run(suspending(url, rounds, calls)),
        }


if __name__ == "__main__":
    serve()
