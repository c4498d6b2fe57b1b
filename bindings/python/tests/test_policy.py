# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import math
from typing import Any

import pytest

from autoglm_reliability import (
    JSON,
    ArgumentError,
    Attempt,
    AttemptOutcome,
    Backoff,
    BreakerState,
    BudgetExhausted,
    CapacityError,
    CircuitBreaker,
    CircuitOpen,
    Component,
    DeadlineExceeded,
    ErrorClass,
    EventKind,
    Fallback,
    IdempotencyCache,
    Jitter,
    Mismatch,
    Mode,
    NeverFits,
    OnFailure,
    Policy,
    Queued,
    RateLimited,
    RateLimiter,
    Reason,
    ReplayedFailure,
    Request,
    Retry,
    RetryBudget,
    StateError,
    StepKind,
    current_attempt,
)
from autoglm_reliability.testing import ManualClock
from helpers import in_threads


class Down(OSError):
    """A transient failure."""


class Status(Exception):
    def __init__(self, status: int, retry_after: float | None = None) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


def plan(**changes: Any) -> Retry:
    backoff = Backoff(jitter=Jitter.NONE, base_delay=0.1, max_attempts=changes.pop("max_attempts", 3))
    return Retry(backoff, **changes)


class Script:
    """A function that does one thing after the other, and counts."""

    def __init__(self, *results: object) -> None:
        self.results = list(results)
        self.attempts: list[Attempt] = []

    def __call__(self, attempt: Attempt) -> Any:
        self.attempts.append(attempt)
        result = self.results[min(len(self.attempts), len(self.results)) - 1]
        if isinstance(result, BaseException):
            raise result
        return result


def test_what_the_function_returns_is_returned(clock: ManualClock) -> None:
    answer = object()
    assert Policy(clock=clock).execute(lambda attempt: answer) is answer


def test_a_transient_failure_is_retried_after_the_backoff(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)
    script = Script(Down("1"), Down("2"), b"third time")
    assert policy.execute(script) == b"third time"
    assert clock.slept == [0.1, 0.2]
    assert [attempt.number for attempt in script.attempts] == [1, 2, 3]


def test_when_the_attempts_are_exhausted_the_last_exception_is_raised(clock: ManualClock) -> None:
    last = Down("3")
    with pytest.raises(Down) as caught:
        Policy(retry=plan(), clock=clock).execute(Script(Down("1"), Down("2"), last))
    assert caught.value is last


@pytest.mark.parametrize("error", [Status(400), TimeoutError("no reply")])
def test_what_must_not_be_repeated_is_not(clock: ManualClock, error: Exception) -> None:
    script = Script(error)
    with pytest.raises(type(error)) as caught:
        Policy(retry=plan(), clock=clock).execute(script)
    assert caught.value is error
    assert len(script.attempts) == 1


def test_a_servers_hint_is_followed_and_one_too_long_ends_the_call(clock: ManualClock) -> None:
    policy = Policy(retry=plan(server_delay_spread=0, max_server_delay=10), clock=clock)
    assert policy.execute(Script(Status(429, retry_after=7), b"")) == b""
    assert clock.slept == [7.0]
    with pytest.raises(Status) as caught:
        policy.execute(Script(Status(429, retry_after=11)))
    assert caught.value.retry_after == 11


def test_the_attempt_may_carry_the_hint_itself(clock: ManualClock) -> None:
    policy = Policy(retry=plan(server_delay_spread=0), clock=clock)

    def fails(attempt: Attempt) -> bytes:
        if attempt.number == 1:
            attempt.report_server_delay(4)
            raise Down("later")
        return b"now"

    assert policy.execute(fails) == b"now"
    assert clock.slept == [4.0]


def test_the_retry_budget_bounds_the_retries(clock: ManualClock) -> None:
    budget = RetryBudget(ratio=0, min_per_second=0, quota=1, initial=1, clock=clock)
    policy = Policy(retry=plan(max_attempts=9), budget=budget, clock=clock)
    cause = Down("2")
    with pytest.raises(BudgetExhausted) as caught:
        policy.execute(Script(Down("1"), cause))
    assert caught.value.__cause__ is cause
    assert caught.value.component is Component.BUDGET


