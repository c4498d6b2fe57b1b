# SPDX-License-Identifier: Apache-2.0
"""What an exception, or a result, says about an attempt."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Callable, Optional, Union

from . import _generated as c
from ._convert import Bytes, Duration, integer, nanoseconds, octets
from ._ffi import Int32, address_of, byref, check, initialised, lib
from .enums import Domain, ErrorClass, Outcome
from .errors import ArgumentError, CircuitOpen, RateLimited, Refused
from .hints import hint_from_headers


@dataclass(frozen=True)
class AttemptOutcome:
    """How an attempt went.

    error_class   given outright; None: domain and code are looked up in the rules.
    server_delay  seconds that the server asked for; math.inf: never retry; None: it said nothing.
    costs         the real cost, one a limiter; None in place of one: the estimate stays.
    latency       seconds; None: from the step to now.
    result        of a success, stored for those who joined, for replays and for cached answers.
    """

    error_class: Optional[ErrorClass] = None
    domain: Domain = Domain.NONE
    code: int = 0
    server_delay: Optional[Duration] = None
    costs: Sequence[Optional[int]] = ()
    latency: Optional[Duration] = None
    result: Bytes = b""
    attempt_id: int = 0

    @classmethod
    def success(cls, result: Bytes = b"", costs: Sequence[Optional[int]] = ()) -> AttemptOutcome:
        return cls(ErrorClass.SUCCESS, result=result, costs=costs)

    @classmethod
    def failure(cls, error_class: ErrorClass = ErrorClass.TRANSIENT) -> AttemptOutcome:
        return cls(error_class)

    @classmethod
    def http(cls, status: int, server_delay: Optional[float] = None) -> AttemptOutcome:
        return cls(domain=Domain.HTTP, code=status, server_delay=server_delay)

    def _write(self) -> tuple[c.agr_outcome, bytes]:
        """The C structure, and the bytes that it points to."""
        outcome: c.agr_outcome = initialised(c.agr_outcome)
        if self.error_class is not None:
            outcome.error_class = integer(self.error_class, "error_class", Int32)
        else:
            outcome.domain = integer(self.domain, "domain", Int32)
            outcome.code = integer(self.code, "code", Int32)
        outcome.attempt_id = self.attempt_id
        if self.server_delay is not None:
            outcome.server_delay_ns = nanoseconds(self.server_delay, "server_delay", forever=True)
        if self.latency is not None:
            outcome.latency_ns = nanoseconds(self.latency, "latency")
        write_costs(outcome.costs, self.costs, unknown=-1)
        data = octets(self.result, "result")
        if data:
            outcome.result, outcome.result_length = address_of(data), len(data)
        return outcome, data


Verdict = Union[AttemptOutcome, ErrorClass]
Classify = Callable[[BaseException], Verdict]


def write_costs(array: Any, costs: Sequence[Optional[int]], unknown: int) -> None:
    if len(costs) > c.AGR_DIMENSIONS_MAX:
        raise ArgumentError(f"costs: at most {c.AGR_DIMENSIONS_MAX} are possible", "costs")
    for index, cost in enumerate(costs):
        array[index] = unknown if cost is None else integer(cost, f"costs[{index}]")


def default_classify(error: BaseException) -> AttemptOutcome:
    """The usual reading of an exception.

    Cancellation is CANCELLED. A status code (`status`, `status_code`, `response.status_code`) is looked up in
    the rules, an OSError's errno too. A time-out, and the end of the stream in the middle of a reply, is
    UNKNOWN: the request may have been served. A refusal of another limiter or breaker is TEMPORARY.
    Everything else is TRANSIENT. A server's hint comes from `retry_after`, or from the headers of the
    exception or of its response.
    """
    if isinstance(error, (asyncio.CancelledError, GeneratorExit, KeyboardInterrupt, SystemExit)):
        return AttemptOutcome(ErrorClass.CANCELLED)
    hint = server_hint(error)
    status = status_code(error)
    if status is not None:
        return AttemptOutcome(domain=Domain.HTTP, code=status, server_delay=hint)
    if isinstance(error, (RateLimited, CircuitOpen)):
        return AttemptOutcome(ErrorClass.TEMPORARY, server_delay=hint)
    if isinstance(error, Refused):
        return AttemptOutcome(ErrorClass.PERMANENT)
    if isinstance(error, TIMEOUTS) or named_timeout(error):
        return AttemptOutcome(ErrorClass.UNKNOWN, server_delay=hint)
    reason = getattr(error, "reason", None)
    if isinstance(error, OSError) and isinstance(reason, OSError) and reason is not error:
        return default_classify(reason)  # urllib's URLError wraps what happened
    number = system_error(error)
    if number is not None:
        return AttemptOutcome(domain=Domain.ERRNO, code=number, server_delay=hint)
    return AttemptOutcome(ErrorClass.TRANSIENT, server_delay=hint)


def named_timeout(error: BaseException) -> bool:
    """Clients have classes of their own, such as ReadTimeout, which are no TimeoutError. While
    connecting, or waiting for a connection, nothing has been sent yet."""
    names = [kind.__name__ for kind in type(error).__mro__]
    if any(name.startswith(("Connect", "Pool")) for name in names):
        return False
    return any(name.endswith(("Timeout", "TimeoutError")) for name in names)


def system_error(error: BaseException) -> Optional[int]:
    if not isinstance(error, OSError):
        return None
    # Name resolution has numbers of its own in errno, which are negative.
    if isinstance(error.errno, int) and error.errno > 0:
        return error.errno
    # http.client raises some of these without a number.
    for kind, number in CONNECTION_ERRORS.items():
        if isinstance(error, kind):
            return number
    return None


# socket.timeout and asyncio.TimeoutError are the built-in one only since Python 3.10 and 3.11.
TIMEOUTS = (TimeoutError, socket.timeout, asyncio.TimeoutError, EOFError)

CONNECTION_ERRORS = {
    ConnectionResetError: errno.ECONNRESET,
    ConnectionRefusedError: errno.ECONNREFUSED,
    ConnectionAbortedError: errno.ECONNABORTED,
    BrokenPipeError: errno.EPIPE,
}


def status_code(error: object) -> Optional[int]:
    """An HTTP status, under one of the names which clients give it."""
    for holder in (error, getattr(error, "response", None)):
        for name in ("status_code", "status"):
            value = getattr(holder, name, None)
            if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599:
                return int(value)
    return None


def server_hint(error: object) -> Optional[float]:
    value = getattr(error, "retry_after", None)
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, (int, float)) and not isinstance(value, bool) and value >= 0:
        limit = c.AGR_TIME_MAX_NS / 1e9
        return float(value) if value < limit else float("inf")
    for holder in (getattr(error, "response", None), error):
        hint = hint_from_headers(getattr(holder, "headers", None))
        if hint is not None:
            return hint
    return None


SUCCESS = AttemptOutcome.success()


def as_outcome(verdict: Verdict) -> AttemptOutcome:
    return verdict if isinstance(verdict, AttemptOutcome) else AttemptOutcome(ErrorClass(verdict))


def class_of(verdict: Verdict) -> ErrorClass:
    """The class of a verdict, by the default rules if it is only a code."""
    outcome = as_outcome(verdict)
    if outcome.error_class is not None:
        return outcome.error_class
    rule, error = c.agr_retry_rule(), c.agr_error()
    status = lib.agr_retry_classify(None, int(outcome.domain), outcome.code, byref(rule), byref(error))
    check(status, error)
    return ErrorClass(rule.error_class)


BREAKER_VIEW = {
    ErrorClass.SUCCESS: Outcome.SUCCESS,
    ErrorClass.TRANSIENT: Outcome.FAILURE,
    ErrorClass.TEMPORARY: Outcome.BACKPRESSURE,
    ErrorClass.PERMANENT: Outcome.NEUTRAL,
    ErrorClass.CANCELLED: Outcome.NEUTRAL,
    ErrorClass.UNKNOWN: Outcome.FAILURE,
}


def breaker_outcome(verdict: Verdict) -> Outcome:
    return BREAKER_VIEW[class_of(verdict)]
