# SPDX-License-Identifier: Apache-2.0
"""The named numbers of the C interface. Every member is an int and can be used as one."""

from __future__ import annotations

from enum import IntEnum

from . import _generated as c


class Strategy(IntEnum):
    """The shape of a backoff's delay."""

    CONSTANT = c.AGR_BACKOFF_CONSTANT
    LINEAR = c.AGR_BACKOFF_LINEAR
    EXPONENTIAL = c.AGR_BACKOFF_EXPONENTIAL
    DECORRELATED = c.AGR_BACKOFF_DECORRELATED
    SMOOTH_DECORRELATED = c.AGR_BACKOFF_SMOOTH_DECORRELATED
    ADAPTIVE = c.AGR_BACKOFF_ADAPTIVE


class Jitter(IntEnum):
    """What chance does to a backoff's delay."""

    NONE = c.AGR_JITTER_NONE
    FULL = c.AGR_JITTER_FULL
    EQUAL = c.AGR_JITTER_EQUAL
    PROPORTIONAL = c.AGR_JITTER_PROPORTIONAL
    DECORRELATED = c.AGR_JITTER_DECORRELATED


class Outcome(IntEnum):
    """How a call ended, as a breaker sees it."""

    SUCCESS = c.AGR_OUTCOME_SUCCESS
    FAILURE = c.AGR_OUTCOME_FAILURE
    NEUTRAL = c.AGR_OUTCOME_NEUTRAL
    BACKPRESSURE = c.AGR_OUTCOME_BACKPRESSURE


class ErrorClass(IntEnum):
    """What kind of failure an attempt ended with, which decides whether it is repeated."""

    SUCCESS = c.AGR_CLASS_SUCCESS
    TRANSIENT = c.AGR_CLASS_TRANSIENT
    TEMPORARY = c.AGR_CLASS_TEMPORARY
    PERMANENT = c.AGR_CLASS_PERMANENT
    CANCELLED = c.AGR_CLASS_CANCELLED
    UNKNOWN = c.AGR_CLASS_UNKNOWN


class Domain(IntEnum):
    """What a code is a code of."""

    NONE = c.AGR_DOMAIN_NONE
    HTTP = c.AGR_DOMAIN_HTTP
    ERRNO = c.AGR_DOMAIN_ERRNO
    USER = c.AGR_DOMAIN_USER


class Hint(IntEnum):
    """The format of a server's hint about when to come back."""

    RETRY_AFTER = c.AGR_HINT_RETRY_AFTER
    RETRY_AFTER_MS = c.AGR_HINT_RETRY_AFTER_MS
    DURATION = c.AGR_HINT_DURATION


class Preset(IntEnum):
    """A ready-made configuration."""

    DEVELOPMENT = c.AGR_PRESET_DEVELOPMENT
    PRODUCTION = c.AGR_PRESET_PRODUCTION
    EDGE = c.AGR_PRESET_EDGE


class BreakerState(IntEnum):
    """Whether calls pass a breaker."""

    CLOSED = c.AGR_BREAKER_CLOSED
    OPEN = c.AGR_BREAKER_OPEN
    HALF_OPEN = c.AGR_BREAKER_HALF_OPEN


class BreakerMode(IntEnum):
    """Whether a breaker's state is obeyed."""

    AUTOMATIC = c.AGR_BREAKER_AUTOMATIC
    FORCED_OPEN = c.AGR_BREAKER_FORCED_OPEN
    FORCED_CLOSED = c.AGR_BREAKER_FORCED_CLOSED
    DISABLED = c.AGR_BREAKER_DISABLED
    OBSERVE = c.AGR_BREAKER_OBSERVE


class Window(IntEnum):
    """Which results a breaker's rates are computed over."""

    NONE = c.AGR_WINDOW_NONE
    COUNT = c.AGR_WINDOW_COUNT
    TIME = c.AGR_WINDOW_TIME


class WhenFull(IntEnum):
    """What a bounded table does with a new key when it is full."""

    REFUSE = c.AGR_WHEN_FULL_REFUSE
    EVICT = c.AGR_WHEN_FULL_EVICT


class ObjectKind(IntEnum):
    """What an object of a region is."""

    LIMITER = c.AGR_OBJECT_LIMITER
    KEYED_LIMITER = c.AGR_OBJECT_KEYED_LIMITER
    BREAKER = c.AGR_OBJECT_BREAKER
    RETRY_BUDGET = c.AGR_OBJECT_RETRY_BUDGET


class KeyState(IntEnum):
    """How far the execution of an idempotency key has come."""

    PENDING = c.AGR_KEY_PENDING
    PROCESSING = c.AGR_KEY_PROCESSING
    SUCCESS = c.AGR_KEY_SUCCESS
    FAILED = c.AGR_KEY_FAILED


