# SPDX-License-Identifier: Apache-2.0
"""Answers that the middleware gives in place of the application. The body is a problem (RFC 9457) which has
the error in the form of OpenAI's as well, so that clients of either kind read it."""

from __future__ import annotations

import json
import math
from http import HTTPStatus
from typing import Optional

from .incoming import Headers

JSON = b"application/json"
PROBLEM = b"application/problem+json"
LONGEST_WAIT = 10**9


class Refusal:
    """status, headers and body of a response."""

    __slots__ = ("body", "headers", "status")

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        kind: str = "invalid_request_error",
        content_type: bytes = PROBLEM,
        retry_after: Optional[float] = None,
        retry: Optional[bool] = None,
        close: bool = False,
        extra: Optional[Headers] = None,
    ) -> None:
        """
        retry_after  seconds; None: not said.  retry: what `x-should-retry` says; None: nothing.
        close        whether the connection ends with it, because its request has not been read.
        """
        problem = {
            "type": "about:blank",
            "title": HTTPStatus(status).phrase,
            "status": status,
            "detail": detail,
            "error": {"message": detail, "type": kind, "param": None, "code": code},
        }
        self.status = status
        self.body = json.dumps(problem, separators=(",", ":")).encode()
        self.headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(self.body))]
        if retry_after is not None:
            self.headers += retry_headers(retry_after)
        if retry is not None:
            self.headers.append((b"x-should-retry", b"true" if retry else b"false"))
        if close:
            self.headers.append((b"connection", b"close"))
        if extra:
            self.headers += extra


def retry_headers(seconds: float) -> Headers:
    """Rounded up, so that nobody comes back too early, and never 0."""
    bounded = min(max(0.0, seconds), LONGEST_WAIT)
    whole, fine = max(1, math.ceil(bounded)), max(1, math.ceil(bounded * 1e3))
    return [(b"retry-after", b"%d" % whole), (b"retry-after-ms", b"%d" % fine)]


def bad_key(detail: str) -> Refusal:
    return Refusal(400, "invalid_idempotency_key", detail)


KEY_MISSING = Refusal(400, "idempotency_key_missing", "This request needs an Idempotency-Key header.")
KEY_REUSED = Refusal(
    422, "idempotency_key_reused", "This Idempotency-Key was used for another request.", retry=False
)
NOT_REPLAYABLE = Refusal(
    409,
    "response_not_kept",
    "The request of this Idempotency-Key was executed; its response could not be kept to be sent again.",
    retry=False,
)
RUN_BROKE = Refusal(
    500, "outcome_unknown", "The request of this Idempotency-Key broke off; its outcome is not known.",
    kind="server_error",
)  # fmt: skip
BODY_TOO_LARGE = Refusal(
    413, "request_too_large", "The body is larger than this server takes.", close=True, content_type=JSON
)
BODY_TOO_SLOW = Refusal(
    408, "request_timeout", "The body took too long to arrive.", close=True, content_type=JSON
)
CALLER_GAVE_UP = Refusal(
    504, "deadline_exceeded", "The caller's deadline is over.", kind="server_error", content_type=JSON
)


def in_progress(retry_after: float) -> Refusal:
    detail = "The request of this Idempotency-Key is being executed."
    return Refusal(409, "idempotency_key_in_progress", detail, retry_after=retry_after)


def overloaded(retry_after: float, code: str = "server_overloaded") -> Refusal:
    detail = "The server has no room for this request now."
    return Refusal(503, code, detail, kind="server_error", retry_after=retry_after, content_type=JSON)


def limited(retry_after: float, what: str, headers: Headers) -> Refusal:
    return Refusal(
        429,
        "rate_limit_exceeded",
        f"The rate limit of {what} is reached.",
        kind=what.rsplit("-", 1)[-1],
        retry_after=retry_after,
        content_type=JSON,
        extra=headers,
    )


def never_fits(what: str) -> Refusal:
    detail = f"The request alone is larger than the rate limit of {what}."
    return Refusal(413, "request_exceeds_limit", detail, retry=False, content_type=JSON)
