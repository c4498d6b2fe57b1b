# SPDX-License-Identifier: Apache-2.0
"""What a server's headers say about its limits."""

from __future__ import annotations

import math
import time
from datetime import datetime
from typing import Callable, Optional

from ..enums import Hint
from ..errors import ReliabilityError
from ..hints import _servers_now, hint_from_headers, parse_hint

Get = Callable[[str], Optional[str]]

_RESETS = (
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
)


class _Headers:
    def __init__(self, get: Get) -> None:
        self.get = get


def asked_delay(get: Get) -> Optional[float]:
    """The seconds that a refusal asks to wait: retry-after-ms, Retry-After, else when what is used up is
    there again."""
    hint = hint_from_headers(_Headers(get))
    return used_up(get) if hint is None else hint


def used_up(get: Get) -> Optional[float]:
    """The seconds until all that is used up is there again; None: nothing is."""
    longest = None
    for remaining, reset in _RESETS:
        left, text = get(remaining), get(reset)
        if left is None or text is None or left.strip() != "0":
            continue
        delay = _until(text.strip(), get)
        if delay is not None and (longest is None or delay > longest):
            longest = delay
    return longest


def should_retry(get: Get) -> Optional[bool]:
    return {"true": True, "false": False}.get((get("x-should-retry") or "").strip().lower())


def _until(text: str, get: Get) -> Optional[float]:
    try:
        return parse_hint(Hint.DURATION, text)
    except ReliabilityError:
        pass
    try:
        return parse_hint(Hint.RETRY_AFTER, text)  # plain seconds
    except ReliabilityError:
        pass
    try:
        # Python before 3.11 does not read the Z of RFC 3339.
        then = datetime.fromisoformat(text.replace("Z", "+00:00"))
        delay = then.timestamp() - (_servers_now(get) or time.time())
    except (ValueError, OverflowError, OSError):
        return None
    # A time without a zone would be read in this machine's.
    if then.tzinfo is None or not math.isfinite(delay):
        return None
    return max(0.0, delay)
