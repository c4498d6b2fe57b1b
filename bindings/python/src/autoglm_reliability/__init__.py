# SPDX-License-Identifier: Apache-2.0
"""Stay up while serving or calling an LLM: backoff and retry, retry budget, circuit breaker, rate
limiting, idempotency cache, and a policy that composes them. Durations are seconds or timedeltas."""

from ._accelerate import in_use as _in_use
from ._ffi import lib as _lib
from .attempt import Attempt, current_attempt
from .backoff import Backoff
from .breaker import BreakerEvent, BreakerSnapshot, CircuitBreaker
from .budget import RetryBudget
from .call import Call
from .classify import AttemptOutcome, default_classify
from .codec import JSON, Codec
from .combined import (
    acquire_all,
    acquire_all_async,
    reserve_all,
    reserve_all_async,
    try_acquire_all,
    try_acquire_all_async,
)
from .enums import (
    BreakerMode,
    BreakerState,
    Component,
    Domain,
    ErrorClass,
    EventKind,
    Fallback,
    Hint,
    Jitter,
    KeyState,
    Mode,
    ObjectKind,
    OnFailure,
    OnStoreError,
    Outcome,
    Preset,
    Reason,
    StepKind,
    Strategy,
    Synchronous,
    WhenFull,
    Window,
)
from .errors import (
    ArgumentError,
    BudgetExhausted,
    CapacityError,
    CircuitOpen,
    ClosedError,
    DeadlineExceeded,
    InProgress,
    LeaseLost,
    LibraryError,
    LockLost,
    Mismatch,
    MismatchError,
    NeverFits,
    OutOfMemory,
    ParseError,
    Queued,
    RateLimited,
    Refused,
    RegionError,
    ReliabilityError,
    ReplayedFailure,
    StateError,
    StoreError,
    SystemFailure,
    WaitTimeout,
)
from .events import EventReader
from .hints import hint_from_headers, parse_hint
from .idempotency import IdempotencyCache, IdempotencySnapshot
from .keyed_limiter import KeyedLimiterSnapshot, KeyedRateLimiter
from .lease import Lease, Ticket
from .limiter import LimiterSnapshot, RateLimiter
from .lock import DistributedLock, Hold
from .permit import Permit
from .policy import Policy
from .policy_event import PolicyEvent, PolicySnapshot
from .redis_store import RedisStore
from .region import Region, RegionObject, RegionSnapshot
from .request import Request
from .reservation import Reservation
from .result import Result
from .retry import Retry, RetryRule
from .step import Step
from .store import SQLiteStore, Store, StoreSnapshot

__version__ = "0.1.0"
#: Whether the hot paths run in the accelerator; else they run by ctypes, with the same results.
accelerated = _in_use()


def library_version() -> str:
    """The version of the native library, "major.minor.patch"."""
    return _lib.version()


__all__ = [
    "JSON",
    "ArgumentError",
    "Attempt",
    "AttemptOutcome",
    "Backoff",
    "BreakerEvent",
    "BreakerMode",
    "BreakerSnapshot",
    "BreakerState",
    "BudgetExhausted",
    "Call",
    "CapacityError",
    "CircuitBreaker",
    "CircuitOpen",
    "ClosedError",
    "Codec",
    "Component",
    "DeadlineExceeded",
    "DistributedLock",
    "Domain",
    "ErrorClass",
    "EventKind",
    "EventReader",
    "Fallback",
    "Hint",
    "Hold",
    "IdempotencyCache",
    "IdempotencySnapshot",
    "InProgress",
    "Jitter",
    "KeyState",
    "KeyedLimiterSnapshot",
    "KeyedRateLimiter",
    "Lease",
    "LeaseLost",
    "LibraryError",
    "LimiterSnapshot",
    "LockLost",
    "Mismatch",
    "MismatchError",
    "Mode",
    "NeverFits",
    "ObjectKind",
    "OnFailure",
    "OnStoreError",
    "OutOfMemory",
    "Outcome",
    "ParseError",
    "Permit",
    "Policy",
    "PolicyEvent",
    "PolicySnapshot",
    "Preset",
    "Queued",
    "RateLimited",
    "RateLimiter",
    "Reason",
    "RedisStore",
    "Refused",
    "Region",
    "RegionError",
    "RegionObject",
    "RegionSnapshot",
    "ReliabilityError",
    "ReplayedFailure",
    "Request",
    "Reservation",
    "Result",
    "Retry",
    "RetryBudget",
    "RetryRule",
    "SQLiteStore",
    "StateError",
    "Step",
    "StepKind",
    "Store",
    "StoreError",
    "StoreSnapshot",
    "Strategy",
    "Synchronous",
    "SystemFailure",
    "Ticket",
    "WaitTimeout",
    "WhenFull",
    "Window",
    "accelerated",
    "acquire_all",
    "acquire_all_async",
    "current_attempt",
    "default_classify",
    "hint_from_headers",
    "library_version",
    "parse_hint",
    "reserve_all",
    "reserve_all_async",
    "try_acquire_all",
    "try_acquire_all_async",
]
