# SPDX-License-Identifier: Apache-2.0
"""Several places that can serve the same request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Optional

import httpx

from ..errors import ArgumentError

#: What belongs to the host that a request was made for, and goes to no other.
CREDENTIALS = (
    "authorization",
    "proxy-authorization",
    "cookie",
    "api-key",
    "x-api-key",
    "x-goog-api-key",
    "openai-organization",
    "openai-project",
)


@dataclass(frozen=True)
class Endpoint:
    """
    base_url  what the URL of a request begins with that this endpoint serves, such as "https://api.example/v1".
    headers   set for this endpoint: its credentials.
    model     written into a JSON request in place of its "model"; None: it stays.
    """

    base_url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    model: Optional[str] = None

    def __post_init__(self) -> None:
        url = httpx.URL(self.base_url)
        if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
            raise ArgumentError("base_url: http://host or https://host is needed, and no query", "base_url")

    @property
    def url(self) -> httpx.URL:
        return httpx.URL(self.base_url)

    def rest_of(self, url: httpx.URL) -> Optional[bytes]:
        """What follows base_url in a URL, its query included; None: it does not begin with it."""
        own = self.url
        if (url.scheme, url.netloc) != (own.scheme, own.netloc):
            return None
        base, path = own.raw_path.rstrip(b"/"), url.raw_path
        # "/v1" is no beginning of "/v10".
        if not path.startswith(base) or path[len(base) : len(base) + 1] not in (b"", b"/", b"?"):
            return None
        return path[len(base) :]

    def request(self, first: httpx.Request, rest: bytes) -> httpx.Request:
        """The request, which was made for the first endpoint, made for this one."""
        own = self.url
        url = own.copy_with(raw_path=own.raw_path.rstrip(b"/") + rest)
        headers = httpx.Headers(first.headers)
        if (own.scheme, own.netloc) != (first.url.scheme, first.url.netloc):
            for name in CREDENTIALS:
                headers.pop(name, None)
        headers["Host"] = own.netloc.decode("ascii")
        headers.update(self.headers)
        content = first.content if self.model is None else self._with_model(first)
        if content is not first.content:
            headers["Content-Length"] = str(len(content))
            headers.pop("Transfer-Encoding", None)
        return httpx.Request(first.method, url, headers=headers, content=content, extensions=first.extensions)

    def _with_model(self, first: httpx.Request) -> bytes:
        if "json" not in first.headers.get("content-type", ""):
            return first.content
        try:
            body: Any = json.loads(first.content)
        except (ValueError, RecursionError):
            return first.content
        if not isinstance(body, dict) or "model" not in body:
            return first.content
        body["model"] = self.model
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()
