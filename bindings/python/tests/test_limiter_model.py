# SPDX-License-Identifier: Apache-2.0
"""The limiter against an obvious model with big integers."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoglm_reliability import RateLimited, RateLimiter, Reservation
from autoglm_reliability.testing import ManualClock

CAPACITY = st.integers(1, 50)
DEBT = 30


class LimiterModel(RuleBasedStateMachine):
    """Counts in units, of which a token has as many as whole nanoseconds. `spent` is those since time 0,
    what has spilled over a full bucket among them; available is what has flowed in, less that."""

    @initialize(capacity=CAPACITY, refill=st.integers(1, 20), interval=st.sampled_from([1, 7, 1000, 10**9]))
    def create(self, capacity: int, refill: int, interval: int) -> None:
        interval = max(interval, refill)
        self.clock = ManualClock()
        self.limiter = RateLimiter(capacity, refill, interval / 1e9, max_debt_tokens=DEBT, clock=self.clock)
        rate = Fraction(refill, interval)
        self.unit = rate.denominator // rate.numerator
        self.flow = rate * self.unit
        self.capacity = capacity * self.unit
        self.spent = self.full
        self.configured = 0
        self.capacities = [self.capacity]
        self.open: list[tuple[Reservation, int, int]] = []

    def flowed(self) -> int:
        return math.floor(self.clock() * self.flow)

    @property
    def full(self) -> int:
        return self.flowed() - self.capacity

    @property
    def level(self) -> int:
        return self.flowed() - self.spent

    def wait(self, missing: int) -> int:
        """The time until so many more units have come."""
        return max(0, math.ceil((self.flowed() + missing) / self.flow) - self.clock())

    @rule(nanoseconds=st.one_of(st.integers(0, 2000), st.integers(0, 10**10)))
    def advance(self, nanoseconds: int) -> None:
        self.clock._now += nanoseconds
        self.spent = max(self.spent, self.full)

    @rule(tokens=st.integers(0, 50))
    def acquire(self, tokens: int) -> None:
        units = tokens * self.unit
        if units > self.capacity:
            return
        fits = units <= self.level
        assert self.limiter.try_acquire(tokens) == fits
        self.spent += units if fits else 0

    @rule(tokens=st.integers(1, 50), wait=st.sampled_from([0, 1e-6, 0.5, 1e9]))
    def reserve(self, tokens: int, wait: float) -> None:
        units = tokens * self.unit
        if units > self.capacity:
            return
        needed = self.wait(units - self.level) if units > self.level else 0
        in_time = needed <= round(wait * 1e9) and self.level - units >= -DEBT * self.unit
        admitted = needed == 0 or in_time
        if not admitted:
            with pytest.raises(RateLimited):
                self.limiter.reserve(tokens, wait)
            return
        reservation = self.limiter.reserve(tokens, wait)
        assert round(reservation.wait * 1e9) == needed
        self.spent += units
        self.open.append((reservation, self.spent, self.configured))

    def end(self, data: st.DataObject) -> tuple[Reservation, Callable[[int], None]]:
        """One of the open reservations, and what gives some of it back: not what has flowed in again
        meanwhile, which would have spilled over; not what others have reserved behind it; and
        nothing after more than two changes of the configuration."""
        index = data.draw(st.integers(0, len(self.open) - 1))
        reservation, spent, configured = self.open.pop(index)

        def give_back(tokens: int) -> None:
            if self.configured - configured > 2:
                return
            if self.configured - configured == 2:
                before, between, after = self.capacities[configured:]
                if between < min(before, after):
                    return
            level = max(self.spent, self.full)
            kept = min(tokens * self.unit, self.capacity, max(0, spent - self.full))
            behind = max(0, level - max(spent, self.flowed()))
            if kept > behind:
                self.spent = max(level - (kept - behind), self.full)
                self.open = [self.lowered(*other) for other in self.open]

        return reservation, give_back

    def lowered(
        self, reservation: Reservation, spent: int, configured: int
    ) -> tuple[Reservation, int, int]:
        """What others gave back was not spent before this one either; in another configuration that
        cannot be said, and nothing comes back."""
        if spent > self.spent:
            spent = self.spent if configured == self.configured else self.full - self.capacity
        return reservation, spent, configured

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        reservation, give_back = self.end(data)
        assert reservation.cancel()
        give_back(reservation.tokens)

    @precondition(lambda self: self.open)
    @rule(data=st.data(), actual=st.integers(0, 80))
    def settle(self, data: st.DataObject, actual: int) -> None:
        reservation, give_back = self.end(data)
        assert reservation.settle(actual)
        if actual <= reservation.tokens:
            give_back(reservation.tokens - actual)
        else:
            bottom = max(self.spent, self.flowed() + DEBT * self.unit)
            room = (bottom - self.spent) // self.unit
            self.spent += min(actual - reservation.tokens, room) * self.unit

    @rule(capacity=CAPACITY)
    def reconfigure(self, capacity: int) -> None:
        self.limiter.reconfigure(capacity=capacity)
        self.capacity = capacity * self.unit
        self.spent = max(self.spent, self.full)
        self.configured += 1
        self.capacities.append(self.capacity)

    @invariant()
    def available_is_what_the_model_has(self) -> None:
        if hasattr(self, "limiter"):
            assert self.limiter.available == self.level // self.unit
            assert self.limiter.snapshot().open_reservations == len(self.open)


TestLimiterModel = LimiterModel.TestCase
