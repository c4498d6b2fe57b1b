# SPDX-License-Identifier: Apache-2.0
"""Objects in a store, as several test files use them."""

from __future__ import annotations

from typing import Any

import autoglm_reliability as agr

HOUR = 3600


def limiter_in(store: agr.Store, capacity: int = 100, **options: Any) -> agr.RateLimiter:
    """One whose tokens come back too slowly to be noticed."""
    return agr.RateLimiter(capacity, 1, HOUR, scope=store, name="tokens", **options)


def breakers(one: agr.Store, two: agr.Store, **options: Any) -> list[agr.CircuitBreaker]:
    options = {"consecutive_failures": 2, "open": HOUR, "open_max": HOUR, **options}
    return [
        agr.CircuitBreaker(window=agr.Window.NONE, scope=store, name="up", sync=0.001, **options)
        for store in (one, two)
    ]


def opens(breaker: agr.CircuitBreaker) -> bool:
    permit = breaker.try_acquire()
    if permit is not None:
        permit.neutral()
    return permit is None


def cache_in(store: agr.Store, **options: Any) -> agr.IdempotencyCache:
    return agr.IdempotencyCache(scope=store, name="jobs", max_entries=64, **options)
