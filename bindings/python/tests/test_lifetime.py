# SPDX-License-Identifier: Apache-2.0
"""Closing, use after it, garbage, fork."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from autoglm_reliability import (
    AttemptOutcome,
    Backoff,
    CircuitBreaker,
    ClosedError,
    IdempotencyCache,
    KeyedRateLimiter,
    Outcome,
    Policy,
    RateLimiter,
    RetryBudget,
    _ffi,
    try_acquire_all,
)
from autoglm_reliability._generated import FUNCTIONS
from helpers import collect, in_child, in_threads

MAKERS: dict[str, Callable[[], Any]] = {
    "retry_budget": RetryBudget,
    "breaker": CircuitBreaker,
    "limiter": lambda: RateLimiter(5, 1),
    "keyed_limiter": lambda: KeyedRateLimiter(5, 1),
    "idempotency": IdempotencyCache,
    "policy": Policy,
}
USES: list[tuple[str, Callable[[Any], object]]] = [
    ("retry_budget", lambda b: b.try_withdraw()),
    ("retry_budget", lambda b: b.deposit()),
    ("retry_budget", lambda b: b.balance),
    ("breaker", lambda b: b.acquire()),
    ("breaker", lambda b: b.state),
    ("breaker", lambda b: b.force(0)),
    ("breaker", lambda b: b.snapshot()),
    ("breaker", lambda b: b.events()),
    ("limiter", lambda x: x.try_acquire()),
    ("limiter", lambda x: x.acquire()),
    ("limiter", lambda x: x.reserve()),
    ("limiter", lambda x: x.available),
    ("limiter", lambda x: x.reconfigure(capacity=3)),
    ("limiter", lambda x: x.snapshot()),
    ("limiter", lambda x: try_acquire_all([(x, 1)])),
    ("limiter", lambda x: in_threads(1, lambda _: x.acquire())),
    ("limiter", lambda x: Policy(limiters=[x])),
    ("keyed_limiter", lambda x: x.try_acquire("k")),
    ("keyed_limiter", lambda x: x.acquire("k")),
    ("keyed_limiter", lambda x: x.reserve("k")),
    ("keyed_limiter", lambda x: x.available("k")),
    ("keyed_limiter", lambda x: x.snapshot()),
    ("idempotency", lambda x: x.begin("k")),
    ("idempotency", lambda x: x.join("k")),
    ("idempotency", lambda x: x.state("k")),
    ("idempotency", lambda x: x.snapshot()),
    ("idempotency", lambda x: x.get_or_execute("k", lambda _: b"")),
    ("policy", lambda x: x.begin()),
    ("policy", lambda x: x.execute(lambda _: 1)),
    ("policy", lambda x: x.set_mode(3, 0)),
    ("policy", lambda x: x.set_fallback(0)),
    ("policy", lambda x: x.snapshot()),
    ("policy", lambda x: x.events()),
]


@pytest.fixture
def destroyed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the native objects which were destroyed."""
    seen: list[str] = []
    for name in FUNCTIONS:
        if name.endswith("_destroy"):
            kind = name[len("agr_") : -len("_destroy")]
            native = getattr(_ffi.lib, name)

            def destroy(pointer: int, kind: str = kind, native: Any = native) -> None:
                seen.append(kind)
                native(pointer)

            monkeypatch.setattr(_ffi.lib, name, destroy, raising=False)
    return seen


@pytest.mark.parametrize(("kind", "use"), USES)
def test_use_after_close_says_so(kind: str, use: Callable[[Any], object]) -> None:
    thing = MAKERS[kind]()
    thing.close()
    assert thing.closed
    with pytest.raises(ClosedError):
        use(thing)


@pytest.mark.parametrize("kind", MAKERS)
def test_closing_destroys_once(kind: str, destroyed: list[str]) -> None:
    with MAKERS[kind]() as thing:
        assert not thing.closed
    thing.close()
    thing.close()
    assert destroyed == [kind]
    with pytest.raises(ClosedError), thing:
        pass


