# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from autoglm_reliability import BudgetExhausted, Component, NeverFits, RetryBudget
from autoglm_reliability.testing import ManualClock
from helpers import in_threads


def test_retries_run_out_and_flow_in_with_traffic_and_time(clock: ManualClock) -> None:
    budget = RetryBudget(ratio=0.5, min_per_second=2, quota=5, initial=1, clock=clock)
    assert budget.try_withdraw()
    assert not budget.try_withdraw()
    budget.deposit(4)
    assert budget.balance == 2.0
    clock.advance(1)
    assert budget.balance == 4.0
    clock.advance(60)
    assert budget.balance == 5.0


def test_a_refusal_says_when_it_clears(clock: ManualClock) -> None:
    budget = RetryBudget(min_per_second=4, quota=5, initial=0, clock=clock)
    with pytest.raises(BudgetExhausted) as caught:
        budget.withdraw(2)
    assert caught.value.retry_after == 0.5
    assert caught.value.component is Component.BUDGET
    still = RetryBudget(min_per_second=0, initial=0, clock=clock)
    with pytest.raises(BudgetExhausted) as caught:
        still.withdraw()
    assert caught.value.retry_after == float("inf")


def test_a_cost_above_the_quota_never_fits() -> None:
    with pytest.raises(NeverFits):
        RetryBudget(quota=5, initial=5).try_withdraw(6)


def test_threads_share_it_exactly() -> None:
    budget = RetryBudget(ratio=0, min_per_second=0, quota=1000, initial=500)
    taken = in_threads(4, lambda _: sum(budget.try_withdraw() for _ in range(300)))
    assert sum(taken) == 500


class BudgetModel(RuleBasedStateMachine):
    """Without time, the budget is a counter in thousandths."""

    @initialize(thousandths=st.integers(0, 3000), quota=st.integers(1, 20))
    def create(self, thousandths: int, quota: int) -> None:
        self.flow = thousandths
        self.quota = quota
        self.balance = quota * 1000
        self.budget = RetryBudget(
            ratio=float(Fraction(thousandths, 1000)),
            min_per_second=0,
            quota=quota,
            initial=quota,
            clock=ManualClock(),
        )

    @rule(cost=st.integers(0, 20))
    def withdraw(self, cost: int) -> None:
        if cost > self.quota:
            return
        fits = cost * 1000 <= self.balance
        assert self.budget.try_withdraw(cost) == fits
        self.balance -= cost * 1000 if fits else 0

    @rule(requests=st.integers(0, 30))
    def deposit(self, requests: int) -> None:
        self.budget.deposit(requests)
        self.balance = min(self.quota * 1000, self.balance + requests * self.flow)

    @invariant()
    def the_balance_is_the_models(self) -> None:
        if hasattr(self, "budget"):
            assert round(self.budget.balance * 1000) == self.balance


TestBudgetModel = BudgetModel.TestCase
