# SPDX-License-Identifier: Apache-2.0
"""The limiter against an obvious model, in whole tokens which arrive when t * rate passes a whole number."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoglm_reliability import RateLimited, RateLimiter, Reservation
from autoglm_reliability.testing import ManualClock

CAPACITY = st.integers(1, 50)
DEBT = 30


class LimiterModel(RuleBasedStateMachine):
    """`spent` counts tokens since time 0, those among them that spilled over a full bucket; what is
    available is what has flowed in since then, less that."""

    @initialize(capacity=CAPACITY, refill=st.integers(1, 20), interval=st.sampled_from([1, 7, 1000, 10**9]))
    def create(self, capacity: int, refill: int, interval: int) -> None:
        interval = max(interval, refill)
        self.clock = ManualClock()
        self.limiter = RateLimiter(capacity, refill, interval / 1e9, max_debt_tokens=DEBT, clock=self.clock)
        self.rate = Fraction(refill, interval)
        self.capacity = capacity
        self.spent = self.refilled() - capacity
        self.configured = 0
        self.open: list[tuple[Reservation, int, int]] = []

    def refilled(self) -> int:
        return math.floor(self.clock() * self.rate)

    @property
    def full(self) -> int:
        return self.refilled() - self.capacity

    @property
    def level(self) -> int:
        return self.refilled() - self.spent

    def wait(self, missing: int) -> int:
        """The time until so many more tokens have come."""
        return max(0, math.ceil((self.refilled() + missing) / self.rate) - self.clock())

    @rule(nanoseconds=st.one_of(st.integers(0, 2000), st.integers(0, 10**10)))
    def advance(self, nanoseconds: int) -> None:
        self.clock._now += nanoseconds
        self.spent = max(self.spent, self.full)

    @rule(tokens=st.integers(0, 50))
    def acquire(self, tokens: int) -> None:
        if tokens > self.capacity:
            return
        fits = tokens <= self.level
        assert self.limiter.try_acquire(tokens) == fits
        self.spent += tokens if fits else 0

    @rule(tokens=st.integers(1, 50), wait=st.sampled_from([0, 1e-6, 0.5, 1e9]))
    def reserve(self, tokens: int, wait: float) -> None:
        if tokens > self.capacity:
            return
        needed = self.wait(tokens - self.level) if tokens > self.level else 0
        admitted = needed == 0 or (needed <= round(wait * 1e9) and self.level - tokens >= -DEBT)
        if not admitted:
            with pytest.raises(RateLimited):
                self.limiter.reserve(tokens, wait)
            return
        reservation = self.limiter.reserve(tokens, wait)
        assert round(reservation.wait * 1e9) == needed
        self.spent += tokens
        self.open.append((reservation, self.spent, self.configured))

    def end(self, data: st.DataObject) -> tuple[Reservation, int]:
        """One of the open reservations, and how many tokens can still be given back: what has flowed
        in again meanwhile would have spilled over, had they not been taken."""
        index = data.draw(st.integers(0, len(self.open) - 1))
        reservation, spent, configured = self.open.pop(index)
        kept = max(0, spent - self.full) if configured == self.configured else reservation.tokens
        return reservation, kept

    def give_back(self, tokens: int) -> None:
        self.spent = max(self.spent - tokens, self.full)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        reservation, kept = self.end(data)
        assert reservation.cancel()
        self.give_back(min(reservation.tokens, kept))

    @precondition(lambda self: self.open)
    @rule(data=st.data(), actual=st.integers(0, 80))
    def settle(self, data: st.DataObject, actual: int) -> None:
        reservation, kept = self.end(data)
        assert reservation.settle(actual)
        if actual <= reservation.tokens:
            self.give_back(min(reservation.tokens - actual, kept))
        else:
            bottom = max(self.spent, self.refilled() + DEBT)
            self.spent = min(self.spent + actual - reservation.tokens, bottom)

    @rule(capacity=CAPACITY)
    def reconfigure(self, capacity: int) -> None:
        self.limiter.reconfigure(capacity=capacity)
        self.capacity = capacity
        self.spent = max(self.spent, self.full)
        self.configured += 1

    @invariant()
    def available_is_what_the_model_has(self) -> None:
        if hasattr(self, "limiter"):
            assert self.limiter.available == self.level
            assert self.limiter.snapshot().open_reservations == len(self.open)


TestLimiterModel = LimiterModel.TestCase