@pytest.mark.parametrize("kind", MAKERS)
def test_what_nobody_refers_to_is_destroyed(kind: str, destroyed: list[str]) -> None:
    thing = MAKERS[kind]()
    gone = weakref.ref(thing)
    del thing
    collect()
    assert gone() is None
    assert destroyed == [kind]


@pytest.mark.parametrize("kind", MAKERS)
def test_threads_that_close_at_once_destroy_once(kind: str, destroyed: list[str]) -> None:
    thing = MAKERS[kind]()
    in_threads(8, lambda _: thing.close())
    assert destroyed == [kind]


def test_closing_while_a_thread_waits_lets_it_wait_to_its_end(destroyed: list[str]) -> None:
    limiter = RateLimiter(1, 20)  # each later token takes 50 ms
    limiter.acquire()
    entered = threading.Event()

    def wait() -> list[str]:
        entered.set()
        limiter.acquire()
        return list(destroyed)

    result: list[list[str]] = []
    thread = threading.Thread(target=lambda: result.append(wait()))
    thread.start()
    entered.wait()
    while not limiter._handle._holders and thread.is_alive():
        pass
    limiter.close()
    thread.join()
    assert result == [["limiter"]] or result == [[]]
    assert destroyed == ["limiter"]


def test_a_policy_keeps_its_parts_alive(destroyed: list[str]) -> None:
    limiter, breaker, cache = RateLimiter(5, 1), CircuitBreaker(), IdempotencyCache()
    policy = Policy(limiters=[limiter], breaker=breaker, idempotency=cache, retry=Backoff())
    for part in (limiter, breaker, cache):
        part.close()
    assert policy.execute(lambda _: b"done", key="k") == b"done"
    assert policy.execute(lambda _: b"again", key="k") == b"done"
    assert "policy" not in destroyed


def test_a_call_outlives_its_policy() -> None:
    policy = Policy()
    with policy.begin() as call:
        policy.close()
        assert call.advance(AttemptOutcome.success()).done
    with pytest.raises(ClosedError):
        call.advance()


def test_a_permit_may_outlive_its_breaker() -> None:
    breaker = CircuitBreaker()
    permit = breaker.acquire()
    with permit:
        breaker.close()
    with pytest.raises(ClosedError):
        permit.report(Outcome.SUCCESS)


def test_a_view_outlives_its_result_and_its_cache(destroyed: list[str]) -> None:
    cache = IdempotencyCache()
    cache.get_or_execute("k", lambda _: b"0123456789" * 100)
    result = cache.begin("k")
    tail = result.view[-10:]  # type: ignore[union-attr]
    result.release()  # type: ignore[union-attr]
    cache.close()
    assert destroyed == []
    assert bytes(tail) == b"0123456789"
    tail.release()
    collect()
    assert destroyed == ["idempotency"]


def test_a_child_goes_on_with_what_it_inherited() -> None:
    limiter = RateLimiter(5, 0)
    breaker, cache = CircuitBreaker(), IdempotencyCache()
    limiter.acquire(2)
    cache.get_or_execute("k", lambda _: b"before")

    def child() -> bytes:
        with breaker.acquire():
            limiter.acquire(1)
        return cache.get_or_execute("k", lambda _: b"after") + b" %d" % limiter.available

    assert in_child(child) == b"before 2"
    assert limiter.available == 3


def test_a_childs_random_numbers_are_its_own() -> None:
    def numbers() -> bytes:
        return b" ".join(b"%d" % _ffi.lib.agr_random() for _ in range(4))

    drawn = [in_child(numbers), in_child(numbers), numbers()]
    assert len(set(drawn)) == 3


def test_a_fork_while_threads_are_busy_leaves_the_child_able_to_work() -> None:
    limiter, stop = RateLimiter(10**9, 10**8), threading.Event()

    def busy(_: int) -> None:
        while not stop.is_set():
            limiter.try_acquire()
            RateLimiter(1, 1).close()

    threads = [threading.Thread(target=busy, args=(index,)) for index in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(10):
            assert in_child(lambda: b"%d" % limiter.try_acquire() + b"%d" % os.getpid()).startswith(b"1")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
