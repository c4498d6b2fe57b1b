# SPDX-License-Identifier: Apache-2.0
"""The shapes of WSGI, and requests and answers in them."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Callable, Union

from .._serving.incoming import Headers, Incoming, announced
from .._serving.refusal import BODY_TOO_LARGE, Refusal

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Pairs = list[tuple[str, str]]


def status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return f"{status} Status"


def as_text(headers: Headers) -> Pairs:
    """Without `connection`, which a WSGI application must not send."""
    pairs = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
    return [(name, value) for name, value in pairs if name.lower() != "connection"]


def as_bytes(pairs: Pairs) -> Headers:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in pairs]


def answer(start_response: StartResponse, refusal: Refusal) -> list[bytes]:
    start_response(status_line(refusal.status), as_text(refusal.headers))
    return [refusal.body]


def incoming(environ: Environ) -> Incoming:
    headers = [
        (name[5:].replace("_", "-").lower().encode("latin-1"), str(value).encode("latin-1", "replace"))
        for name, value in environ.items()
        if name.startswith("HTTP_")
    ]
    for name, header in (("CONTENT_TYPE", b"content-type"), ("CONTENT_LENGTH", b"content-length")):
        if environ.get(name):
            headers.append((header, str(environ[name]).encode("latin-1", "replace")))
    return Incoming(
        environ["REQUEST_METHOD"],
        environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", ""),
        environ.get("QUERY_STRING", "").encode("latin-1", "replace"),
        headers,
        environ.get("REMOTE_ADDR", ""),
    )


def declared_length(environ: Environ) -> int:
    """0 when it is not told, or is no number."""
    text = environ.get("CONTENT_LENGTH") or ""
    return max(0, announced(text.encode("latin-1", "replace")))


def read_body(environ: Environ, largest: int) -> Union[bytes, Refusal]:
    """What the client declared, or all until the server says that it has ended."""
    length = declared_length(environ)
    if not length and not environ.get("wsgi.input_terminated"):
        return b""
    left = length or largest + 1
    parts: list[bytes] = []
    while left > 0:
        part = environ["wsgi.input"].read(min(left, 1 << 16))
        if not part:
            break
        parts.append(part)
        left -= len(part)
    body = b"".join(parts)
    return BODY_TOO_LARGE if len(body) > largest else body
