# SPDX-License-Identifier: Apache-2.0
"""A limit for all that a thread reads and writes for an attempt. httpx's time-outs are for one read: a server
that sends a byte now and then is never late by them."""

from __future__ import annotations

import math
import ssl
import threading
import time
from collections.abc import Coroutine, Iterable
from typing import Any, Optional, TypeVar

import httpcore
import httpx

T = TypeVar("T")
LATE = "the time for the whole of the attempt is over"


class _Limit(threading.local):
    at = math.inf


_limit = _Limit()


async def within(limit: float, work: Coroutine[Any, Any, T]) -> T:
    """What the work, which never suspends, does with the streams of a LimitedBackend ends when
    time.monotonic() reaches the limit."""
    before, _limit.at = _limit.at, limit
    try:
        done = await work
    finally:
        _limit.at = before
    if time.monotonic() > limit:
        raise httpx.ReadTimeout(LATE)
    return done


def _cut(timeout: Optional[float], late: type[Exception]) -> Optional[float]:
    if _limit.at == math.inf:
        return timeout
    left = _limit.at - time.monotonic()
    if left <= 0:
        raise late(LATE)
    return left if timeout is None else min(timeout, left)


class LimitedStream(httpcore.NetworkStream):
    def __init__(self, stream: httpcore.NetworkStream) -> None:
        self._stream = stream

    def read(self, max_bytes: int, timeout: Optional[float] = None) -> bytes:
        return self._stream.read(max_bytes, _cut(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: Optional[float] = None) -> None:
        self._stream.write(buffer, _cut(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: Optional[str] = None,
        timeout: Optional[float] = None,
    ) -> httpcore.NetworkStream:
        timeout = _cut(timeout, httpcore.ConnectTimeout)
        return LimitedStream(self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class LimitedBackend(httpcore.NetworkBackend):
    def __init__(self, backend: httpcore.NetworkBackend) -> None:
        self._backend = backend

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: Optional[float] = None,
        local_address: Optional[str] = None,
        socket_options: Optional[Iterable[httpcore.SOCKET_OPTION]] = None,
    ) -> httpcore.NetworkStream:
        timeout = _cut(timeout, httpcore.ConnectTimeout)
        stream = self._backend.connect_tcp(host, port, timeout, local_address, socket_options)
        return LimitedStream(stream)

    def connect_unix_socket(
        self,
        path: str,
        timeout: Optional[float] = None,
        socket_options: Optional[Iterable[httpcore.SOCKET_OPTION]] = None,
    ) -> httpcore.NetworkStream:
        timeout = _cut(timeout, httpcore.ConnectTimeout)
        return LimitedStream(self._backend.connect_unix_socket(path, timeout, socket_options))

    def sleep(self, seconds: float) -> None:
        self._backend.sleep(seconds)


def limit_reads(transport: httpx.BaseTransport) -> None:
    """Has httpx's own transport connect by a LimitedBackend. Any other keeps its time-outs for one read, and
    the limit is looked at after each."""
    pool = getattr(transport, "_pool", None)
    backend = getattr(pool, "_network_backend", None)
    if isinstance(pool, httpcore.ConnectionPool) and isinstance(backend, httpcore.NetworkBackend):
        pool._network_backend = LimitedBackend(backend)