def test_the_deadline_covers_attempts_and_waits(clock: ManualClock) -> None:
    policy = Policy(retry=plan(max_attempts=0), clock=clock)
    script = Script(Down("again"))
    with pytest.raises((DeadlineExceeded, Down)) as caught:
        policy.execute(script, timeout=1)
    assert isinstance(caught.value, DeadlineExceeded)
    assert isinstance(caught.value, TimeoutError)
    assert sum(clock.slept) <= 1
    assert script.attempts[0].timeout == 1.0
    assert script.attempts[1].timeout == pytest.approx(0.9)


@pytest.mark.parametrize("field", ["timeout", "deadline"])
def test_a_deadline_that_is_over_refuses_the_first_attempt(clock: ManualClock, field: str) -> None:
    script = Script(b"")
    with pytest.raises(DeadlineExceeded):
        Policy(clock=clock).execute(script, **{field: 0})
    assert script.attempts == []


def test_no_deadline_is_for_ever(clock: ManualClock) -> None:
    script = Script(b"")
    Policy(total_timeout=math.inf, clock=clock).execute(script)
    assert script.attempts[0].timeout == math.inf
    Policy(clock=clock).execute(script, timeout=math.inf)
    assert script.attempts[1].timeout > 10**9


def test_a_limiter_refuses_or_makes_wait(clock: ManualClock) -> None:
    limiter = RateLimiter(1, 1, clock=clock)
    refusing = Policy(limiters=[limiter], clock=clock)
    assert refusing.execute(Script(b"a")) == b"a"
    with pytest.raises(RateLimited) as caught:
        refusing.execute(Script(b"b"))
    assert caught.value.retry_after == 1.0
    assert caught.value.component is Component.LIMITER
    waiting = Policy(limiters=[limiter], max_limiter_wait=5, clock=clock)
    assert waiting.execute(Script(b"c")) == b"c"
    assert clock.slept == [1.0]


def test_every_limiter_is_charged_its_cost_and_settled_by_the_real_one(clock: ManualClock) -> None:
    requests, tokens = RateLimiter(10, 0, clock=clock), RateLimiter(1000, 0, clock=clock)
    policy = Policy(limiters=[requests, tokens], clock=clock)

    def call(attempt: Attempt) -> bytes:
        assert (requests.available, tokens.available) == (9, 400)
        attempt.report_costs(None, 250)
        return b""

    policy.execute(call, costs=[1, 600])
    assert (requests.available, tokens.available) == (9, 750)
    with pytest.raises(NeverFits):
        policy.execute(call, costs=[1, 1001])


def test_an_open_breaker_refuses_and_failures_open_it(clock: ManualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=2, open=5, open_jitter=0, clock=clock)
    policy = Policy(retry=plan(max_attempts=2), breaker=breaker, clock=clock)
    with pytest.raises(Down):
        policy.execute(Script(Down("1")))
    assert breaker.state is BreakerState.OPEN
    script = Script(b"")
    with pytest.raises(CircuitOpen) as caught:
        policy.execute(script)
    assert caught.value.retry_after == pytest.approx(4.9, abs=0.2)
    assert script.attempts == []


def test_an_open_breaker_can_be_waited_for(clock: ManualClock) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, open=0.05, open_jitter=0, clock=clock)
    policy = Policy(retry=plan(), breaker=breaker, retry_when_open=True, clock=clock)
    assert policy.execute(Script(Down("1"), b"later")) == b"later"


def test_a_key_executes_once_and_is_replayed(clock: ManualClock) -> None:
    policy = Policy(idempotency=IdempotencyCache(clock=clock), clock=clock)
    script = Script(b"first", b"second")
    assert policy.execute(script, key="k", fingerprint="a") == b"first"
    assert policy.execute(script, key="k", fingerprint="a") == b"first"
    with pytest.raises(Mismatch):
        policy.execute(script, key="k", fingerprint="b")
    assert len(script.attempts) == 1
    assert script.attempts[0].step.fence > 0


def test_a_key_makes_it_safe_to_repeat_what_had_no_reply(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), idempotency=IdempotencyCache(clock=clock), clock=clock)
    script = Script(TimeoutError(), b"done")
    assert policy.execute(script, key="k") == b"done"
    assert len(script.attempts) == 2


