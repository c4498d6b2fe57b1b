# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import math

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoglm_reliability import (
    ArgumentError,
    AttemptOutcome,
    BreakerMode,
    BreakerState,
    CapacityError,
    CircuitBreaker,
    CircuitOpen,
    Component,
    ErrorClass,
    Outcome,
    Permit,
    Preset,
    Window,
)
from autoglm_reliability.testing import ManualClock
from helpers import collect, in_threads


@pytest.fixture
def breaker(clock: ManualClock) -> CircuitBreaker:
    return CircuitBreaker(
        consecutive_failures=3,
        window=Window.NONE,
        failure_rate=0,
        half_open_permits=1,
        open=5,
        open_jitter=0,
        clock=clock,
    )


def trip(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        assert breaker.acquire().failure()


def test_failures_in_a_row_open_it_and_a_success_closes_it(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    trip(breaker)
    assert breaker.state is BreakerState.OPEN
    with pytest.raises(CircuitOpen) as caught:
        breaker.acquire()
    assert (caught.value.retry_after, caught.value.component) == (5.0, Component.BREAKER)
    clock.advance(5)
    assert breaker.state is BreakerState.HALF_OPEN
    probe = breaker.acquire()
    assert breaker.try_acquire() is None
    assert probe.success()
    assert breaker.state is BreakerState.CLOSED


def test_the_failure_rate_opens_it(clock: ManualClock) -> None:
    breaker = CircuitBreaker(failure_rate=0.5, minimum_calls=4, clock=clock)
    for outcome in (Outcome.SUCCESS, Outcome.FAILURE, Outcome.SUCCESS):
        breaker.acquire().report(outcome)
    assert breaker.state is BreakerState.CLOSED
    breaker.acquire().failure()
    assert breaker.state is BreakerState.OPEN


def test_slow_calls_open_it_and_the_latency_is_measured(clock: ManualClock) -> None:
    breaker = CircuitBreaker(failure_rate=0, slow_rate=1, slow_call=2, minimum_calls=2, clock=clock)
    for _ in range(2):
        with breaker.guard():
            clock.advance(2)
    assert breaker.state is BreakerState.OPEN
    assert breaker.events().__iter__().__next__().open_for >= 5


def test_a_block_reports_success_or_what_the_exception_means(breaker: CircuitBreaker) -> None:
    with breaker.guard() as permit:
        assert not permit.reported
    assert permit.reported
    for _ in range(3):
        with pytest.raises(OSError, match="gone"), breaker.acquire():
            raise OSError("gone")
    assert breaker.state is BreakerState.OPEN


@pytest.mark.parametrize(
    "error", [asyncio.CancelledError(), GeneratorExit(), KeyboardInterrupt(), SystemExit()]
)
def test_cancellation_is_neutral(breaker: CircuitBreaker, error: BaseException) -> None:
    for _ in range(5):
        with pytest.raises(type(error)), breaker.acquire():
            raise error
    assert breaker.state is BreakerState.CLOSED
    assert breaker.snapshot().consecutive_failures == 0


def test_a_clients_own_mistake_is_neutral_and_an_overload_is_backpressure(
    breaker: CircuitBreaker,
) -> None:
    class Reply(Exception):
        status_code = 400

    for status in (400, 429) * 5:
        Reply.status_code = status
        with pytest.raises(Reply), breaker.acquire():
            raise Reply
    assert breaker.state is BreakerState.CLOSED


def test_how_an_exception_counts_can_be_said(breaker: CircuitBreaker) -> None:
    def never(_: BaseException) -> AttemptOutcome:
        return AttemptOutcome(ErrorClass.PERMANENT)

    for _ in range(5):
        with pytest.raises(KeyError), breaker.acquire(classify=never):
            raise KeyError
    assert breaker.state is BreakerState.CLOSED


def test_a_permit_counts_once(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    assert permit.failure()
    assert not permit.failure()
    assert not permit.success()
    assert breaker.snapshot().consecutive_failures == 1


def test_threads_that_report_the_same_permit_count_it_once(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    assert sum(in_threads(8, lambda _: permit.failure())) == 1
    assert breaker.snapshot().consecutive_failures == 1


def test_a_bad_report_leaves_the_permit_good(breaker: CircuitBreaker) -> None:
    permit = breaker.acquire()
    with pytest.raises(ArgumentError, match="outcome"):
        permit.report(9)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="latency"):
        permit.success(latency=-1)
    assert permit.success()


def test_a_permit_that_is_dropped_is_neutral_and_wedges_nothing(
    breaker: CircuitBreaker, clock: ManualClock
) -> None:
    trip(breaker)
    clock.advance(5)
    breaker.acquire()
    collect()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.acquire().success()
    assert breaker.state is BreakerState.CLOSED


def test_a_result_from_before_the_trip_changes_nothing(breaker: CircuitBreaker, clock: ManualClock) -> None:
    late = breaker.acquire()
    trip(breaker)
    clock.advance(5)
    assert breaker.state is BreakerState.HALF_OPEN
    assert not late.success()
    assert breaker.state is BreakerState.HALF_OPEN
    assert breaker.snapshot().stale == 1


def test_decorated_functions_and_coroutines_are_guarded(breaker: CircuitBreaker) -> None:
    @breaker
    def fails() -> None:
        raise OSError("down")

    @breaker
    async def fails_too() -> None:
        await asyncio.sleep(0)
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        fails()
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            asyncio.run(fails_too())
    with pytest.raises(CircuitOpen):
        fails()
    with pytest.raises(CircuitOpen):
        asyncio.run(fails_too())
    assert fails.__name__ == "fails"


@pytest.mark.parametrize("mode", list(BreakerMode))
def test_a_mode_is_obeyed(breaker: CircuitBreaker, mode: BreakerMode) -> None:
    breaker.force(mode)
    assert breaker.snapshot().mode is mode
    if mode is BreakerMode.FORCED_OPEN:
        with pytest.raises(CircuitOpen) as caught:
            breaker.acquire()
        assert caught.value.retry_after == math.inf
        return
    trip(breaker)
    assert (breaker.try_acquire() is None) == (mode is BreakerMode.AUTOMATIC)


def test_every_change_of_state_is_told(breaker: CircuitBreaker, clock: ManualClock) -> None:
    reader = breaker.events()
    assert list(reader) == []
    trip(breaker)
    clock.advance(5)
    breaker.acquire().success()
    changes = [(event.from_state, event.to_state) for event in reader]
    assert changes == [
        (BreakerState.CLOSED, BreakerState.OPEN),
        (BreakerState.OPEN, BreakerState.HALF_OPEN),
        (BreakerState.HALF_OPEN, BreakerState.CLOSED),
    ]
    assert list(reader) == []
    assert len(list(breaker.events())) == 3
    assert reader.lost == 0


def test_permits_are_bounded(clock: ManualClock) -> None:
    breaker = CircuitBreaker(max_permits=2, clock=clock)
    held = [breaker.acquire(), breaker.acquire()]
    with pytest.raises(CapacityError):
        breaker.acquire()
    assert all(permit.success() for permit in held)


def test_presets_are_starting_points(clock: ManualClock) -> None:
    assert CircuitBreaker(preset=Preset.DEVELOPMENT).snapshot().mode is BreakerMode.DISABLED
    breaker = CircuitBreaker(preset=Preset.EDGE, open=9, open_jitter=0, clock=clock)
    for _ in range(4):
        breaker.acquire().failure()
    assert breaker.snapshot().retry_after == 9.0
    with pytest.raises(ArgumentError, match="preset"):
        CircuitBreaker(preset=12)  # type: ignore[arg-type]


class BreakerModel(RuleBasedStateMachine):
    """Consecutive failures, a fixed open time, probes: a dozen lines of obvious Python."""

    @initialize(threshold=st.integers(1, 4), permits=st.integers(1, 3), successes=st.integers(1, 4))
    def create(self, threshold: int, permits: int, successes: int) -> None:
        self.clock = ManualClock()
        self.breaker = CircuitBreaker(
            consecutive_failures=threshold,
            window=Window.NONE,
            failure_rate=0,
            half_open_permits=permits,
            half_open_successes=successes,
            open=5,
            open_growth=1,
            open_jitter=0,
            permit_timeout=10**6,
            clock=self.clock,
        )
        self.threshold, self.permits, self.successes = threshold, permits, successes
        self.held: list[tuple[Permit, int]] = []
        self.generation = 0
        self.enter(BreakerState.CLOSED)

    def enter(self, state: BreakerState) -> None:
        self.state = state
        self.generation += 1
        self.failures = self.good = self.probes = 0
        self.until = self.clock() + 5 * 10**9

    def look(self) -> None:
        if self.state is BreakerState.OPEN and self.clock() >= self.until:
            self.enter(BreakerState.HALF_OPEN)

    @rule(milliseconds=st.integers(0, 7000))
    def advance(self, milliseconds: int) -> None:
        self.clock.advance(milliseconds / 1000)

    @rule()
    def acquire(self) -> None:
        self.look()
        permit = self.breaker.try_acquire()
        probing = self.state is BreakerState.HALF_OPEN and self.probes >= self.permits
        if self.state is BreakerState.OPEN or probing:
            assert permit is None
        else:
            assert permit is not None
            self.held.append((permit, self.generation))
            self.probes += 1

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=st.sampled_from(list(Outcome)))
    def report(self, data: st.DataObject, outcome: Outcome) -> None:
        permit, generation = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        counted = permit.report(outcome)
        self.look()
        assert counted == (generation == self.generation)
        if not counted:
            return
        self.probes -= 1
        if outcome is Outcome.FAILURE:
            self.failures += 1
            if self.state is BreakerState.HALF_OPEN or self.failures >= self.threshold:
                self.enter(BreakerState.OPEN)
        elif outcome is Outcome.SUCCESS:
            self.failures = 0
            self.good += 1
            if self.state is BreakerState.HALF_OPEN and self.good >= self.successes:
                self.enter(BreakerState.CLOSED)

    @invariant()
    def the_state_is_the_models(self) -> None:
        if hasattr(self, "breaker"):
            self.look()
            assert self.breaker.state is self.state


TestBreakerModel = BreakerModel.TestCase
