# SPDX-License-Identifier: Apache-2.0
"""What a policy tells about its calls."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import _generated as c
from ._convert import record
from ._ffi import Size, byref, check, lib, text_buffer
from .enums import Component, Domain, EventKind, Reason


@dataclass(frozen=True)
class PolicySnapshot:
    """Counters since creation. `backoff` is the seconds of all waits between attempts."""

    calls_alive: int
    calls: int
    attempts: int
    retries: int
    succeeded: int
    replayed: int
    joined: int
    fallbacks: int
    failed: int
    refused_limiter: int
    refused_breaker: int
    refused_budget: int
    refused_deadline: int
    refused_other: int
    abandoned: int
    observed: int
    backoff: float


@dataclass(frozen=True)
class PolicyEvent:
    """Times are seconds, `time` on the policy's clock. `json` is the event as one line."""

    kind: EventKind = field(metadata={"as": EventKind})
    reason: Reason = field(metadata={"as": Reason})
    component: Component = field(metadata={"as": Component})
    domain: Domain = field(metadata={"as": Domain})
    code: int
    error_class: int
    attempt: int
    observed: bool = field(metadata={"as": bool})
    priority: int
    call_id: int
    time: float
    backoff: float
    latency: float
    retry_after: float
    trace_id: str = field(metadata={"as": lambda text: text.decode("utf-8", "replace")})
    json: str


def read_event(event: Any) -> PolicyEvent:
    return record(PolicyEvent, event, json=event_json(event))


def event_json(event: c.agr_event) -> str:
    length, error = Size(), c.agr_error()
    lib.agr_event_json(byref(event), None, 0, byref(length), byref(error))
    buffer = text_buffer(length.value + 1)
    status = lib.agr_event_json(byref(event), buffer, len(buffer), byref(length), byref(error))
    check(status, error)
    text: bytes = buffer.value
    return text.decode("utf-8", "replace")
