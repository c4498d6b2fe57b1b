# SPDX-License-Identifier: Apache-2.0
"""What one layer tells the next about a request: how long its caller still waits, which attempt it is, and
by that, that somebody further out retries it. The transports send it, the middleware reads it, and what the
server then calls in turn neither outlives the caller nor multiplies its retries."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Optional

#: Milliseconds that the caller still waits. They are relative, so the clocks of two machines need not agree.
TIMEOUT_HEADER = "agr-timeout-ms"
#: 1, 2, ...; whoever sends it retries by itself.
ATTEMPT_HEADER = "agr-attempt"

LONGEST_MS = 10**12
MOST_ATTEMPTS = 10**6


@dataclass(frozen=True)
class Inbound:
    """
    deadline  of the caller, in seconds of time.monotonic(); math.inf: it told none.
    attempt   of the caller, 1, 2, ...; 0: it told none.
    """

    deadline: float = math.inf
    attempt: int = 0

    @property
    def retried_outside(self) -> bool:
        """Whether the caller retries: who works for it should then not retry as well."""
        return self.attempt > 0

    @property
    def remaining(self) -> float:
        """Seconds that the caller still waits, 0 when it has given up; math.inf: it told no deadline."""
        return max(0.0, self.deadline - time.monotonic())


NOTHING = Inbound()
_current: ContextVar[Inbound] = ContextVar("autoglm_reliability_inbound", default=NOTHING)


def current_inbound() -> Inbound:
    """What the caller of the request that this code serves has told."""
    return _current.get()


@contextmanager
def serving(inbound: Inbound) -> Iterator[None]:
    """Within it, and in tasks begun within it, current_inbound() is `inbound`."""
    token = _current.set(inbound)
    try:
        yield
    finally:
        _current.reset(token)


def read_inbound(timeout: Optional[str], attempt: Optional[str]) -> Inbound:
    """From the values of the two headers. What cannot be read counts as not sent."""
    milliseconds = _number(timeout, LONGEST_MS)
    deadline = math.inf if milliseconds is None else time.monotonic() + milliseconds / 1e3
    return Inbound(deadline, _number(attempt, MOST_ATTEMPTS) or 0)


def outbound_headers(remaining: float, attempt: int) -> Mapping[str, str]:
    """The headers of an attempt that may still take `remaining` seconds; math.inf: no deadline is told."""
    headers = {ATTEMPT_HEADER: str(attempt)}
    if remaining < LONGEST_MS / 1e3:
        headers[TIMEOUT_HEADER] = str(max(0, int(remaining * 1e3)))
    return headers


def _number(text: Optional[str], most: int) -> Optional[int]:
    # Plain digits only: int() also takes signs, blanks, underscores and other scripts' digits.
    if text is None or not (text.isascii() and text.isdigit()) or len(text) > len(str(most)):
        return None
    return min(int(text), most)
