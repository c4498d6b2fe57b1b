# SPDX-License-Identifier: Apache-2.0
"""Rate limits of requests and of tokens, for each tenant: taken together or not at all, and settled by what
was used."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional, Union

from .._convert import Duration
from ..errors import ArgumentError, CapacityError, NeverFits, RateLimited, ReliabilityError, StoreError
from ..keyed_limiter import KeyedRateLimiter
from ..reservation import Reservation
from . import quota_headers
from .incoming import Headers, Incoming, KeyFunction, credentials, key_function, short
from .refusal import Refusal, limited, never_fits, overloaded
from .tokens import MOST_TOKENS, Meter, Usage, estimate_tokens, input_estimate, total_tokens

log = logging.getLogger("autoglm_reliability.serving")


class RateLimit:
    """
    requests    a limiter of requests; None: they are not limited.
    tokens      a limiter of tokens; None: they are not limited. So many as `estimate` says are taken before
                the request is served, and settled by the usage that its response tells.
    key         whose bucket: a header's name, or a function of the request, which returns None for a request
                that is not limited. By default `credentials`.
    name        of the policy, in the headers.
    estimate    tokens of a request; `estimate_tokens`.
    usage       tokens by the `usage` of a response, or None; `total_tokens`.
    reads_body  whether key or estimate look at the body, which is then read before the request is served;
                by default whether there are tokens.
    max_wait    seconds that a request may wait for its turn, instead of a 429; 0.
    headers     whether responses tell the limits; by default they do, unless that would ask a store again.
    """

    def __init__(
        self,
        *,
        requests: Optional[KeyedRateLimiter] = None,
        tokens: Optional[KeyedRateLimiter] = None,
        key: Union[str, KeyFunction] = credentials,
        name: str = "",
        estimate: Callable[[Incoming], int] = estimate_tokens,
        usage: Callable[[Usage], Optional[int]] = total_tokens,
        reads_body: Optional[bool] = None,
        max_wait: float = 0,
        headers: Optional[bool] = None,
    ) -> None:
        if requests is None and tokens is None:
            raise ArgumentError("a RateLimit needs requests or tokens", "requests")
        if not all(letter.isalnum() or letter in "-_." for letter in name) or not name.isascii():
            raise ArgumentError("name: letters, digits and -_. only", "name")
        if not max_wait >= 0:
            raise ArgumentError("max_wait must not be negative", "max_wait")
        self.requests, self.tokens = requests, tokens
        self.key = key_function(key)
        self.estimate, self.usage = estimate, usage
        self.reads_body = tokens is not None if reads_body is None else reads_body
        self.max_wait = max_wait
        limiters = [limiter for limiter in (requests, tokens) if limiter is not None]
        self.waits = any(limiter._waits for limiter in limiters)
        self.tells = not self.waits if headers is None else headers
        prefix = f"{name}-" if name else ""
        self.names = f"{prefix}requests", f"{prefix}tokens"
        self.told: list[Optional[quota_headers.Told]] = [None, None]


class Taken(NamedTuple):
    limit: RateLimit
    key: bytes
    tokens: Optional[Reservation]
    requests: Optional[Reservation]


class Held:
    """What a request has taken of its limits."""

    __slots__ = ("_input", "_taken", "headers", "meter", "wait")

    def __init__(self, request: Incoming) -> None:
        self._taken: list[Taken] = []
        self._input = input_estimate(request)
        self.headers: Headers = []
        self.meter: Optional[Meter] = None
        self.wait = 0.0

    def add(self, taken: Taken) -> None:
        self._taken.append(taken)
        for reservation in (taken.tokens, taken.requests):
            if reservation is not None and reservation.wait > self.wait:
                self.wait = reservation.wait

    def cancel(self) -> None:
        """The request is not served: all goes back."""
        while self._taken:
            taken = self._taken.pop()
            for reservation in (taken.tokens, taken.requests):
                if reservation is not None:
                    _end(reservation, None, cancel=True)

    def settle(self, ended: bool) -> None:
        """By the usage that the response told; if it told none, as was estimated. A response that broke off
        costs what had been sent of it; a refusal by the application (4xx) costs no tokens."""
        meter = self.meter
        if meter is not None and ended:
            meter.end()
        while self._taken:
            taken = self._taken.pop()
            if taken.requests is not None:
                _end(taken.requests, None)
            if taken.tokens is not None and meter is not None:
                _end(taken.tokens, self._actual(taken.limit, meter, ended))

    def _actual(self, limit: RateLimit, meter: Meter, ended: bool) -> Optional[int]:
        actual = _used(limit, meter.usage) if meter.usage else None
        if actual is not None:
            return actual
        if ended:
            return 0 if 400 <= meter.status < 500 else None
        return self._input + meter.broken_off() if meter.sent else None


def _used(limit: RateLimit, usage: Usage) -> Optional[int]:
    """None: it cannot be read. The response is not to suffer from that."""
    try:
        actual = limit.usage(usage)
        if actual is None or not -math.inf < actual <= MOST_TOKENS:
            return None
        return max(0, math.ceil(actual))
    except Exception:
        log.warning("the usage of a response cannot be read", exc_info=True)
        return None


def _end(reservation: Reservation, actual: Optional[int], cancel: bool = False) -> None:
    try:
        if cancel:
            reservation.cancel()
        else:
            reservation.settle(actual)
    except ReliabilityError:
        return  # of a store that is away, or a closed limiter: the reservation expires by itself


class Limits:
    """The limits of a middleware."""

    def __init__(self, limits: Sequence[RateLimit]) -> None:
        self.limits = tuple(limits)
        self.waits = any(limit.waits for limit in limits)
        self.reads_body = any(limit.reads_body for limit in limits)
        self._metered = any(limit.tokens is not None for limit in limits)

    def take(self, request: Incoming, longest: float = math.inf) -> Union[Held, Refusal]:
        """From all of them, or from none. `longest`: seconds that it may have to wait."""
        held = Held(request)
        try:
            for limit in self.limits:
                key = limit.key(request)
                if key is None:
                    continue
                refusal = self._take(held, limit, short(key), request, longest)
                if refusal is not None:
                    held.cancel()
                    return refusal
        except BaseException:
            held.cancel()
            raise
        if self._metered:
            held.meter = Meter()
        held.headers = quota_headers.of([taken[:2] for taken in held._taken if taken.limit.tells])
        return held

    def _take(
        self, held: Held, limit: RateLimit, key: bytes, request: Incoming, longest: float
    ) -> Optional[Refusal]:
        """Tokens first, for they are what runs short. Requests need no reservation when nothing can be
        refused after them."""
        name, tokens = limit.names[1], None
        wait: Duration = min(limit.max_wait, longest)
        try:
            if limit.tokens is not None:
                tokens = limit.tokens.reserve(key, max(1, limit.estimate(request)), wait)
                held.add(Taken(limit, key, tokens, None))
            if limit.requests is not None:
                name = limit.names[0]
                if wait == 0 and limit is self.limits[-1] and limit.requests.try_acquire(key):
                    requests = None
                else:
                    requests = limit.requests.reserve(key, 1, wait)
                if tokens is not None:
                    held._taken.pop()
                held.add(Taken(limit, key, tokens, requests))
        except RateLimited as error:
            told = quota_headers.of([(limit, key)]) if limit.tells else []
            return limited(error.retry_after or 0, name, told)
        except NeverFits:
            return never_fits(name)
        except CapacityError as error:
            return overloaded(error.retry_after or 1, "rate_limit_table_full")
        except StoreError:
            return overloaded(1, "rate_limit_unavailable")
        return None
