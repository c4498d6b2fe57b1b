# SPDX-License-Identifier: Apache-2.0
"""What the transports for httpx add to a call: a POST of a short document on a connection that is kept alive,
by bare httpx and through a transport with its default policy, in turns, against a server in another process.

    PYTHONPATH=bindings/python/src AUTOGLM_RELIABILITY_LIB=build/libautoglm_reliability.so \\
      .venv/bin/python benchmarks/transport.py
"""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable
from statistics import median
from typing import Callable

import httpx

from autoglm_reliability.httpx import AsyncReliableTransport, ReliableTransport

ROUNDS, CALLS = 40, 100
BODY = {"model": "m", "messages": [{"role": "user", "content": "hello"}]}
REPLY = b'{"choices":[]}'
ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY) + REPLY
)


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


def report(kind: str, bare: list[float], guarded: list[float]) -> None:
    added = median(two - one for one, two in zip(bare, guarded))
    print(f"{kind:5}  bare {median(bare):5.0f} us  guarded {median(guarded):5.0f} us  added {added:4.0f} us")


def blocking(url: str) -> None:
    def once(client: httpx.Client) -> float:
        start = time.perf_counter()
        for _ in range(CALLS):
            client.post(url, json=BODY)
        return (time.perf_counter() - start) / CALLS * 1e6

    with httpx.Client() as bare, httpx.Client(transport=ReliableTransport()) as guarded:
        pairs = [(once(bare), once(guarded)) for _ in range(ROUNDS)][1:]
    report("sync", [one for one, _ in pairs], [two for _, two in pairs])


async def suspending(url: str) -> None:
    async def once(client: httpx.AsyncClient) -> float:
        post: Callable[..., Awaitable[httpx.Response]] = client.post
        start = time.perf_counter()
        for _ in range(CALLS):
            await post(url, json=BODY)
        return (time.perf_counter() - start) / CALLS * 1e6

    async with httpx.AsyncClient() as bare, httpx.AsyncClient(transport=AsyncReliableTransport()) as guarded:
        pairs = [(await once(bare), await once(guarded)) for _ in range(ROUNDS)][1:]
    report("async", [one for one, _ in pairs], [two for _, two in pairs])


def main() -> None:
    command = [sys.executable, __file__, "serve"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        url = f"http://127.0.0.1:{int(child.stdout.readline())}/v1/chat/completions"
        blocking(url)
        asyncio.run(suspending(url))
        child.stdin.close()


if __name__ == "__main__":
    serve() if sys.argv[1:] == ["serve"] else main()
