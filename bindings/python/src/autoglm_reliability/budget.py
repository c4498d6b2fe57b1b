# SPDX-License-Identifier: Apache-2.0
"""Retries as a share of traffic, so that they cannot become the load."""

from __future__ import annotations

from typing import Optional

from . import _generated as c
from ._convert import fill, seconds, unsigned
from ._ffi import Int64, byref, initialised
from ._handle import Clock, Native
from .errors import BudgetExhausted
from .region import Region


class RetryBudget(Native):
    """A bucket of retries: `ratio` flows in with each request, `min_per_second` with time, and a
    retry takes one out.

    ratio           retries per request, 0 ... 1000; 0.2.
    min_per_second  retries that flow in without traffic; 10.
    quota           the most that can be saved up; 100.
    initial         what is there at the start; 100.
    clock           a function that returns nanoseconds, in place of the system's monotonic clock.
    scope           a Region, in which it is found by `name`, or created; else it is this process's own.
    """

    def __init__(
        self,
        *,
        ratio: Optional[float] = None,
        min_per_second: Optional[int] = None,
        quota: Optional[int] = None,
        initial: Optional[int] = None,
        clock: Optional[Clock] = None,
        scope: Optional[Region] = None,
        name: Optional[str] = None,
    ) -> None:
        config = initialised(c.agr_retry_budget_config)
        fill(
            config,
            {
                "ratio": ratio,
                "min_per_second": min_per_second,
                "quota": quota,
                "initial": initial,
            },
        )
        self._own("agr_retry_budget_create", config, clock, scope, name)

    def try_withdraw(self, cost: int = 1) -> bool:
        """Takes the cost of a retry out, if it is there."""
        return self._withdraw(cost) is None

    def withdraw(self, cost: int = 1) -> None:
        """Takes the cost of a retry out, or raises BudgetExhausted."""
        wait = self._withdraw(cost)
        if wait is not None:
            raise BudgetExhausted(retry_after=wait)

    def _withdraw(self, cost: int) -> Optional[float]:
        wait = Int64()
        inputs, outputs = (unsigned(cost, "cost"),), (byref(wait),)
        status = self._timed("agr_retry_budget_withdraw", inputs, outputs)
        return seconds(wait.value) if status == c.AGR_EXHAUSTED else None

    def deposit(self, requests: int = 1) -> None:
        """Counts first attempts, each of which puts `ratio` in."""
        self._timed("agr_retry_budget_deposit", (unsigned(requests, "requests"),))

    @property
    def balance(self) -> float:
        """The retries that are there."""
        thousandths = Int64()
        self._timed("agr_retry_budget_balance", outputs=(byref(thousandths),))
        return thousandths.value / 1000
