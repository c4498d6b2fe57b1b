# SPDX-License-Identifier: Apache-2.0
"""A request from its first attempt to the last byte of its answer: one call of a policy. It does no I/O."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Optional, cast

from .. import _generated as c
from .._convert import Duration, seconds
from .._report import _refusal
from ..call import Begun, Call
from ..classify import AttemptOutcome
from ..errors import ClosedError, DeadlineExceeded, RateLimited
from ..policy import Policy
from ..propagation import ATTEMPT_HEADER, LONGEST_MS, NOTHING, TIMEOUT_HEADER, Inbound
from ..request import DEFAULTS, Request
from .hosts import NANOSECOND, Host, Hosts
from .options import Options

if TYPE_CHECKING:
    from .._handle import Native

#: Methods that may be repeated by what they mean (RFC 9110, 9.2.2).
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})
#: Seconds from which on a time-out is none: AGR_FOREVER is longer than anything that a system call takes.
LONGEST = 1e9
#: Methods that get a key.
KEYED = frozenset({"POST", "PATCH"})


class _Written(Request):
    """As it is asked for each time, it is put into C's form once."""

    def _write(self, policy: Native) -> tuple[Optional[c.agr_request], list[bytes]]:
        return _WRITTEN if self is _REPEATABLE else super()._write(policy)


# What tells the policy that a request which was sent and had no reply may be sent again.
_REPEATABLE = _Written(key=b"repeatable")
_WRITTEN = Request._write(_REPEATABLE, cast("Native", None))  # only a deadline is a policy's
_REPEATABLE_BYTES = bytes(cast("Any", _WRITTEN[0]))


class Exchange:
    """
    repeatable  the request may be made again though it may have been executed.
    resendable  its body can be sent again at all.
    until       when all of it has to be over at the latest, on time.monotonic().
    limit       the same of the present attempt; math.inf: never.
    failure     how the last attempt that failed did so.
    waits       a step of it may wait for a store.
    kind        what to do next: an AGR_STEP_*.
    number      of the attempt.
    attempt_ns, connect_ns, first_byte_ns, idle_ns  the time for each; AGR_FOREVER: no limit.
    """

    __slots__ = (
        "_begun",
        "_remaining_ns",
        "_request",
        "_single",
        "attempt_ns",
        "connect_ns",
        "failure",
        "first_byte_ns",
        "host",
        "idle_ns",
        "kind",
        "limit",
        "number",
        "options",
        "repeatable",
        "waits",
    )

    def __init__(
        self,
        hosts: Hosts,
        host: Host,
        options: Options,
        repeatable: bool,
        resendable: bool,
        costs: Optional[Sequence[int]] = None,
        until: float = math.inf,
        inbound: Inbound = NOTHING,
    ) -> None:
        self._single = not resendable or (inbound.retried_outside and not options.nested_retries)
        self.options = options
        self.repeatable = repeatable
        self.limit = math.inf
        self.failure: Optional[AttemptOutcome] = None
        self._request = _REPEATABLE if repeatable else DEFAULTS
        if costs is not None:
            self._request = replace(self._request, costs=costs)
        self._begun = self._begin(hosts, host)
        self.waits = self.host.policy._waits
        self._arrive()
        until = min(until, inbound.deadline)
        if until < math.inf and until - time.monotonic() < self.remaining:
            self._begin_again(until - time.monotonic())

    def _begin(self, hosts: Hosts, host: Host) -> Begun:
        while True:
            self.host = host
            try:
                if self._request is _REPEATABLE:
                    return host.policy._start(_REPEATABLE, _REPEATABLE_BYTES)
                if self._request is DEFAULTS:
                    return host.policy._start(DEFAULTS, None)
                return host.policy.begin(self._request)
            except ClosedError:
                # Another thread's new origin may just have taken its place in the table.
                host = hosts.find(host.origin)
                if host is self.host:
                    raise

    def _begin_again(self, left: float) -> None:
        """With less time than the policy would give. A call that is closed before its end counts nowhere."""
        self._begun._close()
        self._begun = self.host.policy.begin(replace(self._request, timeout=max(0.0, left)))
        self._arrive()

    def _arrive(self) -> None:
        """At another step."""
        self.kind, self.number, left, attempt, self.connect_ns, self.first_byte_ns, self.idle_ns = (
            self._begun._told()
        )
        self._remaining_ns = left
        self.attempt_ns = min(left, attempt)

    @property
    def policy(self) -> Policy:
        return self.host.policy

    @property
    def call(self) -> Call:
        self._begun = call = self._begun._owned()
        return call

    @property
    def remaining(self) -> float:
        """Seconds until the deadline; math.inf: there is none."""
        return seconds(self._remaining_ns)

    @property
    def attempt_time(self) -> float:
        """The seconds that the attempt may take; math.inf: no limit."""
        return seconds(self.attempt_ns)

    def pause(self) -> float:
        """Seconds to wait before the first attempt, because the server has told an earlier request so; after
        them, resume(). Raises when that is longer than anybody waits."""
        wait = self.host.pause()
        if wait == 0.0 or self.kind != c.AGR_STEP_ATTEMPT:
            return 0.0
        wait += random.random() * min(1.0, wait / 4)  # noqa: S311 - not all that wait are to come at once
        if wait > min(self.remaining, self.options.max_pause):
            late = wait <= self.options.max_pause
            kind = DeadlineExceeded if late else RateLimited
            raise kind("the server has asked to be left alone", retry_after=wait)
        return wait

    def resume(self, waited: float) -> None:
        """The call begins only now: while it waits, it is not to hold a breaker's permit, nor tokens."""
        self._begin_again(self.remaining - waited)

    def start(self) -> float:
        """Begins an attempt: its limit."""
        left = self.attempt_ns
        self.limit = math.inf if left == c.AGR_FOREVER else time.monotonic() + left / NANOSECOND
        return self.limit

    def headers(self) -> tuple[tuple[str, int], ...]:
        """What this attempt tells the server."""
        attempt, left = (ATTEMPT_HEADER, self.number), self.attempt_ns // 1_000_000
        return (attempt,) if left >= LONGEST_MS else (attempt, (TIMEOUT_HEADER, left))

    def rest(self, delay: Optional[Duration]) -> None:
        """The server has said when it wants the next request."""
        if isinstance(delay, (int, float)) and 0 < delay < math.inf:
            self.host.rest(delay)

    def fail(self, outcome: AttemptOutcome) -> None:
        """The attempt failed; `kind` says what follows."""
        self.rest(outcome.server_delay)
        self.failure = outcome
        if self._single:
            outcome = replace(outcome, server_delay=math.inf)
        self.call._go_on(outcome)
        self._arrive()

    def go_on(self) -> None:
        """After a wait."""
        self.call._go_on()
        self._arrive()

    def commit(self) -> None:
        """A byte of the answer is passed on."""
        self.call.commit()

    def succeed(self, costs: Sequence[Optional[int]] = ()) -> None:
        if not costs:
            self._begun._succeed()
            return
        self.call._go_on(AttemptOutcome.success(costs=costs))
        self.call.close()

    def close(self) -> None:
        """Before its end that is neutral: whoever asked has gone away."""
        self._begun._close()

    def refusal(self) -> Exception:
        return _refusal(self.call.step)

    @property
    def closed(self) -> bool:
        return self._begun._closed


def least(asked: Optional[float], limit: float) -> Optional[float]:
    """Of two time-outs in seconds; None: there is none."""
    if asked is not None and asked <= limit:
        return asked
    return limit if limit < LONGEST else asked
