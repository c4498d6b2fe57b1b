# SPDX-License-Identifier: Apache-2.0
"""uvicorn in a thread, on a free port, and clients that see each byte."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterable
from typing import Any

import uvicorn

from helpers import eventually

HOST = "127.0.0.1"


class AsgiServer:
    def __init__(self, app: Any, **options: Any) -> None:
        options = {"log_level": "critical", "ws": "none", "http": "httptools", "loop": "asyncio", **options}
        config = uvicorn.Config(app, host=HOST, port=0, **options)
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        eventually(lambda: self._server.started or not self._thread.is_alive(), "uvicorn does not start")
        assert self._thread.is_alive(), "uvicorn does not start"
        self.port: int = self._server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://{HOST}:{self.port}"

    def _run(self) -> None:
        async def serve() -> None:
            self.loop = asyncio.get_running_loop()
            await self._server.serve()

        asyncio.run(serve())

    def __enter__(self) -> AsgiServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._server.force_exit = False
        self._thread.join(30)
        assert not self._thread.is_alive(), "uvicorn does not stop"


class Steps:
    """What an application waits for, and a test allows, once for each."""

    def __init__(self) -> None:
        self._allowed = 0
        self._waiters: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []
        self._lock = threading.Lock()

    def allow(self, count: int = 1) -> None:
        with self._lock:
            self._allowed += count
            waiters, self._waiters = self._waiters, []
        for loop, event in waiters:
            loop.call_soon_threadsafe(event.set)

    async def step(self) -> None:
        while True:
            with self._lock:
                if self._allowed:
                    self._allowed -= 1
                    return
                event = asyncio.Event()
                self._waiters.append((asyncio.get_running_loop(), event))
            await event.wait()

    @property
    def waiting(self) -> int:
        return len(self._waiters)


Headers = Iterable[tuple[str, str]]


def request_bytes(method: str, path: str, headers: Headers = (), body: bytes = b"") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: test", "connection: close"]
    lines += [f"{name}: {value}" for name, value in headers]
    if body:
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body


class Raw:
    """A connection on which a test sends and sees exactly what it likes."""

    def __init__(self, port: int, data: bytes = b"") -> None:
        self._socket = socket.create_connection((HOST, port), 30)
        self.send(data)
        self.got = b""

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def until(self, what: bytes, times: int = 1) -> bytes:
        while self.got.count(what) < times:
            part = self._socket.recv(65536)
            assert part, f"closed after {self.got!r}"
            self.got += part
        return self.got

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        while part := self._socket.recv(65536):
            self.got += part
        return self.got

    def close(self) -> None:
        self._socket.close()


def exchange(port: int, method: str, path: str, headers: Headers = (), body: bytes = b"") -> bytes:
    """The response, byte by byte, on a connection of its own."""
    raw = Raw(port, request_bytes(method, path, headers, body))
    try:
        return raw.rest()
    finally:
        raw.close()


def status_of(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def without(response: bytes, *names: bytes) -> bytes:
    """The response without the header lines of these names."""
    head, body = response.split(b"\r\n\r\n", 1)
    lines = [line for line in head.split(b"\r\n") if line.split(b":")[0].lower() not in names]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def body_of(response: bytes) -> bytes:
    """The body, with its chunks put together; an answer that breaks off fails the test."""
    head, body = response.split(b"\r\n\r\n", 1)
    if b"transfer-encoding: chunked" not in head.lower():
        return body
    parts = []
    while True:
        size, body = body.split(b"\r\n", 1)
        length = int(size, 16)
        if length == 0:
            assert body == b"\r\n", body
            return b"".join(parts)
        parts.append(body[:length])
        body = body[length + 2 :]


def is_whole(response: bytes) -> bool:
    return response.endswith(b"0\r\n\r\n")
