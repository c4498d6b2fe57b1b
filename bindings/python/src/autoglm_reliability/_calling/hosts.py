# SPDX-License-Identifier: Apache-2.0
"""What is remembered of each origin: its policy, and until when it wants to be left alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Callable, Optional

from ..errors import ClosedError
from ..policy import Policy
from .options import PolicyOption, default_policy

NANOSECOND = 1_000_000_000
#: Seconds for which new requests heed what a server has told an earlier one. One that says more may mean one
#: account's quota, or be in error, so it is asked again then.
LONGEST_REST = 600.0


class Host:
    __slots__ = ("origin", "policy", "resume_ns")

    def __init__(self, origin: str, policy: Policy) -> None:
        self.origin = origin
        self.policy = policy
        self.resume_ns = 0

    def rest(self, delay: float) -> None:
        """The server wants to be left alone so long; what it said of a longer time stands."""
        until = self.policy._now() + int(min(delay, LONGEST_REST) * NANOSECOND)
        self.resume_ns = max(self.resume_ns, until)

    def pause(self) -> float:
        """Seconds until it may be asked again."""
        if self.resume_ns == 0:
            return 0.0
        left = self.resume_ns - self.policy._now()
        if left <= 0:
            self.resume_ns = 0
            return 0.0
        return left / NANOSECOND


class Hosts:
    """A bounded table; the origin that was not used for the longest time goes first, and with it the policy
    that was made for it. Its calls that are under way go on: they keep what they need alive.

    latest  the one that was found last.
    """

    def __init__(self, policy: PolicyOption, most: int) -> None:
        self._shared = policy if isinstance(policy, Policy) else None
        self._make: Callable[[str], Policy] = default_policy
        if policy is not None and self._shared is None:
            assert not isinstance(policy, Policy)
            self._make = policy
        self._most = most
        self._hosts: OrderedDict[str, Host] = OrderedDict()
        self.latest: Optional[Host] = None
        self._lock = threading.Lock()
        self._closed = False

    def find(self, origin: str) -> Host:
        latest = self.latest
        if latest is not None and latest.origin == origin:
            return latest  # as it was found last, its place is right
        with self._lock:
            host: Optional[Host] = self._hosts.get(origin)
            if host is not None:
                self._hosts.move_to_end(origin)
            elif self._closed:
                raise ClosedError("the transport is closed")
            else:
                self.latest = None  # it may be the one that is dropped
                host = self._add(origin)
            self.latest = host
            return host

    def _add(self, origin: str) -> Host:
        policy = self._shared
        if policy is None:
            policy = self._make(origin)
            if not isinstance(policy, Policy):
                raise TypeError(f"policy: it made a {type(policy).__name__} in place of a Policy")
        host = self._hosts[origin] = Host(origin, policy)
        if len(self._hosts) > self._most:
            self._drop(self._hosts.popitem(last=False)[1])
        return host

    def _drop(self, host: Host) -> None:
        # One that was made by default is known to nobody else.
        if self._make is default_policy and host.policy is not self._shared:
            host.policy.close()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            self.latest = None
            while self._hosts:
                self._drop(self._hosts.popitem()[1])

    def __len__(self) -> int:
        return len(self._hosts)
