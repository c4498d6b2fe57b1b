# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_reliability import (
    ArgumentError,
    Backoff,
    Domain,
    ErrorClass,
    Jitter,
    Outcome,
    Preset,
    Retry,
    RetryRule,
    Strategy,
)

RANDOM = st.integers(0, 2**64 - 1)
ATTEMPT = st.one_of(st.integers(1, 100), st.integers(1, 2**32 - 1))


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        (Strategy.CONSTANT, [0.1, 0.1, 0.1, 0.1]),
        (Strategy.LINEAR, [0.1, 0.2, 0.3, 0.4]),
        (Strategy.EXPONENTIAL, [0.1, 0.2, 0.4, 0.8]),
    ],
)
def test_the_shapes_are_what_their_formulas_say(strategy: Strategy, wanted: list[float]) -> None:
    backoff = Backoff(strategy=strategy, jitter=Jitter.NONE, max_attempts=5)
    assert list(backoff.delays()) == wanted


def test_the_attempts_run_out() -> None:
    backoff = Backoff(max_attempts=3)
    assert backoff.max_attempts == 3
    assert backoff.delay(2) is not None
    assert backoff.delay(3) is None
    assert len(list(backoff.delays())) == 2
    assert Backoff(max_attempts=0).delay(2**32 - 1) is not None


@given(
    attempt=ATTEMPT,
    random=RANDOM,
    previous=st.floats(0, 1e6),
    jitter=st.sampled_from([Jitter.FULL, Jitter.EQUAL, Jitter.PROPORTIONAL, Jitter.DECORRELATED]),
)
def test_jitter_never_exceeds_the_longest_delay(
    attempt: int, random: int, previous: float, jitter: Jitter
) -> None:
    backoff = Backoff(jitter=jitter, max_attempts=0, max_delay=7)
    delay = backoff.delay(attempt, previous, random=random)
    assert delay is not None
    assert 0 <= delay <= 7


@given(attempt=ATTEMPT, random=RANDOM, previous=st.floats(0, 1e6))
def test_the_random_shapes_stay_within_their_bounds(attempt: int, random: int, previous: float) -> None:
    for strategy in (Strategy.DECORRELATED, Strategy.SMOOTH_DECORRELATED, Strategy.ADAPTIVE):
        backoff = Backoff(strategy=strategy, jitter=Jitter.NONE, max_attempts=0)
        delay = backoff.delay(attempt, previous, random=random)
        assert delay is not None
        assert 0 <= delay <= 20


@given(attempt=st.integers(1, 30), random=RANDOM)
def test_full_jitter_is_a_share_of_the_delay(attempt: int, random: int) -> None:
    plain = Backoff(jitter=Jitter.NONE, max_attempts=0).delay(attempt)
    drawn = Backoff(jitter=Jitter.FULL, max_attempts=0).delay(attempt, random=random)
    assert plain is not None
    assert drawn == pytest.approx(plain * random / 2**64, abs=2e-9)


def test_an_adaptive_delay_shrinks_by_quick_successes_only() -> None:
    backoff = Backoff(strategy=Strategy.ADAPTIVE, jitter=Jitter.NONE, min_delay=0.01, fast_success=0.1)
    assert backoff.adapt(0.8, Outcome.SUCCESS, 0.05) == 0.4
    assert backoff.adapt(0.8, Outcome.SUCCESS, 0.5) == 0.8
    assert backoff.adapt(0.8, Outcome.NEUTRAL, 0.05) == 0.8
    assert backoff.adapt(0.8, Outcome.FAILURE, 0.05) == 1.6
    assert backoff.adapt(0.01, Outcome.SUCCESS, 0.05) == 0.01
    with pytest.raises(ArgumentError):
        backoff.adapt(0.8, 9, 0.05)  # type: ignore[arg-type]


@pytest.mark.parametrize("attempt", [0, -1, 2**32])
def test_an_attempt_is_a_number_from_1(attempt: int) -> None:
    with pytest.raises(ArgumentError, match="attempt"):
        Backoff().delay(attempt)


