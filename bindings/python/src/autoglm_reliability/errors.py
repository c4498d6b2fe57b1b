# SPDX-License-Identifier: Apache-2.0
"""The exceptions. A refusal says who refused, why, and when to come back."""

from __future__ import annotations

from .enums import Component, Reason


class ReliabilityError(Exception):
    """The root of the tree."""


class LibraryError(ReliabilityError, ImportError):
    """The native library is missing, of another version, or lacks a function."""


class ArgumentError(ReliabilityError, ValueError):
    """A value is out of its range. `field` names the argument."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class ParseError(ReliabilityError, ValueError):
    """A text is not in the format that it should be in."""


class OutOfMemory(ReliabilityError, MemoryError):
    """The library could not allocate; the object is as it was."""


class SystemFailure(ReliabilityError, OSError):
    """The operating system refused; `errno` has its number."""


class RegionError(ReliabilityError):
    """The shared memory is another user's, another version's, damaged, or open to too many."""


class StoreError(ReliabilityError):
    """A store failed, could not be reached, or cannot be opened. `data` is the result of a run that was
    executed and could not be kept."""

    data: bytes | None = None


class MismatchError(ReliabilityError, ValueError):
    """A region has the object with another configuration. `field` names the first difference."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(message)
        self.field = field


class StateError(ReliabilityError):
    """The call is out of order."""


class ClosedError(StateError):
    """The object was closed."""


class LeaseLost(StateError):
    """A lease had expired, or had ended, before its result came; nothing was stored."""


class LockLost(StateError):
    """A lock had ended before it was renewed or released; another may have held it since."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or ""))


class WaitTimeout(ReliabilityError, TimeoutError):
    """The time given for a wait ran out; nothing changed."""


class Refused(ReliabilityError):
    """The call was not made, or not made again.

    retry_after  seconds until it may be worth asking again; math.inf: never by itself; None: not known.
    component    who refused.
    reason       why.
    """

    component_default = Component.NONE
    reason_default = Reason.NONE

    def __init__(
        self,
        message: str = "",
        *,
        retry_after: float | None = None,
        component: Component | None = None,
        reason: Reason | None = None,
        field: str = "",
    ) -> None:
        super().__init__(message or (type(self).__doc__ or "").split("\n")[0])
        self.retry_after = retry_after
        self.component = self.component_default if component is None else component
        self.reason = self.reason_default if reason is None else reason
        self.field = field


class RateLimited(Refused):
    """There are not enough tokens."""

    component_default = Component.LIMITER
    reason_default = Reason.LIMITED


class CircuitOpen(Refused):
    """The circuit breaker admits nobody now."""

    component_default = Component.BREAKER
    reason_default = Reason.OPEN


class BudgetExhausted(Refused):
    """The retry budget is spent."""

    component_default = Component.BUDGET
    reason_default = Reason.BUDGET_EXHAUSTED


class DeadlineExceeded(Refused, TimeoutError):
    """The deadline is over, or the wait that is needed would overrun it."""

    component_default = Component.DEADLINE
    reason_default = Reason.DEADLINE


class Mismatch(Refused):
    """The idempotency key is in use for another request."""

    component_default = Component.IDEMPOTENCY
    reason_default = Reason.MISMATCH


class CapacityError(Refused):
    """A bound that the configuration set is reached. `field` names it."""

    reason_default = Reason.CAPACITY


class NeverFits(Refused):
    """The request is larger than the bucket or the cache can ever hold."""

    reason_default = Reason.NEVER_FITS


class Queued(Refused):
    """The policy's fallback asks for this call to be put off."""

    component_default = Component.FALLBACK
    reason_default = Reason.QUEUE


class ReplayedFailure(Refused):
    """The key's earlier run failed, and that is its result. `data` is what was kept of it."""

    component_default = Component.IDEMPOTENCY
    reason_default = Reason.REPLAYED_FAILURE

    def __init__(self, message: str = "", *, data: bytes = b"") -> None:
        super().__init__(message)
        self.data = data


class InProgress(Refused):
    """Another caller is executing this key."""

    component_default = Component.IDEMPOTENCY
    reason_default = Reason.JOINED
