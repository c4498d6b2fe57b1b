# SPDX-License-Identifier: Apache-2.0
"""How long to wait before the next attempt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Optional

from . import _generated as c
from ._convert import Duration, fill, identifier, integer, nanoseconds, seconds, unsigned
from ._ffi import Int64, byref, check, initialised, lib
from .enums import Jitter, Outcome, Strategy


class Backoff:
    """The delays between attempts. Immutable; every argument has the library's default.

    strategy       Strategy.*; EXPONENTIAL.
    jitter         Jitter.*; FULL. The decorrelated shapes take NONE only.
    max_attempts   attempts in all, the first among them; 0: no limit; 3.
    base_delay     seconds; 0.1.
    max_delay      no delay is longer; 20 s.
    min_delay      ADAPTIVE: the floor; 0.01 s.
    fast_success   ADAPTIVE: a success quicker than this halves the delay; 0.1 s.
    multiplier     EXPONENTIAL: 1 ... 1000; 2.
    jitter_ratio   PROPORTIONAL: 0 ... 1; 0.5.
    """

    def __init__(
        self,
        *,
        strategy: Optional[Strategy] = None,
        jitter: Optional[Jitter] = None,
        max_attempts: Optional[int] = None,
        base_delay: Optional[Duration] = None,
        max_delay: Optional[Duration] = None,
        min_delay: Optional[Duration] = None,
        fast_success: Optional[Duration] = None,
        multiplier: Optional[float] = None,
        jitter_ratio: Optional[float] = None,
    ) -> None:
        self._config: c.agr_backoff_config = initialised(c.agr_backoff_config)
        fill(
            self._config,
            {
                "strategy": strategy,
                "jitter": jitter,
                "max_attempts": max_attempts,
                "base_delay": base_delay,
                "max_delay": max_delay,
                "min_delay": min_delay,
                "fast_success": fast_success,
                "multiplier": multiplier,
                "jitter_ratio": jitter_ratio,
            },
        )
        self.delay(1, random=0)  # refuses an invalid field by name, now rather than later

    @property
    def max_attempts(self) -> int:
        return self._config.max_attempts

    def delay(self, attempt: int, previous: Duration = 0, *, random: Optional[int] = None) -> Optional[float]:
        """Seconds to wait after attempt number `attempt` failed; None when no attempt is left.

        previous  the delay before that attempt.
        random    64 bits, for a stream of one's own.
        """
        bits = lib.agr_random() if random is None else identifier(random, "random")
        delay, error = Int64(), c.agr_error()
        status = lib.agr_backoff_delay(
            byref(self._config),
            unsigned(attempt, "attempt"),
            nanoseconds(previous, "previous"),
            bits,
            byref(delay),
            byref(error),
        )
        return None if check(status, error) == c.AGR_EXHAUSTED else seconds(delay.value)

    def delays(self) -> Iterator[float]:
        """The delays of one run of attempts, until they are exhausted."""
        attempt, previous = 1, 0.0
        while True:
            delay = self.delay(attempt, previous)
            if delay is None:
                return
            yield delay
            attempt, previous = attempt + 1, delay

    def adapt(self, current: Duration, outcome: Outcome, latency: Duration) -> float:
        """ADAPTIVE: the next delay, after a call which took `latency` and ended so; 0 is base_delay."""
        following, error = Int64(), c.agr_error()
        status = lib.agr_backoff_adapt(
            byref(self._config),
            nanoseconds(current, "current"),
            integer(outcome, "outcome"),
            nanoseconds(latency, "latency"),
            byref(following),
            byref(error),
        )
        check(status, error)
        return seconds(following.value)
