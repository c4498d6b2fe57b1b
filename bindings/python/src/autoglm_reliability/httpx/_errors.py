# SPDX-License-Identifier: Apache-2.0
"""The refusals, which are exceptions of httpx as well: what handles its errors handles these."""

from __future__ import annotations

from typing import Optional

import httpx

from .. import errors
from .._calling.failure import Kinds

KINDS = Kinds(
    own=(httpx.PoolTimeout, httpx.LocalProtocolError, httpx.UnsupportedProtocol, httpx.InvalidURL),
    unsent=(httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError),
)


class RefusedError(errors.Refused, httpx.TransportError):
    """The request was not made, or not made again."""

    # The initialiser of OSError, where it stands between the two, does not call the next one.
    _request: Optional[httpx.Request] = None


class RateLimitedError(errors.RateLimited, RefusedError):
    """There are not enough tokens, or the server has asked to be left alone."""


class CircuitOpenError(errors.CircuitOpen, RefusedError):
    """The circuit breaker of the host admits nobody now."""


class BudgetExhaustedError(errors.BudgetExhausted, RefusedError):
    """The retry budget is spent."""


class DeadlineError(errors.DeadlineExceeded, RefusedError, httpx.TimeoutException):
    """The deadline is over, or the wait that is needed would overrun it."""


_CLASSES: dict[type[errors.Refused], type[RefusedError]] = {
    errors.RateLimited: RateLimitedError,
    errors.CircuitOpen: CircuitOpenError,
    errors.BudgetExhausted: BudgetExhaustedError,
    errors.DeadlineExceeded: DeadlineError,
}


def refused(error: errors.Refused) -> RefusedError:
    kind = _CLASSES.get(type(error), RefusedError)
    return kind(
        str(error),
        retry_after=error.retry_after,
        component=error.component,
        reason=error.reason,
        field=error.field,
    )
