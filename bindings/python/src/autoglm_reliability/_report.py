# SPDX-License-Identifier: Apache-2.0
"""How a call went, for the policy on one side and for the caller on the other."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional

from . import _generated as c
from .attempt import Attempt
from .call import Call
from .classify import SUCCESS, AttemptOutcome, Verdict, as_outcome
from .enums import ErrorClass, Reason
from .errors import (
    ArgumentError,
    BudgetExhausted,
    CapacityError,
    CircuitOpen,
    DeadlineExceeded,
    Mismatch,
    NeverFits,
    OutOfMemory,
    Queued,
    RateLimited,
    Refused,
    ReplayedFailure,
    StoreError,
)
from .request import Request
from .step import Step

if TYPE_CHECKING:
    from .policy import Policy

ClassifyResult = Callable[[Any], Optional[Verdict]]

# Ends of which the attempt's own failure is the cause: its exception says the most.
FINAL = frozenset(
    {
        Reason.FAILED_PERMANENT,
        Reason.ATTEMPTS_EXHAUSTED,
        Reason.COMMITTED,
        Reason.CANCELLED,
        Reason.HINT_TOO_LONG,
        Reason.OUTCOME_UNKNOWN,
    }
)

REFUSALS: dict[Reason, type[Refused]] = {
    Reason.BUDGET_EXHAUSTED: BudgetExhausted,
    Reason.DEADLINE: DeadlineExceeded,
    Reason.LIMITED: RateLimited,
    Reason.OPEN: CircuitOpen,
    Reason.MISMATCH: Mismatch,
    Reason.CAPACITY: CapacityError,
    Reason.NEVER_FITS: NeverFits,
    Reason.QUEUE: Queued,
}


class Report:
    def __init__(self, policy: Policy, request: Request) -> None:
        self._policy = policy
        self._stored = bool(request.key or request.cache_key)
        self._value: Any = None
        self._returned = False
        self._error: Optional[BaseException] = None

    def returned(self, attempt: Attempt, value: Any) -> AttemptOutcome:
        self._value, self._returned, self._error = value, True, None
        classify = self._policy._classify_result
        verdict = classify(value) if classify is not None else None
        outcome = SUCCESS if verdict is None else as_outcome(verdict)
        if self._stored and self._succeeded(outcome):
            outcome = dataclasses.replace(outcome, result=self._policy._codec.encode(value))
        return self._complete(attempt, outcome)

    def raised(self, attempt: Attempt, error: BaseException) -> AttemptOutcome:
        self._value, self._returned, self._error = None, False, error
        if isinstance(error, Exception):
            outcome = as_outcome(self._policy._classify(error))
        else:
            outcome = AttemptOutcome(ErrorClass.CANCELLED)
        if self._stored and not outcome.result:
            outcome = dataclasses.replace(outcome, result=f"{type(error).__name__}: {error}")
        return self._complete(attempt, outcome)

    def let_cancellation_pass(self) -> None:
        """Cancellation and interruption are nobody's to keep, whatever the policy would do next."""
        if self._error is not None and not isinstance(self._error, Exception):
            self._raise(self._error)

    def conclude(self, call: Call) -> Any:
        """What the caller gets."""
        if call._raw.reason == c.AGR_REASON_SUCCEEDED and call._raw.result is None:
            return self._value
        step = call.step
        reason = step.reason
        if reason in (Reason.REPLAYED, Reason.FALLBACK_DEFAULT, Reason.FALLBACK_CACHED):
            return self._policy._codec.decode(step.result or b"")
        if reason in FINAL:
            if self._returned:
                return self._value  # a value that classify_result took for a failure
            if self._error is not None:
                self._raise(self._error)
        raise _refusal(step) from self._error

    def _succeeded(self, outcome: AttemptOutcome) -> bool:
        if outcome.error_class is not None:
            return outcome.error_class == ErrorClass.SUCCESS
        rule = self._policy._plan.classify(outcome.domain, outcome.code)
        return rule.error_class is ErrorClass.SUCCESS

    def _complete(self, attempt: Attempt, outcome: AttemptOutcome) -> AttemptOutcome:
        if outcome is SUCCESS and not attempt.costs and attempt.server_delay is None:
            return outcome  # of the present attempt
        hint = outcome.server_delay
        return dataclasses.replace(
            outcome,
            attempt_id=outcome.attempt_id or attempt._raw.attempt_id,
            costs=outcome.costs or attempt.costs,
            server_delay=attempt.server_delay if hint is None else hint,
        )

    def _raise(self, error: BaseException) -> NoReturn:
        self._error = None  # or the traceback would hold this frame, which holds the exception
        raise error


def _refusal(step: Step) -> Exception:
    if step.reason is Reason.NO_MEMORY:
        return OutOfMemory("there was no memory for the call")
    if step.reason is Reason.STORE:
        return StoreError(f"the store of the policy's {step.component.name.lower()} fails")
    if step.reason is Reason.ARGUMENT:
        message = "lie in different slots of the store's cluster: their names must share a {tag}"
        return ArgumentError(message, "limiters")
    if step.reason is Reason.REPLAYED_FAILURE:
        return ReplayedFailure(data=step.result or b"")
    kind = REFUSALS.get(step.reason)
    message = "" if kind is not None else f"the call ended without a result: {step.reason.name}"
    return (kind or Refused)(
        message, retry_after=step.retry_after, component=step.component, reason=step.reason
    )
