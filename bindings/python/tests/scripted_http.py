# SPDX-License-Identifier: Apache-2.0
"""A server on a real socket which does what its script says, down to the byte."""

from __future__ import annotations

import json
import socket
import ssl
import struct
import threading
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Callable, Optional

PATIENCE = 30.0


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


#: Answers a request; whether the connection stays.
Reply = Callable[[socket.socket, Received], bool]


class ScriptedServer:
    """Replies in the order given, the last one for ever. `received` has the requests."""

    def __init__(self, *replies: Reply, tls: Optional[ssl.SSLContext] = None) -> None:
        self.replies = list(replies)
        self.received: list[Received] = []
        self.connections = 0
        self._tls = tls
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        scheme = "http" if tls is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()

    def __enter__(self) -> ScriptedServer:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)
        self._thread.join(PATIENCE)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, plain: socket.socket) -> None:
        connection = plain
        try:
            plain.settimeout(PATIENCE)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is not None:
                connection = self._tls.wrap_socket(plain, server_side=True)
            while True:
                request = receive(connection)
                if request is None or not self._next(request)(connection, request):
                    return
        except OSError:
            return
        finally:
            with self._lock:
                self._open.discard(plain)
            with suppress(OSError):
                connection.close()

    def _next(self, request: Received) -> Reply:
        with self._lock:
            self.received.append(request)
            return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def receive(connection: socket.socket) -> Optional[Received]:
    data = b""
    while b"\r\n\r\n" not in data:
        part = connection.recv(65536)
        if not part:
            return None
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _chunks(connection, body)
    while len(body) < int(headers.get("content-length", 0)):
        part = connection.recv(65536)
        if not part:
            return None
        body += part
    return Received(method, path, headers, body)


def _chunks(connection: socket.socket, data: bytes) -> bytes:
    while not data.endswith(b"0\r\n\r\n"):
        data += connection.recv(65536)
    body = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        body, data = body + data[: int(size, 16)], data[int(size, 16) + 2 :]
    return body


def head(status: int, headers: Sequence[tuple[str, str]]) -> bytes:
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


def answer(status: int = 200, body: bytes = b"hello", kind: str = "text/plain", **headers: str) -> Reply:
    """A whole answer. headers: an underscore in a name stands for a hyphen."""
    lines = [("content-type", kind), ("content-length", str(len(body)))]
    lines += [(name.replace("_", "-"), value) for name, value in headers.items()]

    def reply(connection: socket.socket, _: Received) -> bool:
        connection.sendall(head(status, lines) + body)
        return True

    return reply


def document(value: object, status: int = 200, **headers: str) -> Reply:
    return answer(status, json.dumps(value).encode(), "application/json", **headers)


def raw(data: bytes) -> Reply:
    """Exactly these bytes, then the connection is closed."""

    def reply(connection: socket.socket, _: Received) -> bool:
        connection.sendall(data)
        return False

    return reply


def reset(data: bytes = b"") -> Reply:
    """These bytes, then the connection is reset."""

    def reply(connection: socket.socket, _: Received) -> bool:
        connection.sendall(data)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        return False

    return reply


def chunked(*parts: bytes, kind: str = "text/event-stream", end: Optional[Reply] = None) -> Reply:
    """A body in chunks; `end` does something else than to end it."""

    def reply(connection: socket.socket, request: Received) -> bool:
        connection.sendall(head(200, [("content-type", kind), ("transfer-encoding", "chunked")]))
        for part in parts:
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        if end is not None:
            return end(connection, request)
        connection.sendall(b"0\r\n\r\n")
        return True

    return reply


def silent(connection: socket.socket, _: Received) -> bool:
    """Says nothing until the client goes away."""
    with suppress(OSError):
        connection.recv(1)
    return False


def trickle(data: bytes) -> Reply:
    """These bytes again and again, one every hundredth of a second, until the client goes away."""

    def reply(connection: socket.socket, _: Received) -> bool:
        connection.settimeout(0.01)
        while True:
            connection.sendall(data)
            with suppress(socket.timeout):
                if connection.recv(1) == b"":
                    return False

    return reply
