# SPDX-License-Identifier: Apache-2.0
"""What is settled about a request before its first attempt."""

from __future__ import annotations

import os
from typing import Optional

import httpx

from .._calling.exchange import IDEMPOTENT, KEYED, Exchange, least
from .._calling.options import Options
from ._headers import has, put


def origin_of(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def is_whole(request: httpx.Request) -> bool:
    """Whether the body is in memory, and can be sent as often as one likes."""
    return isinstance(request.stream, httpx.ByteStream)


def give_key(request: httpx.Request, options: Options) -> bool:
    """Whether the request may be repeated though it may have been executed; a key makes it so."""
    if request.method in IDEMPOTENT:
        return True
    name = options.idempotency_header
    if not name or has(request.headers, name):
        return bool(name)
    if request.method not in KEYED:
        return False
    put(request.headers, ((name, os.urandom(16).hex()),))
    return True


def buffered_length(request: httpx.Request, options: Options) -> int:
    """The length of a body that can be sent only once, if it is to be kept for repetition; else 0."""
    if is_whole(request):
        return 0
    length = request.headers.get("content-length", "")
    # More digits than that are no length.
    count = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
    return count if count <= options.buffer_body else 0


class Sending:
    """The attempts of one request: headers and time-outs are the attempt's, until restore()."""

    def __init__(self, request: httpx.Request) -> None:
        self.request = request
        self._extensions = request.extensions
        self._asked: dict[str, Optional[float]] = request.extensions.get("timeout") or {}

    def prepare(self, exchange: Exchange) -> dict[str, Optional[float]]:
        """Before an attempt: its time-outs, which httpx goes on to look at."""
        asked, total = self._asked.get, exchange.attempt_ns / 1e9
        timeouts = {
            "connect": least(asked("connect"), min(exchange.connect_ns / 1e9, total)),
            "read": least(asked("read"), min(exchange.first_byte_ns / 1e9, total)),
            "write": least(asked("write"), total),
            "pool": least(asked("pool"), total),
        }
        self.request.extensions = {**self._extensions, "timeout": timeouts}
        if exchange.options.propagate:
            put(self.request.headers, exchange.headers())
        return timeouts

    def prepare_body(self, exchange: Exchange, timeouts: dict[str, Optional[float]]) -> None:
        """Once the headers are there: from here on the time-out is for what lies between two reads."""
        timeouts["read"] = least(self._asked.get("read"), exchange.idle_ns / 1e9)

    def restore(self) -> None:
        self.request.extensions = self._extensions
