# SPDX-License-Identifier: Apache-2.0
"""The limiter against an obvious model, in whole tokens which arrive when t * rate passes a whole number."""

from __future__ import annotations

import math
from fractions import Fraction

from autoglm_reliability import RateLimited, RateLimiter, Reservation
from autoglm_reliability.testing import ManualClock
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

CAPACITY = st.integers(1, 50)


class LimiterModel(RuleBasedStateMachine):
    @initialize(
        capacity=CAPACITY, refill=st.integers(1, 20), interval=st.sampled_from([1, 7, 1000, 10**9])
    )
    def create(self, capacity: int, refill: int, interval: int) -> None:
        interval = max(interval, refill)
        self.clock = ManualClock()
        self.limiter = RateLimiter(
            capacity, refill, interval / 1e9, max_debt_tokens=30, clock=self.clock
        )
        self.rate = Fraction(refill, interval)
        self.capacity = capacity
        self.level = capacity
        self.open: list[tuple[Reservation, int]] = []

    def refilled(self) -> int:
        return math.floor(self.clock() * self.rate)

    def wait(self, missing: int) -> int:
        """The time until so many more tokens have come."""
        return max(0, math.ceil((self.refilled() + missing) / self.rate) - self.clock())

    @rule(nanoseconds=st.one_of(st.integers(0, 2000), st.integers(0, 10**10)))
    def advance(self, nanoseconds: int) -> None:
        before = self.refilled()
        self.clock._now += nanoseconds
        self.level = min(self.capacity, self.level + self.refilled() - before)

    @rule(tokens=st.integers(0, 50))
    def acquire(self, tokens: int) -> None:
        if tokens > self.capacity:
            return
        fits = tokens <= self.level
        assert self.limiter.try_acquire(tokens) == fits
        if fits:
            self.level -= tokens

    @rule(tokens=st.integers(1, 50), wait=st.sampled_from([0, 1e-6, 0.5, 1e9]))
    def reserve(self, tokens: int, wait: float) -> None:
        if tokens > self.capacity:
            return
        needed = self.wait(tokens - self.level) if tokens > self.level else 0
        admitted = needed == 0 or (needed <= round(wait * 1e9) and self.level - tokens >= -30)
        try:
            reservation = self.limiter.reserve(tokens, wait)
        except RateLimited as refusal:
            assert not admitted
            assert refusal.retry_after is not None
            return
        assert admitted
        assert round(reservation.wait * 1e9) == needed
        self.level -= tokens
        self.open.append((reservation, tokens))

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        reservation, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        assert reservation.cancel()
        self.level = min(self.capacity, self.level + tokens)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), actual=st.integers(0, 80))
    def settle(self, data: st.DataObject, actual: int) -> None:
        reservation, tokens = self.open.pop(data.draw(st.integers(0, len(self.open) - 1)))
        assert reservation.settle(actual)
        level = self.level + tokens - actual
        floor = min(self.level, -30)
        self.level = min(self.capacity, max(level, floor))

    @rule(capacity=CAPACITY)
    def reconfigure(self, capacity: int) -> None:
        self.limiter.reconfigure(capacity=capacity)
        self.capacity = capacity
        self.level = min(self.level, capacity)

    @invariant()
    def available_is_what_the_model_has(self) -> None:
        if hasattr(self, "limiter"):
            assert self.limiter.available == self.level
            assert self.limiter.snapshot().open_reservations == len(self.open)


TestLimiterModel = LimiterModel.TestCase
