# SPDX-License-Identifier: Apache-2.0
"""Every argument of every constructor refuses what it cannot be, by name, and replaces nothing."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import pytest

from autoglm_reliability import (
    ArgumentError,
    Backoff,
    CircuitBreaker,
    Component,
    Fallback,
    IdempotencyCache,
    KeyedRateLimiter,
    Policy,
    RateLimiter,
    Retry,
    RetryBudget,
    RetryRule,
)

BUCKET = {"capacity": 10, "refill_tokens": 5}
CLASSES: list[tuple[type[Any], dict[str, Any]]] = [
    (Backoff, {}),
    (Retry, {}),
    (RetryBudget, {}),
    (CircuitBreaker, {}),
    (RateLimiter, BUCKET),
    (KeyedRateLimiter, BUCKET),
    (IdempotencyCache, {}),
    (Policy, {}),
]
# What is neither a duration nor a number has tests of its own, below.
OTHERS = {
    Retry: {"backoff", "rules"},
    CircuitBreaker: {"classify"},
    Policy: {
        "idempotency breaker budget retry limiters order fallback_data observe off classify "
        "classify_result codec"
    },
}
BAD_DURATIONS = [math.nan, -1.0, 1e30]
BAD_INTEGERS = [-2, 2**70]
BAD_NUMBERS = [math.nan, -1.0, 1e300, math.inf]


def cases() -> list[Any]:
    found = []
    for kind, good in CLASSES:
        others = set(" ".join(OTHERS.get(kind, ())).split())
        for name, parameter in inspect.signature(kind).parameters.items():
            if name in others or name in ("clock", "scope", "name"):
                continue
            annotation = str(parameter.annotation)
            if "Duration" in annotation:
                bad = BAD_DURATIONS
            elif "float" in annotation:
                bad = BAD_NUMBERS
            else:
                bad = BAD_INTEGERS
            for value in bad:
                label = f"{kind.__name__}-{name}-{value}"
                found.append(pytest.param(kind, good, name, value, id=label))
    return found


@pytest.mark.parametrize(("kind", "good", "name", "value"), cases())
def test_a_value_out_of_range_is_refused_by_name(
    kind: type[Any], good: dict[str, Any], name: str, value: object
) -> None:
    with pytest.raises(ArgumentError) as caught:
        kind(**{**good, name: value})
    assert caught.value.field == name
    assert name in str(caught.value)


@pytest.mark.parametrize(("kind", "good", "name", "value"), cases())
def test_a_value_of_another_type_is_a_type_error(
    kind: type[Any], good: dict[str, Any], name: str, value: object
) -> None:
    with pytest.raises(TypeError, match=name):
        kind(**{**good, name: "text"})


@pytest.mark.parametrize(("kind", "good"), CLASSES)
def test_the_defaults_are_accepted(kind: type[Any], good: dict[str, Any]) -> None:
    made = kind(**good)
    assert isinstance(made, kind)


@pytest.mark.parametrize(("kind", "good"), [pair for pair in CLASSES if pair[0] not in (Backoff, Retry)])
def test_a_clock_is_a_function(kind: type[Any], good: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="clock"):
        kind(**good, clock=7)


@pytest.mark.parametrize("name", ["idempotency", "breaker", "budget", "limiters", "retry"])
def test_a_policy_takes_no_part_of_another_kind(name: str) -> None:
    wrong: Any = [object()] if name == "limiters" else object()
    with pytest.raises((TypeError, ArgumentError), match=name):
        Policy(**{name: wrong})


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        (lambda: {"budget": RetryBudget()}, "budget"),
        (lambda: {"fallback": Fallback.CACHED}, "fallback"),
        (lambda: {"fallback": Fallback.DEFAULT}, "fallback"),
        (lambda: {"attempt_timeout": 10, "total_timeout": 5}, "attempt_timeout"),
        (lambda: {"observe": [Component.BREAKER]}, "observe"),
        (lambda: {"order": [Component.BREAKER]}, "order"),
        (
            lambda: {
                "breaker": CircuitBreaker(),
                "retry": Backoff(),
                "order": [Component.BREAKER, Component.RETRY, Component.DEADLINE],
            },
            "order",
        ),
    ],
)
def test_a_policy_refuses_what_cannot_work_and_says_why(
    arguments: Callable[[], dict[str, Any]], field: str
) -> None:
    with pytest.raises(ArgumentError) as caught:
        Policy(**arguments())
    assert caught.value.field.startswith(field)
    assert len(str(caught.value)) > len(field) + 10


def test_a_policy_refuses_a_limiter_twice_and_a_fifth() -> None:
    limiter = RateLimiter(**BUCKET)
    with pytest.raises(ArgumentError, match="limiters"):
        Policy(limiters=[limiter, limiter])
    with pytest.raises(ArgumentError, match="limiters"):
        Policy(limiters=[RateLimiter(**BUCKET) for _ in range(5)])


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"domain": 9}, "domain"),
        ({"code_min": 600, "code_max": 500}, "code_m"),
        ({"error_class": 77}, "error_class"),
        ({"max_retries": -1}, "max_retries"),
        ({"first_delay": -1}, "first_delay"),
    ],
)
def test_a_rule_refuses_by_name(changes: dict[str, Any], field: str) -> None:
    from autoglm_reliability import Domain, ErrorClass

    good: dict[str, Any] = {
        "domain": Domain.HTTP,
        "code_min": 500,
        "code_max": 500,
        "error_class": ErrorClass.TRANSIENT,
    }
    with pytest.raises(ArgumentError, match=field):
        Retry(rules=[RetryRule(**{**good, **changes})])
