# SPDX-License-Identifier: Apache-2.0
"""An adapter for requests, by which every request of a session is a call of its origin's policy:

session.mount("https://", ReliableAdapter())
"""

from .._calling.options import default_policy
from ._adapter import ReliableAdapter, chat_costs
from ._errors import (
    BudgetExhaustedError,
    CircuitOpenError,
    DeadlineError,
    RateLimitedError,
    RefusedError,
)

__all__ = [
    "BudgetExhaustedError",
    "CircuitOpenError",
    "DeadlineError",
    "RateLimitedError",
    "RefusedError",
    "ReliableAdapter",
    "chat_costs",
    "default_policy",
]