@pytest.mark.parametrize(
    ("domain", "code", "wanted"),
    [
        (Domain.HTTP, 200, ErrorClass.SUCCESS),
        (Domain.HTTP, 429, ErrorClass.TEMPORARY),
        (Domain.HTTP, 503, ErrorClass.TEMPORARY),
        (Domain.HTTP, 502, ErrorClass.TRANSIENT),
        (Domain.HTTP, 400, ErrorClass.PERMANENT),
        (Domain.HTTP, 408, ErrorClass.UNKNOWN),
        (Domain.ERRNO, 111, ErrorClass.TRANSIENT),
        (Domain.ERRNO, 104, ErrorClass.UNKNOWN),
        (Domain.USER, 5, ErrorClass.TRANSIENT),
    ],
)
def test_the_default_rules_know_the_usual_codes(domain: Domain, code: int, wanted: ErrorClass) -> None:
    assert Retry().classify(domain, code).error_class is wanted


def test_every_http_status_has_a_rule() -> None:
    rules = [rule for rule in Retry.default_rules() if rule.domain is Domain.HTTP]
    covered = {code for rule in rules for code in range(rule.code_min, rule.code_max + 1)}
    assert covered >= set(range(100, 600))


def test_ones_own_rules_replace_the_default_ones() -> None:
    mine = RetryRule(Domain.USER, 7, 9, ErrorClass.PERMANENT)
    retry = Retry(rules=[mine])
    assert retry.classify(Domain.USER, 8) == mine
    assert retry.classify(Domain.HTTP, 400).error_class is ErrorClass.TRANSIENT
    assert retry.decide(1, mine) is None


def test_more_rules_than_the_table_holds_are_refused() -> None:
    with pytest.raises(ArgumentError):
        Retry(rules=[RetryRule(Domain.USER, 1, 1, ErrorClass.TRANSIENT)] * 65)


TRANSIENT = RetryRule(Domain.USER, 0, 0, ErrorClass.TRANSIENT)


@given(hint=st.floats(0, 120), random=RANDOM)
def test_a_servers_hint_is_never_undercut(hint: float, random: int) -> None:
    delay = Retry(server_delay_spread=5).decide(1, TRANSIENT, server_delay=hint, random=random)
    assert delay is not None
    assert hint - 1e-9 <= delay <= hint + 5 + 1e-9


def test_a_hint_that_is_too_long_means_stop() -> None:
    retry = Retry(max_server_delay=60)
    assert retry.decide(1, TRANSIENT, server_delay=60) is not None
    assert retry.decide(1, TRANSIENT, server_delay=61) is None
    assert retry.decide(1, TRANSIENT, server_delay=float("inf")) is None


def test_what_was_sent_without_a_reply_is_repeated_only_with_a_key() -> None:
    unknown = RetryRule(Domain.USER, 0, 0, ErrorClass.UNKNOWN)
    assert Retry().decide(1, unknown) is None
    assert Retry().decide(1, unknown, has_key=True) is not None
    assert Retry(retry_unknown=True).decide(1, unknown) is not None


def test_a_rule_bounds_its_own_retries() -> None:
    rule = RetryRule(Domain.USER, 0, 0, ErrorClass.TEMPORARY, max_retries=2, first_delay=3)
    retry = Retry(Backoff(max_attempts=0))
    assert retry.decide(1, rule, reason_retries=1) == pytest.approx(3)
    assert retry.decide(1, rule, reason_retries=2) is None


@pytest.mark.parametrize(
    ("preset", "attempts"), [(Preset.DEVELOPMENT, 3), (Preset.PRODUCTION, 4), (Preset.EDGE, 2)]
)
def test_a_preset_bounds_the_attempts(preset: Preset, attempts: int) -> None:
    retry = Retry.preset(preset)
    assert retry.decide(attempts - 1, TRANSIENT) is not None
    assert retry.decide(attempts, TRANSIENT) is None


def test_a_preset_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ArgumentError, match="preset"):
        Retry.preset(9)  # type: ignore[arg-type]
