# SPDX-License-Identifier: Apache-2.0
"""The refusals, which are exceptions of requests as well: what handles its errors handles these."""

from __future__ import annotations

import requests
import requests.exceptions as theirs
from urllib3.exceptions import ConnectTimeoutError, NewConnectionError

from .. import errors
from .._calling.failure import Kinds

KINDS = Kinds(
    own=(
        theirs.InvalidURL,
        theirs.InvalidSchema,
        theirs.InvalidHeader,
        theirs.MissingSchema,
        theirs.UnrewindableBodyError,
    ),
    unsent=(theirs.ConnectTimeout, theirs.ProxyError, theirs.SSLError),
    causes=(NewConnectionError, ConnectTimeoutError),
)


class RefusedError(errors.Refused, theirs.ConnectionError):
    """The request was not made, or not made again."""

    # The initialiser of OSError, where it stands between the two, does not call the next one.
    request: requests.PreparedRequest | None = None
    response: requests.Response | None = None


class RateLimitedError(errors.RateLimited, RefusedError):
    """There are not enough tokens, or the server has asked to be left alone."""


class CircuitOpenError(errors.CircuitOpen, RefusedError):
    """The circuit breaker of the host admits nobody now."""


class BudgetExhaustedError(errors.BudgetExhausted, RefusedError):
    """The retry budget is spent."""


class DeadlineError(errors.DeadlineExceeded, RefusedError, theirs.Timeout):
    """The deadline is over, or the wait that is needed would overrun it."""


_CLASSES: dict[type[errors.Refused], type[RefusedError]] = {
    errors.RateLimited: RateLimitedError,
    errors.CircuitOpen: CircuitOpenError,
    errors.BudgetExhausted: BudgetExhaustedError,
    errors.DeadlineExceeded: DeadlineError,
}


def refused(error: errors.Refused, request: requests.PreparedRequest) -> RefusedError:
    kind = _CLASSES.get(type(error), RefusedError)
    same = kind(
        str(error),
        retry_after=error.retry_after,
        component=error.component,
        reason=error.reason,
        field=error.field,
    )
    same.request = request
    return same