def test_a_failure_can_be_the_keys_result(clock: ManualClock) -> None:
    cache = IdempotencyCache(on_failure=OnFailure.KEEP, clock=clock)
    policy = Policy(idempotency=cache, clock=clock)
    with pytest.raises(Status):
        policy.execute(Script(Status(400)), key="k")
    with pytest.raises(ReplayedFailure) as caught:
        policy.execute(Script(b"never"), key="k")
    assert caught.value.data == b"Status: 400"


def test_values_pass_through_a_codec(clock: ManualClock) -> None:
    policy = Policy(idempotency=IdempotencyCache(clock=clock), codec=JSON, clock=clock)
    assert policy.execute(Script({"a": [1, None]}), key="k") == {"a": [1, None]}
    assert policy.execute(Script("never"), key="k") == {"a": [1, None]}


@pytest.mark.parametrize("value", ["text", 7, None])
def test_a_value_that_cannot_be_kept_is_said_and_not_executed_again(
    clock: ManualClock, value: object
) -> None:
    cache = IdempotencyCache(clock=clock)
    policy = Policy(idempotency=cache, retry=plan(), clock=clock)
    script = Script(value)
    with pytest.raises(TypeError):
        policy.execute(script, key="k")
    assert len(script.attempts) == 1
    assert policy.execute(script) is value
    assert policy.begin(key="k").step.outcome_unknown


def test_threads_join_one_run_and_wait_for_it_rather_than_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    def sleep(*_: object) -> None:
        raise AssertionError("a join is a wait for the run, not for a time")

    monkeypatch.setattr("autoglm_reliability._drive.sleep", sleep)
    policy = Policy(idempotency=IdempotencyCache())
    runs = []

    def run(attempt: Attempt) -> bytes:
        while policy.snapshot().calls_alive < 6:
            pass
        runs.append(attempt)
        return b"once"

    assert in_threads(6, lambda _: policy.execute(run, key="k")) == [b"once"] * 6
    assert len(runs) == 1


@pytest.mark.parametrize(
    ("fallback", "wanted"),
    [(Fallback.DEFAULT, b"default"), (Fallback.CACHED, b"fresh"), (Fallback.CACHED_OR_DEFAULT, b"fresh")],
)
def test_a_fallback_takes_the_place_of_a_failure(
    clock: ManualClock, fallback: Fallback, wanted: bytes
) -> None:
    policy = Policy(fallback=fallback, fallback_data=b"default", cached_entries=8, clock=clock)
    assert policy.execute(Script(b"fresh"), cache_key="c") == b"fresh"
    assert policy.execute(Script(Down("gone")), cache_key="c") == wanted
    policy.set_fallback(Fallback.NONE)
    with pytest.raises(Down):
        policy.execute(Script(Down("gone")), cache_key="c")
    policy.set_fallback(Fallback.QUEUE)
    with pytest.raises(Queued) as caught:
        policy.execute(Script(Down("gone")), cache_key="c")
    assert isinstance(caught.value.__cause__, Down)


def test_after_the_commit_a_failure_is_final(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)
    attempts = []

    def streams(attempt: Attempt) -> bytes:
        attempts.append(attempt)
        attempt.commit()
        raise Down("in mid-stream")

    with pytest.raises(Down, match="mid-stream"):
        policy.execute(streams)
    assert len(attempts) == 1


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_an_interruption_passes_through_and_counts_nowhere(
    clock: ManualClock, error: type[BaseException]
) -> None:
    breaker = CircuitBreaker(consecutive_failures=1, clock=clock)
    limiter = RateLimiter(5, 0, clock=clock)
    policy = Policy(
        retry=plan(), breaker=breaker, limiters=[limiter], fallback=Fallback.DEFAULT,
        fallback_data=b"x", clock=clock,
    )  # fmt: skip
    script = Script(error())
    with pytest.raises(error):
        policy.execute(script)
    assert breaker.state is BreakerState.CLOSED
    assert len(script.attempts) == 1
    assert policy.snapshot().calls_alive == 0


