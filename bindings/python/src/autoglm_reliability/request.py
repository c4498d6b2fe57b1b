# SPDX-License-Identifier: Apache-2.0
"""What a guarded call is told about its request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Optional, Union

from . import _generated as c
from ._convert import Bytes, Duration, integer, nanoseconds, octets
from ._ffi import Int32, address_of, initialised
from .classify import write_costs
from .errors import ArgumentError

if TYPE_CHECKING:
    from ._handle import Native


@dataclass(frozen=True)
class Request:
    """
    key          of idempotency; empty: the cache is not asked.
    fingerprint  what the request consists of, so that the key's reuse for another is noticed.
    cache_key    of cached answers; empty: none is kept, none is found.
    costs        estimated, one a limiter; a number is the first limiter's; by default 1.
    timeout      seconds from now; by default the policy's total_timeout.
    deadline     in place of timeout: seconds on the policy's clock (time.monotonic()).
    priority     kept and reported; 0 is normal.
    trace_id     goes into events; at most 63 bytes are kept.
    """

    key: Bytes = b""
    fingerprint: Bytes = b""
    cache_key: Bytes = b""
    costs: Union[int, Sequence[int], None] = None
    timeout: Optional[Duration] = None
    deadline: Optional[Duration] = None
    priority: int = 0
    trace_id: Bytes = b""

    def _write(self, policy: Native) -> tuple[Optional[c.agr_request], list[bytes]]:
        """The C structure, and the bytes that it points to; None for the defaults."""
        if self is DEFAULTS:
            return None, []
        request: c.agr_request = initialised(c.agr_request)
        kept: list[bytes] = []
        for name in ("key", "fingerprint", "cache_key"):
            data = octets(getattr(self, name), name)
            kept.append(data)
            if data:
                setattr(request, name, address_of(data))
                setattr(request, f"{name}_length", len(data))
        trace = octets(self.trace_id, "trace_id")
        if trace:
            request.trace_id, request.trace_id_length = trace, len(trace)
            kept.append(trace)
        request.priority = integer(self.priority, "priority", Int32)
        if self.costs is not None:
            costs: Sequence[Any] = (self.costs,) if isinstance(self.costs, int) else self.costs
            write_costs(request.costs, costs, unknown=0)
        request.deadline_ns = self._deadline(policy)
        return request, kept

    def _deadline(self, policy: Native) -> int:
        if self.deadline is not None:
            if self.timeout is not None:
                raise ArgumentError("timeout and deadline exclude each other", "deadline")
            return max(1, nanoseconds(self.deadline, "deadline"))
        if self.timeout is not None:
            left = nanoseconds(self.timeout, "timeout", forever=True)
            # 0 would mean the policy's own time-out; there are no longer deadlines than the last.
            return max(1, min(policy._now() + left, c.AGR_TIME_MAX_NS))
        return 0


DEFAULTS = Request()
