# SPDX-License-Identifier: Apache-2.0
"""What responses tell of rate limits: RateLimit and RateLimit-Policy (draft-ietf-httpapi-ratelimit-headers,
version 10), and the `x-ratelimit-*` that the clients of LLM APIs read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..errors import ReliabilityError
from .incoming import Headers

KINDS = ("requests", "tokens")
_LIMIT = tuple(f"x-ratelimit-limit-{kind}".encode() for kind in KINDS)
_REMAINING = tuple(f"x-ratelimit-remaining-{kind}".encode() for kind in KINDS)
_RESET = tuple(f"x-ratelimit-reset-{kind}".encode() for kind in KINDS)


class Told:
    """What does not change from one response to the next of one limiter, until it is configured anew."""

    __slots__ = ("capacity", "config", "limit", "name", "policy", "window")

    def __init__(self, config: Any, name: str, kind: int) -> None:
        self.config = config
        self.capacity: int = config.capacity
        #: seconds in which an empty bucket is full
        self.window = self.capacity * config.refill_interval_ns / (config.refill_tokens or 1) / 1e9
        self.limit = _LIMIT[kind], b"%d" % self.capacity
        self.name = b'"%s"' % name.encode("ascii")
        self.policy = b"%s;q=%d;w=%d" % (self.name, self.capacity, math.ceil(self.window))


def of(limits: Sequence[tuple[Any, ...]]) -> Headers:
    """Of each limit with the key that a request has in it; the `x-ratelimit-*` are those of the first limit
    of their kind."""
    headers: Headers = []
    policies, states = [], []
    seen = [False, False]
    for limit, key in limits:
        for kind, limiter in enumerate((limit.requests, limit.tokens)):
            if limiter is None:
                continue
            try:
                left = limiter.available(key)
            except ReliabilityError:
                continue  # it is only told
            told = limit.told[kind]
            if told is None or told.config is not limiter._config:
                told = limit.told[kind] = Told(limiter._config, limit.names[kind], kind)
            left = max(0, min(left, told.capacity))
            reset = told.window * (told.capacity - left) / told.capacity
            policies.append(told.policy)
            states.append(b"%s;r=%d;t=%d" % (told.name, left, math.ceil(reset)))
            if not seen[kind]:
                seen[kind] = True
                headers += (told.limit, (_REMAINING[kind], b"%d" % left), (_RESET[kind], duration(reset)))
    if states:
        headers.append((b"ratelimit-policy", b", ".join(policies)))
        headers.append((b"ratelimit", b", ".join(states)))
    return headers


def duration(seconds: float) -> bytes:
    """As Go writes durations: "17ms", "1.5s", "6m0s"; rounded up to milliseconds."""
    milliseconds = math.ceil(seconds * 1e3)
    if milliseconds < 1000:
        return b"%dms" % milliseconds if milliseconds else b"0s"
    minutes, rest = divmod(milliseconds, 60_000)
    tail = f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}h{minutes}m{tail}".encode()
    return (f"{minutes}m{tail}" if minutes else tail).encode()