def test_an_interruption_is_not_for_a_classifier_to_keep(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), classify=lambda error: ErrorClass.TRANSIENT, clock=clock)
    script = Script(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        policy.execute(script)
    assert len(script.attempts) == 1


def test_an_interrupted_wait_abandons_the_call() -> None:
    class Interrupting(ManualClock):
        def sleep(self, duration: float) -> None:
            raise KeyboardInterrupt

    policy = Policy(retry=plan(), clock=Interrupting())
    with pytest.raises(KeyboardInterrupt):
        policy.execute(Script(Down("1")))
    assert policy.snapshot().abandoned == 1
    assert policy.snapshot().calls_alive == 0


def test_how_exceptions_and_values_are_classified_can_be_said(clock: ManualClock) -> None:
    def verdict(value: dict[str, int]) -> AttemptOutcome | None:
        return AttemptOutcome.http(value["status"])

    policy = Policy(
        retry=plan(),
        classify=lambda error: ErrorClass.PERMANENT,
        classify_result=verdict,
        clock=clock,
    )
    script = Script(Down("no retry"))
    with pytest.raises(Down):
        policy.execute(script)
    assert len(script.attempts) == 1
    assert policy.execute(Script({"status": 502}, {"status": 200})) == {"status": 200}
    assert policy.execute(Script({"status": 502})) == {"status": 502}
    assert policy.execute(Script({"status": 404})) == {"status": 404}


def test_a_classifier_that_fails_ends_the_call(clock: ManualClock) -> None:
    def broken(error: BaseException) -> ErrorClass:
        raise ZeroDivisionError

    policy = Policy(retry=plan(), classify=broken, clock=clock)
    with pytest.raises(ZeroDivisionError):
        policy.execute(Script(Down("1")))
    assert policy.snapshot().calls_alive == 0


def test_a_decorated_function_is_guarded_and_knows_its_attempt(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), idempotency=IdempotencyCache(clock=clock), codec=JSON, clock=clock)
    seen = []

    @policy
    def plain(a: int, *, b: int) -> int:
        attempt = current_attempt()
        assert attempt is not None
        seen.append(attempt.number)
        if attempt.number == 1:
            raise Down("once")
        return a + b

    @policy.guard(key=lambda order: f"order-{order}", trace_id="t")
    def keyed(order: int) -> int:
        seen.append(order)
        return order * 2

    assert plain(1, b=2) == 3
    assert (keyed(4), keyed(4), keyed(5)) == (8, 8, 10)
    assert seen == [1, 2, 4, 5]
    assert current_attempt() is None
    with pytest.raises(TypeError, match="generator"):
        policy(lambda: (yield))


def test_a_call_can_be_driven_by_hand(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)
    with policy.begin(trace_id="by hand") as call:
        assert call.step.kind is StepKind.ATTEMPT
        step = call.advance(AttemptOutcome.failure())
        assert (step.kind, step.reason, step.wait) == (StepKind.WAIT, Reason.BACKOFF, 0.1)
        clock.advance(0.05)
        assert call.advance().wait == pytest.approx(0.05)
        with pytest.raises(StateError):
            call.advance(AttemptOutcome.success())
        clock.advance(0.05)
        assert call.advance().kind is StepKind.ATTEMPT
        with pytest.raises(StateError):
            call.advance()
        late = AttemptOutcome(ErrorClass.SUCCESS, attempt_id=call.step.attempt_id + 7)
        assert call.advance(late).kind is StepKind.ATTEMPT
        assert call.stale
        call.commit()
        call.advance(AttemptOutcome.success(b"done"))
        assert call.done
        assert not call.stale
        assert call.step.reason is Reason.SUCCEEDED
        with pytest.raises(StateError):
            call.commit()


def test_a_call_is_an_iteration_over_its_steps(clock: ManualClock) -> None:
    kinds = []
    with Policy(retry=plan(max_attempts=2), clock=clock).call() as call:
        for step in call:
            kinds.append(step.kind)
            if step.kind is StepKind.ATTEMPT:
                call.advance(AttemptOutcome.failure())
            else:
                clock.advance(0 if step.done else step.wait)
    assert kinds == [StepKind.ATTEMPT, StepKind.WAIT, StepKind.ATTEMPT, StepKind.DONE]
    with Policy(clock=clock).call() as call, pytest.raises(StateError, match="advance"):
        list(call)


def test_leaving_a_call_abandons_it_and_gives_everything_back(clock: ManualClock) -> None:
    limiter = RateLimiter(5, 0, clock=clock)
    policy = Policy(limiters=[limiter], idempotency=IdempotencyCache(clock=clock), clock=clock)
    with policy.begin(key="k"):
        assert limiter.available == 4
    assert limiter.available == 5
    assert policy.snapshot().abandoned == 1
    assert policy.begin(key="k").step.outcome_unknown


