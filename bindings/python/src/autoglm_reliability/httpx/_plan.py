# SPDX-License-Identifier: Apache-2.0
"""What is settled about a request before its first attempt."""

from __future__ import annotations

import os
from typing import Any, Optional

import httpx

from .._calling.exchange import IDEMPOTENT, KEYED, LONGEST, Exchange, least
from .._calling.hosts import Host, Hosts
from .._calling.options import Options
from ..propagation import ATTEMPT_HEADER, TIMEOUT_HEADER
from ._headers import Name, take_back, tell

_PARTS = ("scheme", "host", "port")
_KNOWN_URL = getattr(httpx.URL("http://a:1"), "_uri_reference", None)
_PARTS_ARE_KNOWN = [getattr(_KNOWN_URL, part, None) for part in _PARTS] == ["http", "a", 1]
_OF_AN_ATTEMPT = (ATTEMPT_HEADER.encode(), TIMEOUT_HEADER.encode())


def origin_of(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


class Places:
    """Which host a URL is of; where httpx keeps the parts of one as it does now, without putting the origin
    together when it is the last one's."""

    def __init__(self, hosts: Hosts) -> None:
        self._hosts = hosts
        self._last: tuple[Any, Optional[Host]] = (None, None)

    def find(self, url: httpx.URL) -> Host:
        if not _PARTS_ARE_KNOWN:
            return self._hosts.find(origin_of(url))
        parts = url._uri_reference
        place = (parts.scheme, parts.host, parts.port)
        last, host = self._last
        if place != last or host is not self._hosts.latest or host is None:
            host = self._hosts.find(origin_of(url))
            self._last = (place, host)
        return host


def is_whole(request: httpx.Request) -> bool:
    """Whether the body is in memory, and can be sent as often as one likes."""
    return isinstance(request.stream, httpx.ByteStream)


def give_key(request: httpx.Request, name: Optional[Name]) -> bool:
    """Whether the request may be repeated though it may have been executed; a key makes it so."""
    method = request.method
    if method in IDEMPOTENT:
        return True
    if name is None:
        return False
    if name.is_in(request.headers):
        return True
    if method not in KEYED:
        return False
    name.add_to(request.headers, os.urandom(16).hex())
    return True


def buffered_length(request: httpx.Request, options: Options) -> int:
    """The length of a body that can be sent only once, if it is to be kept for repetition; else 0."""
    length = request.headers.get("content-length", "")
    # More digits than that are no length.
    count = int(length) if length.isascii() and length.isdigit() and len(length) < 20 else 0
    return count if count <= options.buffer_body else 0


class Sending:
    """The attempts of one request: its time-outs, and the headers that tell of it, are the attempt's, until
    restore(); the key stays, for whatever is made of the request next is the same request."""

    def __init__(self, inner: Any, request: httpx.Request) -> None:
        self._inner = inner
        self.request = request
        self._extensions = request.extensions
        self._asked: dict[str, Optional[float]] = request.extensions.get("timeout") or {}
        self._told = False

    def prepare(self, exchange: Exchange) -> dict[str, Optional[float]]:
        """Before an attempt: its time-outs, which httpx goes on to look at. Once the headers are there, its
        `read` is to be body_read: it is then for what lies between two reads."""
        timeouts, total = dict(self._asked), exchange.attempt_ns
        connect, first_byte = exchange.connect_ns, exchange.first_byte_ns
        self.body_read = least(timeouts.get("read"), exchange.idle_ns / 1e9)
        for name, limit in (("connect", connect), ("read", first_byte), ("write", total), ("pool", total)):
            asked, seconds = timeouts.get(name), (limit if limit < total else total) / 1e9
            if seconds < LONGEST and (asked is None or seconds < asked):
                timeouts[name] = seconds
        self.request.extensions = {**self._extensions, "timeout": timeouts}
        if exchange.options.propagate:
            tell(self.request.headers, exchange.headers(), _OF_AN_ATTEMPT)
            self._told = True
        return timeouts

    def restore(self) -> None:
        self.request.extensions = self._extensions
        if self._told:
            take_back(self.request.headers, _OF_AN_ATTEMPT)
