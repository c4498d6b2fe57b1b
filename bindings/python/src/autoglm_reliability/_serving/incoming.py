# SPDX-License-Identifier: Apache-2.0
"""A request, as functions of the application see it that name tenants and estimate costs."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any, Callable, Optional, Union

Headers = list[tuple[bytes, bytes]]
Key = Optional[Union[str, bytes]]

UNREAD: Any = object()
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


def _object(body: bytes) -> Optional[dict[str, Any]]:
    if body[:1] != b"{" and body.lstrip()[:1] != b"{":
        return None
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def credentials(request: Incoming) -> bytes:
    """The default tenant: a hash of what the caller identifies itself by (`authorization`, else `x-api-key`),
    else of its address."""
    found = b""
    for name, value in request.headers:
        if name == b"authorization":
            found = b"a" + value
            break
        if name == b"x-api-key":
            found = b"k" + value
    return blake2b(found or b"c" + request.client.encode(), digest_size=16).digest()


KeyFunction = Callable[[Incoming], Key]


def key_function(key: Union[str, KeyFunction]) -> KeyFunction:
    """A header's name stands for its value. All who do not send it share one bucket."""
    if not isinstance(key, str):
        return key
    name = key.lower()
    return lambda request: request.header(name) or ""


def short(key: Union[str, bytes]) -> bytes:
    """As the library's objects take it, whatever a client has sent."""
    data = key.encode("utf-8", "surrogatepass") if isinstance(key, str) else bytes(key)
    return data if len(data) <= LONGEST_KEY else blake2b(data, digest_size=32).digest()
