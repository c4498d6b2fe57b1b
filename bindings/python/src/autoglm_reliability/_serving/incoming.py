# SPDX-License-Identifier: Apache-2.0
"""A request, as functions of the application see it that name tenants and estimate costs."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Callable, Optional, Union

Headers = list[tuple[bytes, bytes]]
Key = Optional[Union[str, bytes]]

UNREAD: Any = object()
#: Of a Content-Length; more than that nobody sends.
MOST_DIGITS = 18
LONGEST_KEY = 255


class Incoming:
    """
    method, path  as text; query: as it was sent, without the question mark.
    headers       pairs of bytes, the names in lower case.
    client        the address of the peer; "" when the server does not tell.
    body          None, unless the middleware has read it: see `reads_body` of RateLimit.
    """

    __slots__ = ("_json", "body", "client", "headers", "method", "path", "query")

    def __init__(self, method: str, path: str, query: bytes, headers: Headers, client: str) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.headers = headers
        self.client = client
        self.body: Optional[bytes] = None
        self._json = UNREAD

    def header(self, name: str) -> Optional[str]:
        """The first of this name, which is in lower case."""
        wanted = name.encode("latin-1")
        for found, value in self.headers:
            if found == wanted:
                return value.decode("latin-1")
        return None

    @property
    def json(self) -> Any:
        """The body as JSON; None when it is none, or is not an object."""
        if self._json is UNREAD:
            self._json = _object(self.body or b"")
        return self._json


def announced(length: bytes) -> int:
    """What a Content-Length says, however many zeros it begins with; -1 when it is no number."""
    if len(length) > MOST_DIGITS:
        length = length.lstrip(b"0")[: MOST_DIGITS + 1] if length.isdigit() else b""
    return int(length) if length.isdigit() else -1


# json.loads would look for the arguments and encodings that nobody has.
_decode = json.JSONDecoder().decode


def decoded(text: bytes) -> Any:
    """Of JSON in UTF-8, without a mark of the byte order. Raises ValueError, or RecursionError."""
    return _decode(text.decode("utf-8"))


def _object(body: bytes) -> Optional[dict[str, Any]]:
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return None
    try:
        value = decoded(body)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


#: What callers identify themselves by; the first of them that a request has says who it is.
CREDENTIALS = (b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key")
_RANKS = {name: rank for rank, name in enumerate(CREDENTIALS)}


def credentials(request: Incoming) -> bytes:
    """The default tenant: a hash of what the caller identifies itself by (`authorization`, else `x-api-key`,
    `api-key`, `x-goog-api-key`), else of its address."""
    best, found = len(_RANKS), b""
    for name, value in request.headers:
        rank = _RANKS.get(name, best)
        if rank < best:  # of two that are the same header the first counts, as frameworks read it
            best, found = rank, value
    return blake2b(b"%d:%s" % (best, found or request.client.encode()), digest_size=16).digest()


def marks(request: Incoming) -> list[bytes]:
    """What else may tell apart two callers who are the same tenant by `credentials`: their other credentials;
    when they have none, cookies and the host that they asked."""
    sent = [(name, value) for name, value in request.headers if name in _RANKS]
    if not sent:
        sent = [(name, value) for name, value in request.headers if name in (b"cookie", b"host")]
    return [name + b":" + value for name, value in sorted(sent)]


KeyFunction = Callable[[Incoming], Key]


def key_function(key: Union[str, KeyFunction]) -> KeyFunction:
    """A header's name stands for its value. All who do not send it share one bucket."""
    if not isinstance(key, str):
        return key
    name = key.lower()
    return lambda request: request.header(name) or ""


def short(key: Union[str, bytes]) -> bytes:
    """As the library's objects take it, whatever a client has sent."""
    if not isinstance(key, (bytes, bytearray, memoryview)):
        # Whatever JSON can say; bytes() of a number would be so many zeros.
        key = str(key).encode("utf-8", "surrogatepass")
    data = bytes(key)
    return data if len(data) <= LONGEST_KEY else blake2b(data, digest_size=32).digest()
