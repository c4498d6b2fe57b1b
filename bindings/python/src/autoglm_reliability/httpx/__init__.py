# SPDX-License-Identifier: Apache-2.0
"""Transports for httpx, and so for every client that accepts an httpx client, such as the OpenAI SDK:

httpx.Client(transport=ReliableTransport())
httpx.AsyncClient(transport=AsyncReliableTransport())
"""

from .._calling.options import default_policy
from ._costs import chat_costs
from ._endpoint import Endpoint
from ._errors import (
    BudgetExhaustedError,
    CircuitOpenError,
    DeadlineError,
    RateLimitedError,
    RefusedError,
)
from ._transport import AsyncReliableTransport, ReliableTransport

__all__ = [
    "AsyncReliableTransport",
    "BudgetExhaustedError",
    "CircuitOpenError",
    "DeadlineError",
    "Endpoint",
    "RateLimitedError",
    "RefusedError",
    "ReliableTransport",
    "chat_costs",
    "default_policy",
]
