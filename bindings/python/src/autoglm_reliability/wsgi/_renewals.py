# SPDX-License-Identifier: Apache-2.0
"""Renewing the leases of the runs that are under way, in one thread for all."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Optional

from ..errors import ReliabilityError
from ..lease import Lease

SHORTEST = 0.01


class Renewals:
    def __init__(self) -> None:
        self._leases: set[Lease] = set()
        self._every = 1e9
        self._changed = threading.Condition()
        self._thread: Optional[threading.Thread] = None

    def add(self, lease: Lease) -> None:
        with self._changed:
            self._leases.add(lease)
            every = max(lease.expires_in / 3, SHORTEST)
            if every < self._every:
                self._every = every
                self._changed.notify()
            # After a fork there is none in the child.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._go, daemon=True, name="agr-leases")
                self._thread.start()

    def remove(self, lease: Lease) -> None:
        with self._changed:
            self._leases.discard(lease)

    def _go(self) -> None:
        while True:
            with self._changed:
                every = self._every
                if self._changed.wait(min(every, threading.TIMEOUT_MAX)):
                    continue  # another period
                leases = list(self._leases)
            for lease in leases:
                # A store that is away is asked again in time; a lease that was lost shows when the run is
                # over. The run may end it in this very moment.
                with suppress(ReliabilityError, IndexError):
                    lease.renew()
