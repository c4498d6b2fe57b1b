# SPDX-License-Identifier: Apache-2.0
"""What is measured. A case is a name and a function that makes its subject and returns a statement to be
timed, with the names that it uses. Nothing fails, and unless a name says so nothing is refused."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any, Callable

MANY = 10**9
Case = tuple[str, dict[str, Any]]
CASES: dict[str, Callable[[], Case]] = {}
KEYS = [f"tenant-{number:06d}" for number in random.Random(1).sample(range(10**6), 1000)]  # noqa: S311


def case(name: str) -> Callable[[Callable[[], Case]], Callable[[], Case]]:
    def add(make: Callable[[], Case]) -> Callable[[], Case]:
        CASES[name] = make
        return make

    return add


def work() -> int:
    return 1


class Bucket:
    """A token bucket as one writes it by hand."""

    def __init__(self, capacity: float, rate: float) -> None:
        self._capacity = self._tokens = capacity
        self._rate = rate
        self._last = time.monotonic()
        self._lock = threading.Lock()

    def try_acquire(self, tokens: float = 1) -> bool:
        with self._lock:
            now = time.monotonic()
            self._tokens = min(self._capacity, self._tokens + (now - self._last) * self._rate)
            self._last = now
            if self._tokens < tokens:
                return False
            self._tokens -= tokens
            return True


class Buckets:
    """The same for each key."""

    def __init__(self, capacity: float, rate: float) -> None:
        self._capacity, self._rate = capacity, rate
        self._buckets: dict[str, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def try_acquire(self, key: str) -> bool:
        with self._lock:
            now = time.monotonic()
            tokens, last = self._buckets.get(key, (self._capacity, now))
            tokens = min(self._capacity, tokens + (now - last) * self._rate)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - allowed, now)
            return allowed


def next_key() -> Callable[[], str]:
    def forever() -> Iterator[str]:
        while True:
            yield from KEYS

    return forever().__next__


# ---- floors ----


@case("call")
def call() -> Case:
    return "work()", {"work": work}


@case("next_key")
def key_alone() -> Case:
    return "key()", {"key": next_key()}


# ---- one bucket ----


@case("limiter.ours")
def limiter_ours() -> Case:
    from autoglm_reliability import RateLimiter

    return "limiter.try_acquire()", {"limiter": RateLimiter(MANY, MANY)}


@case("limiter.350.ours")
def limiter_350_ours() -> Case:
    from autoglm_reliability import RateLimiter

    return "limiter.try_acquire(350)", {"limiter": RateLimiter(2**50, MANY)}


@case("limiter.by_hand")
def limiter_by_hand() -> Case:
    return "limiter.try_acquire()", {"limiter": Bucket(MANY, MANY)}


@case("limiter.token_bucket")
def limiter_token_bucket() -> Case:
    import token_bucket

    limiter = token_bucket.Limiter(MANY, MANY, token_bucket.MemoryStorage())
    return "limiter.consume('k')", {"limiter": limiter}


@case("limiter.limits")
def limiter_limits() -> Case:
    import limits

    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    return "limiter.hit(item, 'k')", {"limiter": limiter, "item": limits.RateLimitItemPerSecond(MANY)}


@case("limiter.throttled")
def limiter_throttled() -> Case:
    import throttled

    limiter = throttled.Throttled(
        key="k", using="token_bucket", quota=throttled.per_sec(MANY, MANY), store=throttled.MemoryStore()
    )
    return "limiter.limit()", {"limiter": limiter}


@case("limiter.pyrate_limiter")
def limiter_pyrate() -> Case:
    import pyrate_limiter as pyrate

    rate = pyrate.Rate(MANY, pyrate.Duration.SECOND)
    limiter = pyrate.Limiter(pyrate.StateBucket([rate], pyrate.TokenBucket()))
    return "limiter.try_acquire('k', blocking=False)", {"limiter": limiter}


@case("limiter.refused.ours")
def refused_ours() -> Case:
    from autoglm_reliability import RateLimiter

    return "limiter.try_acquire()", {"limiter": RateLimiter(1, 0, initial_tokens=0)}


@case("limiter.refused.by_hand")
def refused_by_hand() -> Case:
    return "limiter.try_acquire()", {"limiter": Bucket(0, 0)}


@case("limiter.async.ours")
def async_ours() -> Case:
    from autoglm_reliability import RateLimiter

    return "await limiter.acquire_async()", {"limiter": RateLimiter(MANY, MANY)}


@case("limiter.async.aiolimiter")
def async_aiolimiter() -> Case:
    import aiolimiter

    return "await limiter.acquire()", {"limiter": aiolimiter.AsyncLimiter(MANY, 1)}


# ---- one bucket a key, 1000 keys ----


@case("keyed.ours")
def keyed_ours() -> Case:
    from autoglm_reliability import KeyedRateLimiter

    return "limiter.try_acquire(key())", {"limiter": KeyedRateLimiter(10**6, 10**6), "key": next_key()}


@case("keyed.by_hand")
def keyed_by_hand() -> Case:
    return "limiter.try_acquire(key())", {"limiter": Buckets(10**6, 10**6), "key": next_key()}


@case("keyed.token_bucket")
def keyed_token_bucket() -> Case:
    import token_bucket

    limiter = token_bucket.Limiter(10**6, 10**6, token_bucket.MemoryStorage())
    return "limiter.consume(key())", {"limiter": limiter, "key": next_key()}


@case("keyed.limits")
def keyed_limits() -> Case:
    import limits

    limiter = limits.strategies.FixedWindowRateLimiter(limits.storage.MemoryStorage())
    item = limits.RateLimitItemPerSecond(MANY)
    return "limiter.hit(item, key())", {"limiter": limiter, "item": item, "key": next_key()}


@case("keyed.throttled")
def keyed_throttled() -> Case:
    import throttled

    store = throttled.MemoryStore(options={"MAX_SIZE": 2000})
    limiter = throttled.Throttled(using="token_bucket", quota=throttled.per_sec(MANY, MANY), store=store)
    return "limiter.limit(key())", {"limiter": limiter, "key": next_key()}


# ---- a breaker around a block, and around a function ----
# circuitbreaker has no block here: its own lets everything pass, also when it is open.


@case("breaker.with.ours")
def with_ours() -> Case:
    from autoglm_reliability import CircuitBreaker

    return "with breaker.acquire():\n  work()", {"breaker": CircuitBreaker(), "work": work}


@case("breaker.with.pybreaker")
def with_pybreaker() -> Case:
    import pybreaker

    return "with breaker.calling():\n  work()", {"breaker": pybreaker.CircuitBreaker(), "work": work}


@case("breaker.with.purgatory")
def with_purgatory() -> Case:
    import purgatory

    breaker = purgatory.SyncCircuitBreakerFactory().get_breaker("with")
    return "with breaker:\n  work()", {"breaker": breaker, "work": work}


@case("breaker.decorator.ours")
def decorator_ours() -> Case:
    from autoglm_reliability import CircuitBreaker

    return "guarded()", {"guarded": CircuitBreaker()(work)}


@case("breaker.decorator.circuitbreaker")
def decorator_circuitbreaker() -> Case:
    from circuitbreaker import CircuitBreaker

    return "guarded()", {"guarded": CircuitBreaker(name="decorator")(work)}


@case("breaker.decorator.pybreaker")
def decorator_pybreaker() -> Case:
    import pybreaker

    return "guarded()", {"guarded": pybreaker.CircuitBreaker()(work)}


@case("breaker.decorator.purgatory")
def decorator_purgatory() -> Case:
    import purgatory

    return "guarded()", {"guarded": purgatory.SyncCircuitBreakerFactory()("decorator")(work)}


# ---- a function that would be retried, and does not fail ----


@case("retry.ours")
def retry_ours() -> Case:
    from autoglm_reliability import Backoff, Policy

    return "retried()", {"retried": Policy(retry=Backoff(max_attempts=3))(work)}


@case("retry.execute.ours")
def execute_ours() -> Case:
    from autoglm_reliability import Backoff, Policy

    policy = Policy(retry=Backoff(max_attempts=3))
    return "policy.execute(work)", {"policy": policy, "work": lambda attempt: 1}


@case("retry.tenacity")
def retry_tenacity() -> Case:
    import tenacity

    retry = tenacity.retry(stop=tenacity.stop_after_attempt(3), wait=tenacity.wait_random_exponential())
    return "retried()", {"retried": retry(work)}


@case("retry.backoff")
def retry_backoff() -> Case:
    import backoff

    return "retried()", {"retried": backoff.on_exception(backoff.expo, OSError, max_tries=3)(work)}


@case("retry.opnieuw")
def retry_opnieuw() -> Case:
    import opnieuw

    return "retried()", {"retried": opnieuw.retry(retry_on_exceptions=OSError, max_calls_total=3)(work)}


@case("retry.stamina")
def retry_stamina() -> Case:
    import stamina

    return "retried()", {"retried": stamina.retry(on=OSError, attempts=3)(work)}


# ---- everything at once ----


@case("policy.parts.ours")
def policy_ours() -> Case:
    from autoglm_reliability import Backoff, CircuitBreaker, Policy, RateLimiter, RetryBudget

    policy = Policy(
        retry=Backoff(max_attempts=3),
        budget=RetryBudget(),
        breaker=CircuitBreaker(),
        limiters=[RateLimiter(MANY, MANY)],
    )
    return "guarded()", {"guarded": policy(work)}


@case("policy.key.ours")
def policy_key_ours() -> Case:
    from autoglm_reliability import Backoff, IdempotencyCache, Policy

    policy = Policy(retry=Backoff(max_attempts=3), idempotency=IdempotencyCache())
    policy.execute(lambda _: b"done", key="k")
    return "policy.execute(work, key='k')", {"policy": policy, "work": work}
