# SPDX-License-Identifier: Apache-2.0
"""What a response says about an attempt, before its body has been passed on."""

from __future__ import annotations

import dataclasses
import math
from typing import Optional

from ..classify import AttemptOutcome
from ..enums import Domain, ErrorClass
from ..policy import Policy
from .body import class_of_body
from .limits import Get, asked_delay, should_retry

#: Seconds; a server that says more than the library can count says the same.
LONGEST_DELAY = 1e9
#: The server has refused the request and done nothing with it.
UNDONE = frozenset({408, 421, 425, 429, 503})


def classify_answer(
    policy: Policy, status: int, get: Get, names: tuple[str, ...], repeatable: bool
) -> AttemptOutcome:
    """Of a status of 400 or more. names: what its body says, see body.py."""
    return _limited_by_server(_class(policy, status, names, repeatable), status, get)


def _class(policy: Policy, status: int, names: tuple[str, ...], repeatable: bool) -> AttemptOutcome:
    found = class_of_body(names)
    if found is ErrorClass.TEMPORARY and (status < 500 or status == 503):
        found = None  # the rules know 429 and 503 better; any other status does not bear the name out
    if found is ErrorClass.PERMANENT and status >= 500:
        found = None  # the server failed, whatever it calls that
    if found is None and status == 401 and not policy._plan._config.rule_count:
        found = ErrorClass.PERMANENT  # nobody here can renew the credentials
    if found is ErrorClass.PERMANENT or found is ErrorClass.TEMPORARY:
        return AttemptOutcome(found)
    if status >= 500 and status not in UNDONE and not repeatable:
        return AttemptOutcome(ErrorClass.UNKNOWN)
    return AttemptOutcome(domain=Domain.HTTP, code=min(status, 599))


def _limited_by_server(outcome: AttemptOutcome, status: int, get: Get) -> AttemptOutcome:
    wanted = should_retry(get)
    if wanted is False:
        return dataclasses.replace(outcome, server_delay=math.inf)
    if wanted is True and 400 <= status < 500 and status not in UNDONE:
        outcome = AttemptOutcome(ErrorClass.TEMPORARY)
    delay: Optional[float] = asked_delay(get)
    if delay is None:
        return outcome
    return dataclasses.replace(outcome, server_delay=min(delay, LONGEST_DELAY))