def test_calls_alive_are_bounded(clock: ManualClock) -> None:
    policy = Policy(max_calls=1, clock=clock)
    with policy.begin():
        with pytest.raises(CapacityError):
            policy.begin()
        assert policy.snapshot().calls_alive == 1
    assert policy.begin().step.kind is StepKind.ATTEMPT


def test_a_part_can_be_observed_or_switched_off_while_in_use(clock: ManualClock) -> None:
    limiter = RateLimiter(1, 0, clock=clock)
    policy = Policy(limiters=[limiter], observe=[Component.LIMITER], clock=clock)
    assert [policy.execute(Script(b"")) for _ in range(3)] == [b""] * 3
    assert policy.snapshot().observed == 2
    policy.set_mode(Component.LIMITER, Mode.ENFORCE)
    with pytest.raises(RateLimited):
        policy.execute(Script(b""))
    policy.set_mode(Component.LIMITER, Mode.OFF)
    assert policy.execute(Script(b"")) == b""
    with pytest.raises(ArgumentError, match="component"):
        policy.set_mode(Component.BREAKER, Mode.OFF)
    with pytest.raises(ArgumentError, match="mode"):
        policy.set_mode(Component.LIMITER, 9)  # type: ignore[arg-type]


def test_the_order_may_be_said_when_it_is_the_standard_one(clock: ManualClock) -> None:
    order = [Component.RETRY, Component.BREAKER]
    policy = Policy(retry=plan(), breaker=CircuitBreaker(clock=clock), order=order, clock=clock)
    assert policy.execute(Script(b"")) == b""


def test_events_tell_what_happened(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)
    reader = policy.events()
    policy.execute(Script(Status(502), b"done"), trace_id="trace-7", priority=3)
    events = list(reader)
    assert [event.kind for event in events][-1] is EventKind.DONE
    retry = next(event for event in events if event.kind is EventKind.RETRY)
    assert (retry.code, retry.backoff, retry.trace_id, retry.priority) == (502, 0.1, "trace-7", 3)
    told = json.loads(retry.json)
    assert (told["event"], told["trace_id"], told["attempt"]) == ("retry", "trace-7", 1)
    assert list(reader) == []
    assert reader.lost == 0


def test_lost_events_are_counted(clock: ManualClock) -> None:
    policy = Policy(event_capacity=16, clock=clock)
    reader = policy.events()
    for _ in range(100):
        policy.execute(Script(b""))
    kept = list(reader)
    assert len(kept) <= 16
    assert reader.lost > 0


def test_the_snapshot_counts(clock: ManualClock) -> None:
    policy = Policy(retry=plan(), clock=clock)
    policy.execute(Script(Down("1"), b""))
    snapshot = policy.snapshot()
    assert (snapshot.calls, snapshot.attempts, snapshot.retries, snapshot.succeeded) == (1, 2, 1, 1)
    assert snapshot.backoff == 0.1


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        ({"costs": [-1]}, ArgumentError),
        ({"costs": [1] * 5}, ArgumentError),
        ({"timeout": 1, "deadline": 2}, ArgumentError),
        ({"timeout": -1}, ArgumentError),
        ({"priority": 2**40}, ArgumentError),
        ({"key": 7}, TypeError),
        ({"cache_key": b"c" * 1025}, ArgumentError),
        ({"colour": "red"}, TypeError),
    ],
)
def test_a_bad_request_is_refused(clock: ManualClock, fields: dict[str, Any], error: type[Exception]) -> None:
    limiter = RateLimiter(5, 1, clock=clock)
    policy = Policy(limiters=[limiter], cached_entries=4, clock=clock)
    with pytest.raises(error):
        policy.begin(**fields)
    assert policy.snapshot().calls_alive == 0


def test_a_request_may_be_made_beforehand(clock: ManualClock) -> None:
    policy = Policy(clock=clock)
    request = Request(trace_id="t")
    assert policy.execute(Script(b"x"), request) == b"x"
    with pytest.raises(TypeError, match="exclude"):
        policy.execute(Script(b"x"), request, trace_id="u")
