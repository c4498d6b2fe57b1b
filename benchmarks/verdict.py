# SPDX-License-Identifier: Apache-2.0
"""Compares what was measured with the goals."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from goals import GOALS, Goal
from measure import Results, median, ratio


@dataclass(frozen=True)
class Verdict:
    goal: Goal
    ours: float
    other: float | None
    figure: float
    low: float
    high: float

    @property
    def reached(self) -> bool:
        return self._within(self.goal.limit)

    @property
    def tolerated(self) -> bool:
        return self.reached or self._within(self.goal.tolerated)

    def _within(self, limit: float) -> bool:
        return self.figure >= limit if self.goal.kind == "speed" else self.figure <= limit

    @property
    def word(self) -> str:
        return "yes" if self.reached else "known miss" if self.tolerated else "MISSED"


def spread(values: list[float]) -> tuple[float, float]:
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def figure(goal: Goal, ours: list[float], other: list[float] | None) -> tuple[float, float, float]:
    if goal.ours.startswith("error."):
        return (max(ours), *spread(ours))
    if other is None:
        # A value by itself has no floor to share a slow moment with: the quickest is what it takes.
        return (min(ours), *spread(ours))
    if goal.kind == "speed":
        ours, other = other, ours
    pairs = list(zip(ours, other))
    if goal.kind == "above":
        each = [one - two for one, two in pairs]
        return (median(each), *spread(each))
    return (ratio(ours, other), *spread([one / two for one, two in pairs]))


def verdict(goal: Goal, results: Results) -> Verdict | None:
    """None where something was not measured."""
    rounds = results["rounds"]
    if goal.ours.startswith("bytes."):
        seen = results["bytes"].get(goal.ours.removeprefix("bytes."))
        ours = [seen["bytes_per_key"]] if seen else None
    else:
        ours = rounds.get(goal.ours)
    other = rounds.get(goal.against) if goal.against else None
    if ours is None or (goal.against and other is None):
        return None
    return Verdict(goal, median(ours), median(other) if other else None, *figure(goal, ours, other))


def verdicts(results: Results) -> list[Verdict]:
    return [seen for goal in GOALS if (seen := verdict(goal, results))]
