# SPDX-License-Identifier: Apache-2.0
"""The paths which are made short for objects on the system's clock answer as the long ones do."""

from __future__ import annotations

import asyncio
import gc
import math
import sys
import threading
import weakref
from typing import Any, Callable

import pytest

from autoglm_reliability import (
    ArgumentError,
    Attempt,
    AttemptOutcome,
    Backoff,
    BreakerState,
    CapacityError,
    CircuitBreaker,
    CircuitOpen,
    ClosedError,
    ErrorClass,
    KeyedRateLimiter,
    NeverFits,
    Permit,
    Policy,
    RateLimited,
    RateLimiter,
    Window,
    current_attempt,
)
from helpers import collect, in_threads

WRONG_TOKENS: list[tuple[Any, type[Exception]]] = [
    (1.0, TypeError),
    ("1", TypeError),
    (None, TypeError),
    (object(), TypeError),
    (-1, ArgumentError),
    (2**63, ArgumentError),
    (-(2**70), ArgumentError),
    (11, NeverFits),
]


class Whole:
    """What operator.index takes."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


@pytest.mark.parametrize(("tokens", "error"), WRONG_TOKENS)
def test_tokens_that_cannot_be_are_refused_by_name(tokens: Any, error: type[Exception]) -> None:
    limiter, keyed = RateLimiter(10, 0), KeyedRateLimiter(10, 1, refill_interval=3600)
    for take in (limiter.try_acquire, lambda n: keyed.try_acquire("k", n)):
        with pytest.raises(error, match="tokens"):
            take(tokens)
    with pytest.raises(error, match="tokens"):
        limiter.try_acquire(tokens=tokens)
    assert (limiter.available, keyed.available("k")) == (10, 10)


def test_tokens_may_be_given_in_any_way() -> None:
    limiter, keyed = RateLimiter(10, 0), KeyedRateLimiter(10, 1, refill_interval=3600)
    given: list[Any] = [True, 2, Whole(3)]
    for tokens in given:
        assert limiter.try_acquire(tokens)
        assert keyed.try_acquire("k", tokens)
    assert limiter.try_acquire(tokens=3)
    assert keyed.try_acquire(tokens=3, key="k")
    assert limiter.try_acquire()
    assert keyed.try_acquire("k")
    assert (limiter.available, keyed.available("k")) == (0, 0)
    assert not limiter.try_acquire()
    assert not keyed.try_acquire(key="k")
    assert limiter.try_acquire(0)
    assert (limiter.snapshot().refused, keyed.snapshot().refused) == (1, 1)


@pytest.mark.parametrize("arguments", [(1, 2), (1, 2, 3)])
def test_too_many_arguments_are_a_type_error(arguments: tuple[int, ...]) -> None:
    limiter: Any = RateLimiter(10, 0)
    keyed: Any = KeyedRateLimiter(10, 1)
    with pytest.raises(TypeError):
        limiter.try_acquire(*arguments)
    with pytest.raises(TypeError):
        limiter.try_acquire(coins=1)
    with pytest.raises(TypeError):
        keyed.try_acquire("k", *arguments)
    with pytest.raises(TypeError):
        keyed.try_acquire()
    with pytest.raises(TypeError):
        CircuitBreaker().acquire(*arguments)
    assert limiter.available == 10


def test_keys_may_be_text_or_any_bytes() -> None:
    keyed = KeyedRateLimiter(4, 1, refill_interval=3600)
    keys: list[Any] = ["ä\0b", "ä\0b".encode(), bytearray("ä\0b".encode()), memoryview("ä\0b".encode())]
    assert [keyed.try_acquire(key) for key in [*keys, keys[0]]] == [True] * 4 + [False]
    assert keyed.try_acquire("")


@pytest.mark.parametrize("key", [1, None, object(), ["k"]])
def test_a_key_of_another_type_is_a_type_error(key: Any) -> None:
    with pytest.raises(TypeError, match="key"):
        KeyedRateLimiter(1, 1).try_acquire(key)


def test_a_key_that_cannot_be_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        KeyedRateLimiter(1, 1).try_acquire("\ud800")
    with pytest.raises(ArgumentError, match="key"):
        KeyedRateLimiter(1, 1, max_key_bytes=4).try_acquire("12345")


def test_a_key_without_a_place_is_counted_once() -> None:
    keyed = KeyedRateLimiter(1, 1, refill_interval=3600, max_keys=1)
    refused = 0
    for number in range(64):
        try:
            keyed.try_acquire(f"key {number}")
        except CapacityError:
            refused += 1
    assert refused > 0
    assert keyed.snapshot().no_place == refused


def test_a_limiter_whose_constructor_did_not_run_is_no_limiter() -> None:
    for kind in (RateLimiter, KeyedRateLimiter):
        with pytest.raises((AttributeError, ClosedError)):
            kind.__new__(kind).try_acquire(*("k",) * (kind is KeyedRateLimiter))
    with pytest.raises((AttributeError, ClosedError)):
        CircuitBreaker.__new__(CircuitBreaker).acquire()


def test_methods_belong_to_their_own_class() -> None:
    method: Any = RateLimiter.try_acquire
    for other in (object(), None):
        with pytest.raises((TypeError, AttributeError)):
            method(other)


def test_a_subclass_may_do_more() -> None:
    class Counting(RateLimiter):
        asked = 0

        def try_acquire(self, tokens: int = 1) -> bool:
            self.asked += 1
            return super().try_acquire(tokens)

    limiter = Counting(1, 0)
    assert [limiter.try_acquire(), limiter.try_acquire()] == [True, False]
    assert limiter.asked == 2


def test_what_another_thread_closes_is_closed() -> None:
    limiter, keyed, breaker = RateLimiter(10**9, 1), KeyedRateLimiter(10**9, 10**6), CircuitBreaker()
    policy = Policy()
    guarded = policy(lambda: None)
    calls = [
        limiter.try_acquire,
        lambda: keyed.try_acquire("k"),
        lambda: breaker.acquire().success(),
        guarded,
    ]
    started = threading.Barrier(len(calls) + 1)

    def use(index: int) -> bool:
        if index == len(calls):
            started.wait()
            for thing in (limiter, keyed, breaker, policy):
                thing.close()
            return True
        calls[index]()
        started.wait()
        with pytest.raises(ClosedError):
            while True:
                calls[index]()
        return True

    assert all(in_threads(len(calls) + 1, use))


@pytest.mark.parametrize("tokens", [1, 3])
def test_tokens_that_are_there_are_taken_at_once_and_none_is_reserved(tokens: int) -> None:
    limiter, keyed = RateLimiter(9, 0, max_reservations=1), KeyedRateLimiter(9, 1, refill_interval=3600)
    limiter.acquire(tokens)
    asyncio.run(limiter.acquire_async(tokens))
    keyed.acquire("k", tokens)
    asyncio.run(keyed.acquire_async(b"k", tokens))
    assert (limiter.available, keyed.available("k")) == (9 - 2 * tokens, 9 - 2 * tokens)
    assert (limiter.snapshot().open_reservations, keyed.snapshot().open_reservations) == (0, 0)
    assert (limiter.snapshot().refused, keyed.snapshot().refused) == (0, 0)


def test_tokens_that_can_never_come_are_refused() -> None:
    limiter = RateLimiter(5, 0)
    limiter.acquire(5)
    for timeout in (math.inf, 3600, 0):
        with pytest.raises(RateLimited) as caught:
            limiter.acquire(1, timeout)
        assert caught.value.retry_after == math.inf
        with pytest.raises(RateLimited):
            asyncio.run(limiter.acquire_async(timeout=timeout))
    assert limiter.snapshot().refused == 6


def test_tokens_that_come_are_waited_for_and_counted_as_admitted() -> None:
    limiter, keyed = RateLimiter(1, 1000), KeyedRateLimiter(1, 1000)
    for _ in range(3):
        limiter.acquire()
        keyed.acquire("k")
        asyncio.run(limiter.acquire_async())
        asyncio.run(keyed.acquire_async("k"))
    assert (limiter.snapshot().refused, keyed.snapshot().refused) == (0, 0)
    assert (limiter.snapshot().open_reservations, keyed.snapshot().open_reservations) == (0, 0)


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        (("1",), TypeError, "tokens"),
        ((-1,), ArgumentError, "tokens"),
        ((11,), NeverFits, "tokens"),
        ((1, "soon"), TypeError, "timeout"),
        ((1, -1), ArgumentError, "timeout"),
        ((1, math.nan), ArgumentError, "timeout"),
        ((1, -math.inf), ArgumentError, "timeout"),
    ],
)
def test_what_cannot_be_waited_for_is_refused_by_name(
    arguments: tuple[Any, ...], error: type[Exception], name: str
) -> None:
    limiter, keyed = RateLimiter(10, 0), KeyedRateLimiter(10, 1, refill_interval=3600)
    with pytest.raises(error, match=name):
        limiter.acquire(*arguments)
    with pytest.raises(error, match=name):
        asyncio.run(limiter.acquire_async(*arguments))
    with pytest.raises(error, match=name):
        keyed.acquire("k", *arguments)
    with pytest.raises(error, match=name):
        asyncio.run(keyed.acquire_async("k", *arguments))
    assert (limiter.available, keyed.available("k")) == (10, 10)


def test_reservations_are_bounded_for_those_who_take_at_once_too() -> None:
    limiter = RateLimiter(10, 0, max_reservations=1)
    hold = limiter.reserve()
    with pytest.raises(CapacityError, match="max_reservations"):
        asyncio.run(limiter.acquire_async())
    limiter.acquire()  # by a wait of the library's, which needs none
    hold.cancel()
    asyncio.run(limiter.acquire_async())
    assert limiter.available == 8


# ---- the breaker ----


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker(
        consecutive_failures=2, window=Window.NONE, failure_rate=0, open=300, open_jitter=0, max_permits=2
    )


def failing() -> None:
    raise OSError("down")


def test_a_block_is_counted_once_and_its_permit_is_spent(breaker: CircuitBreaker) -> None:
    with breaker.acquire() as permit:
        assert isinstance(permit, Permit)
        assert not permit.reported
    assert permit.reported
    assert not permit.success()
    with permit:
        pass
    with pytest.raises(OSError, match="down"), permit:
        failing()
    assert breaker.snapshot().consecutive_failures == 0


def test_a_block_that_reports_itself_is_not_reported_again(breaker: CircuitBreaker) -> None:
    with breaker.acquire() as permit:
        assert permit.failure()
    assert breaker.snapshot().consecutive_failures == 1


def test_failures_in_blocks_and_functions_open_it(breaker: CircuitBreaker) -> None:
    with pytest.raises(OSError, match="down"), breaker.acquire():
        failing()
    with pytest.raises(OSError, match="down"):
        breaker(failing)()
    assert breaker.state is BreakerState.OPEN
    for attempt in (breaker.acquire, breaker(failing), breaker.guard):
        with pytest.raises(CircuitOpen) as caught:
            attempt()
        assert caught.value.retry_after == pytest.approx(300, rel=0.01)
    assert breaker.try_acquire() is None
    assert breaker.snapshot().refused == 4


def test_a_permit_may_have_a_reading_of_its_own(breaker: CircuitBreaker) -> None:
    seen: list[BaseException] = []

    def neutral(error: BaseException) -> ErrorClass:
        assert sys.exc_info()[1] is error
        seen.append(error)
        return ErrorClass.PERMANENT

    for _ in range(3):
        with pytest.raises(OSError, match="down"), breaker.acquire(classify=neutral):
            failing()
    assert len(seen) == 3
    assert breaker.state is BreakerState.CLOSED


def test_the_breakers_reading_is_asked_while_the_exception_is_handled() -> None:
    seen: list[BaseException | None] = []

    def reading(error: BaseException) -> ErrorClass:
        seen.append(sys.exc_info()[1])
        return ErrorClass.TRANSIENT

    with pytest.raises(OSError, match="down") as caught:
        CircuitBreaker(classify=reading)(failing)()
    assert seen == [caught.value]


def test_places_come_back_whatever_happens(breaker: CircuitBreaker) -> None:
    held = [breaker.acquire(), breaker.acquire()]
    for attempt in (breaker.acquire, breaker(failing)):
        with pytest.raises(CapacityError, match="max_permits"):
            attempt()
    del held
    collect()
    for _ in range(5):
        breaker.acquire()  # dropped at once
        with breaker.acquire():
            breaker(lambda: None)()
    assert breaker.snapshot().consecutive_failures == 0


def test_a_slow_call_is_seen_to_be_slow() -> None:
    breaker = CircuitBreaker(failure_rate=0, slow_rate=1, slow_call=1e-9, minimum_calls=2)
    with breaker.acquire():
        pass
    breaker(lambda: None)()
    assert breaker.state is BreakerState.OPEN


def test_a_breaker_closed_inside_its_block_lets_it_end(breaker: CircuitBreaker) -> None:
    @breaker
    def closes() -> int:
        breaker.close()
        return 5

    assert closes() == 5
    with pytest.raises(ClosedError):
        closes()


def test_cycles_through_permits_and_attempts_are_collected() -> None:
    def cycles() -> list[weakref.ref[Any]]:
        breaker, policy, attempts = CircuitBreaker(), Policy(), []
        vars(breaker)["kept"] = breaker.acquire()
        policy.execute(attempts.append)
        vars(policy)["kept"] = attempts
        return [weakref.ref(breaker), weakref.ref(policy)]

    gone = cycles()
    collect()
    assert [reference() for reference in gone] == [None, None]


def test_a_decorated_function_passes_everything_on(breaker: CircuitBreaker) -> None:
    class Service:
        @breaker
        def method(self, *arguments: Any, **keywords: Any) -> tuple[Any, ...]:
            """Said by the service."""
            return self, arguments, keywords

    service = Service()
    assert service.method(1, 2, a=3) == (service, (1, 2), {"a": 3})
    assert service.method() == (service, (), {})
    assert Service.method.__doc__ == "Said by the service."


def test_a_subclass_that_acquires_in_its_own_way_is_asked() -> None:
    class Refusing(CircuitBreaker):
        def acquire(self, **_: Any) -> Permit:
            raise CircuitOpen("by hand")

    with pytest.raises(CircuitOpen, match="by hand"):
        Refusing()(lambda: None)()


def test_a_function_that_calls_itself_without_end_is_stopped() -> None:
    breaker, policy = CircuitBreaker(failure_rate=0, consecutive_failures=10**6), Policy(max_calls=4096)

    @breaker
    @policy
    def again() -> None:
        again()

    try:
        again()
    except RecursionError as error:
        assert "recursion" in str(error)
    else:
        pytest.fail("it ended")
    # What had no stack left to end by itself ends with the exception's frames.
    collect()
    assert policy.snapshot().calls_alive == 0
    assert policy.execute(lambda _: 5) == 5
    assert breaker.acquire().success()


# ---- the policy ----


@pytest.fixture
def policy() -> Policy:
    return Policy(retry=Backoff(max_attempts=3, base_delay=0))


def test_what_is_returned_comes_back_as_it_is(policy: Policy) -> None:
    answer = object()
    assert policy.execute(lambda attempt: answer) is answer
    assert policy(lambda *arguments, **keywords: (arguments, keywords))(1, b=2) == ((1,), {"b": 2})
    assert policy(lambda: None)() is None
    assert policy.snapshot().succeeded == 3
    assert policy.snapshot().calls_alive == 0


def test_the_attempt_is_there_while_it_runs_and_no_longer(policy: Policy) -> None:
    seen: list[Attempt | None] = []

    @policy
    def inner() -> None:
        seen.append(current_attempt())

    def outer(attempt: Attempt) -> None:
        assert current_attempt() is attempt
        inner()
        assert current_attempt() is attempt

    policy.execute(outer)
    assert current_attempt() is None
    (attempt,) = seen
    assert attempt is not None
    assert (attempt.number, attempt.step.attempt, attempt.costs, attempt.server_delay) == (1, 1, (), None)
    assert 0 < attempt.timeout <= 60
    assert attempt.step.remaining == attempt.timeout
    assert attempt.step.connect_timeout == 3
    with pytest.raises(ClosedError):
        attempt.commit()


def test_a_failure_is_retried_and_the_last_one_raised(policy: Policy) -> None:
    numbers: list[int] = []

    @policy
    def fails(limit: int, *, name: str) -> str:
        attempt = current_attempt()
        assert attempt is not None
        numbers.append(attempt.number)
        if len(numbers) < limit:
            raise OSError(f"number {len(numbers)}")
        return name

    assert fails(3, name="third") == "third"
    numbers.clear()
    with pytest.raises(OSError, match="number 3"):
        fails(9, name="never")
    assert numbers == [1, 2, 3]
    snapshot = policy.snapshot()
    assert (snapshot.attempts, snapshot.retries, snapshot.calls_alive) == (6, 4, 0)


def test_the_first_failure_is_read_while_it_is_handled() -> None:
    seen: list[BaseException | None] = []

    def reading(error: BaseException) -> AttemptOutcome:
        seen.append(sys.exc_info()[1])
        return AttemptOutcome(ErrorClass.PERMANENT)

    with pytest.raises(OSError, match="down") as caught:
        Policy(classify=reading)(failing)()
    assert seen == [caught.value]
    assert caught.value.__context__ is None
    assert caught.value.__traceback__ is not None
    assert any(entry.name == "failing" for entry in caught.traceback)


def test_interruption_passes_and_ends_the_call(policy: Policy) -> None:
    def interrupted(attempt: Attempt) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        policy.execute(interrupted)
    assert policy.snapshot().calls_alive == 0
    assert policy.snapshot().attempts == 1


def test_a_commit_makes_the_first_failure_final(policy: Policy) -> None:
    def commits(attempt: Attempt) -> None:
        attempt.commit()
        raise OSError("after the first byte")

    with pytest.raises(OSError, match="first byte"):
        policy.execute(commits)
    assert policy.snapshot().attempts == 1
    assert policy.execute(lambda attempt: attempt.commit()) is None


def test_a_real_cost_is_settled() -> None:
    limiter = RateLimiter(10, 0)
    policy = Policy(limiters=[limiter])

    def costs(attempt: Attempt) -> None:
        attempt.report_costs(4)

    policy.execute(costs)
    assert limiter.available == 6
    policy(lambda: None)()
    assert limiter.available == 5


def test_a_refusal_comes_before_the_function() -> None:
    policy = Policy(limiters=[RateLimiter(1, 0)])
    ran: list[int] = []
    guarded = policy(lambda: ran.append(1))
    guarded()
    for call in (guarded, lambda: policy.execute(lambda _: ran.append(2))):
        with pytest.raises(RateLimited) as caught:
            call()
        assert caught.value.retry_after == math.inf
    assert ran == [1]


def test_a_value_can_be_a_failure() -> None:
    policy = Policy(
        retry=Backoff(max_attempts=3, base_delay=0),
        classify_result=lambda value: ErrorClass.TRANSIENT if value < 3 else None,
    )
    values = iter([1, 2, 3])
    assert policy(lambda: next(values))() == 3


def test_calls_in_flight_are_bounded() -> None:
    policy = Policy(max_calls=1)

    def nested(attempt: Attempt) -> None:
        policy.execute(lambda _: None)

    with pytest.raises(CapacityError):
        policy.execute(nested)
    assert policy.snapshot().calls_alive == 0
    assert policy.execute(lambda _: 5) == 5


def test_a_policy_closed_inside_its_call_lets_it_end(policy: Policy) -> None:
    @policy
    def closes() -> int:
        policy.close()
        return 5

    assert closes() == 5
    with pytest.raises(ClosedError):
        closes()


def test_a_subclass_that_begins_in_its_own_way_is_asked() -> None:
    class Keyed(Policy):
        begun = 0

        def begin(self, *arguments: Any, **fields: Any) -> Any:
            self.begun += 1
            return super().begin(*arguments, **fields)

    policy = Keyed()
    assert policy(lambda: 1)() == policy.execute(lambda _: 1) == 1
    assert policy.begun == 2


def test_what_is_not_a_function_is_a_type_error(policy: Policy) -> None:
    wrong: Any = 5
    with pytest.raises(TypeError):
        policy.execute(wrong)
    with pytest.raises(TypeError):
        policy(wrong)
    assert policy.snapshot().calls_alive == 0


@pytest.mark.parametrize(
    "say", [lambda attempt: None, lambda attempt: attempt.report_costs(1), lambda attempt: attempt.commit()]
)
def test_a_value_belongs_to_the_caller_alone(policy: Policy, say: Callable[[Attempt], object]) -> None:
    class Value:
        pass

    def run(attempt: Attempt) -> Value:
        say(attempt)
        return Value()

    value: Value | None = policy.execute(run)
    reference = weakref.ref(value)
    assert reference() is not None
    del value
    collect()
    assert reference() is None


def test_nothing_is_kept_of_what_went_through(policy: Policy) -> None:
    class Thing:
        pass

    breaker, limiter, keyed = CircuitBreaker(), RateLimiter(10**9, 1), KeyedRateLimiter(10**9, 10**6)
    guarded, broken = policy(lambda thing: thing), breaker(lambda thing: thing)

    def fails(attempt: Attempt) -> None:
        raise OSError(Thing())

    def use() -> None:
        with breaker.acquire():
            limiter.try_acquire()
            limiter.try_acquire(2)
            keyed.try_acquire("text")
            keyed.try_acquire(b"bytes", 2)
        guarded(Thing())
        broken(Thing())
        policy.execute(lambda attempt: attempt)
        for call in (lambda: policy.execute(fails), lambda: limiter.try_acquire(2**40)):
            with pytest.raises((OSError, NeverFits)):
                call()

    for _ in range(3):
        use()
    collect()
    before = len(gc.get_objects()), sys.getrefcount(None), sys.getrefcount(policy)
    for _ in range(50):
        use()
    collect()
    after = len(gc.get_objects()), sys.getrefcount(None), sys.getrefcount(policy)
    assert after[0] - before[0] < 40
    assert abs(after[1] - before[1]) < 40
    assert after[2] == before[2]