class OnFailure(IntEnum):
    """Whether an idempotency cache keeps failures."""

    FORGET = c.AGR_ON_FAILURE_FORGET
    KEEP = c.AGR_ON_FAILURE_KEEP


class OnStoreError(IntEnum):
    """What an object in a store does when the store fails."""

    DEFAULT = c.AGR_STORE_DEFAULT
    REFUSE = c.AGR_STORE_REFUSE
    ADMIT = c.AGR_STORE_ADMIT
    LOCAL = c.AGR_STORE_LOCAL


class Synchronous(IntEnum):
    """When a transaction of the SQLite store counts as done: on the disk, or with the kernel."""

    FULL = 0
    NORMAL = 1


class Component(IntEnum):
    """The parts of a policy."""

    NONE = c.AGR_COMPONENT_NONE
    DEADLINE = c.AGR_COMPONENT_DEADLINE
    IDEMPOTENCY = c.AGR_COMPONENT_IDEMPOTENCY
    RETRY = c.AGR_COMPONENT_RETRY
    BUDGET = c.AGR_COMPONENT_BUDGET
    LIMITER = c.AGR_COMPONENT_LIMITER
    BREAKER = c.AGR_COMPONENT_BREAKER
    FALLBACK = c.AGR_COMPONENT_FALLBACK


class Mode(IntEnum):
    """How far a part of a policy is obeyed."""

    ENFORCE = c.AGR_MODE_ENFORCE
    OBSERVE = c.AGR_MODE_OBSERVE
    OFF = c.AGR_MODE_OFF


class Fallback(IntEnum):
    """What a call gets which was refused or has failed."""

    NONE = c.AGR_FALLBACK_NONE
    DEFAULT = c.AGR_FALLBACK_DEFAULT
    CACHED = c.AGR_FALLBACK_CACHED
    CACHED_OR_DEFAULT = c.AGR_FALLBACK_CACHED_OR_DEFAULT
    QUEUE = c.AGR_FALLBACK_QUEUE


class StepKind(IntEnum):
    """What to do next."""

    ATTEMPT = c.AGR_STEP_ATTEMPT
    WAIT = c.AGR_STEP_WAIT
    JOIN = c.AGR_STEP_JOIN
    DONE = c.AGR_STEP_DONE


class Reason(IntEnum):
    """Why a step is what it is, or how a call ended."""

    NONE = c.AGR_REASON_NONE
    SUCCEEDED = c.AGR_REASON_SUCCEEDED
    REPLAYED = c.AGR_REASON_REPLAYED
    FALLBACK_DEFAULT = c.AGR_REASON_FALLBACK_DEFAULT
    FALLBACK_CACHED = c.AGR_REASON_FALLBACK_CACHED
    FAILED_PERMANENT = c.AGR_REASON_FAILED_PERMANENT
    ATTEMPTS_EXHAUSTED = c.AGR_REASON_ATTEMPTS_EXHAUSTED
    BUDGET_EXHAUSTED = c.AGR_REASON_BUDGET_EXHAUSTED
    DEADLINE = c.AGR_REASON_DEADLINE
    LIMITED = c.AGR_REASON_LIMITED
    OPEN = c.AGR_REASON_OPEN
    MISMATCH = c.AGR_REASON_MISMATCH
    CAPACITY = c.AGR_REASON_CAPACITY
    COMMITTED = c.AGR_REASON_COMMITTED
    CANCELLED = c.AGR_REASON_CANCELLED
    HINT_TOO_LONG = c.AGR_REASON_HINT_TOO_LONG
    OUTCOME_UNKNOWN = c.AGR_REASON_OUTCOME_UNKNOWN
    NEVER_FITS = c.AGR_REASON_NEVER_FITS
    QUEUE = c.AGR_REASON_QUEUE
    REPLAYED_FAILURE = c.AGR_REASON_REPLAYED_FAILURE
    NO_MEMORY = c.AGR_REASON_NO_MEMORY
    LEASE_LOST = c.AGR_REASON_LEASE_LOST
    STORE = c.AGR_REASON_STORE
    ARGUMENT = c.AGR_REASON_ARGUMENT
    FIRST = c.AGR_REASON_FIRST
    RETRY = c.AGR_REASON_RETRY
    BACKOFF = c.AGR_REASON_BACKOFF
    SERVER_HINT = c.AGR_REASON_SERVER_HINT
    WAIT_LIMITER = c.AGR_REASON_WAIT_LIMITER
    WAIT_BREAKER = c.AGR_REASON_WAIT_BREAKER
    JOINED = c.AGR_REASON_JOINED
    PROMOTED = c.AGR_REASON_PROMOTED


class EventKind(IntEnum):
    """What a policy's event tells."""

    ATTEMPT = c.AGR_EVENT_ATTEMPT
    RETRY = c.AGR_EVENT_RETRY
    REFUSED = c.AGR_EVENT_REFUSED
    DONE = c.AGR_EVENT_DONE
