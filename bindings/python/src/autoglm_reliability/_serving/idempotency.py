# SPDX-License-Identifier: Apache-2.0
"""How requests with an Idempotency-Key are served."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Callable, Union

from ..errors import ArgumentError
from ..idempotency import IdempotencyCache
from ..keyed_limiter import KeyedRateLimiter
from .incoming import Incoming, KeyFunction, credentials, key_function, marks, short
from .key import fingerprint

#: Answers that say that the request was not executed, or that it may be repeated.
NOT_FINAL = frozenset([408, 409, 425, 429])


def final(status: int) -> bool:
    """Whether a response of this status is the request's result: it is, unless it is a server's error, or
    says that the request was not executed (408, 409, 425, 429)."""
    return status < 500 and status not in NOT_FINAL


@dataclass(frozen=True)
class Execution:
    """What an application is told of the run of a key: `scope["state"]["autoglm_reliability"]`, in WSGI
    `environ["autoglm_reliability"]`.

    key              as the client sent it.
    fence            grows with every run of the key; hand it to what must refuse late writers.
    outcome_unknown  an earlier run of it broke off and may have had effects; lost_fence: its fence, or 0.
    """

    key: str
    fence: int
    outcome_unknown: bool
    lost_fence: int


class Idempotency:
    """
    cache         where keys and responses lie: an IdempotencyCache of this process, or in a store, which the
                  workers share.
    methods       whose requests may have a key.
    required      whether they must: a bool, or a function of the request.
    tenant        whose key it is: a header's name, or a function of the request. The same key of another
                  tenant is another key. By default `credentials`, and then a caller whose other credentials
                  differ, or who has none and whose cookies or host differ, is refused the key (422).
    on_duplicate  "join": whoever comes while the first is served gets the same response, a stream from its
                  start; "conflict": 409.
    max_response_bytes  that are kept of a response; a larger one is not sent again (409).
    final         whether a response of such a status is the key's result; else the key may be tried again.
    quota         of new keys for each tenant: capacity and refill such that no tenant fills the cache.
    max_duplicates  that follow runs of this process at a time.
    retry_after   seconds, that a 409 says.
    """

    def __init__(
        self,
        cache: IdempotencyCache,
        *,
        methods: Iterable[str] = ("POST", "PATCH"),
        required: Union[bool, Callable[[Incoming], bool]] = False,
        tenant: Union[str, KeyFunction] = credentials,
        on_duplicate: str = "join",
        max_response_bytes: int = 1 << 20,
        final: Callable[[int], bool] = final,
        quota: Union[KeyedRateLimiter, None] = None,
        max_duplicates: int = 1024,
        retry_after: float = 1,
    ) -> None:
        if on_duplicate not in ("join", "conflict"):
            raise ArgumentError('on_duplicate must be "join" or "conflict"', "on_duplicate")
        if max_response_bytes < 0:
            raise ArgumentError("max_response_bytes must not be negative", "max_response_bytes")
        self.cache = cache
        self.methods = frozenset(method.upper() for method in methods)
        self.joins = on_duplicate == "join"
        self.max_response_bytes = max_response_bytes
        self.final = final
        self.quota = quota
        self.max_duplicates = max_duplicates
        self.retry_after = retry_after
        self._required = required
        self._tenant = key_function(tenant)
        self._marks: Callable[[Incoming], Iterable[bytes]] = marks if tenant is credentials else _none

    def required(self, request: Incoming) -> bool:
        return self._required if isinstance(self._required, bool) else self._required(request)

    def tenant(self, request: Incoming) -> bytes:
        found = self._tenant(request)
        return b"" if found is None else short(found)

    def fingerprint(self, request: Incoming) -> bytes:
        return fingerprint(request, self._marks(request))


def _none(_: Incoming) -> Iterable[bytes]:
    return ()
