# SPDX-License-Identifier: Apache-2.0
"""Middleware for any WSGI application: idempotency keys, rate limits in requests and tokens, admission."""

from .._serving.idempotency import Execution, Idempotency, final
from .._serving.incoming import Incoming, credentials
from .._serving.limits import RateLimit
from .._serving.line import Admission
from .._serving.tokens import estimate_tokens, total_tokens
from ..propagation import Inbound, current_inbound
from .middleware import ReliabilityMiddleware

__all__ = [
    "Admission",
    "Execution",
    "Idempotency",
    "Inbound",
    "Incoming",
    "RateLimit",
    "ReliabilityMiddleware",
    "credentials",
    "current_inbound",
    "estimate_tokens",
    "final",
    "total_tokens",
]
