# SPDX-License-Identifier: Apache-2.0
"""Many processes that share one bucket in a store, in virtual time: the algorithm of a limiter in a store, as
Sources/ReliabilityABI/Stored/StoredLimiter.swift has it, its store's breaker and the store's bucket."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

LONGEST_REFUSAL = 0.1  # for so long a refusal of the store stands in a process
MAX_FAILURES, OPEN, OPEN_MAX = 5, 0.1, 5.0  # of the breaker in front of the store


@dataclass(frozen=True)
class Settings:
    processes: int
    rate: float  # tokens a second
    capacity: float
    lease: float
    round_trip: float = 0.001
    timeout: float = 1.0
    on_error: str = "refuse"
    local_share: float = 0.0
    outage: tuple[float, float] = (0.0, 0.0)  # from, to: the store answers nobody, calls time out


@dataclass
class Bucket:
    rate: float
    capacity: float
    level: float
    since: float = 0.0

    def take(self, tokens: float, least: float, now: float) -> tuple[float, float]:
        """What is taken, 0 for a refusal, and then how long it takes until there is enough."""
        self.level = min(self.capacity, self.level + (now - self.since) * self.rate)
        self.since = now
        if self.level < least:
            return 0.0, (least - self.level) / self.rate
        taken = min(tokens, self.level)
        self.level -= taken
        return taken, 0.0


@dataclass
class Process:
    local: Bucket
    front: float = 0.0
    busy_until: float = 0.0  # one thread asks at a time
    refused_until: float = 0.0
    refused_tokens: float = 0.0
    failures: int = 0
    trips: int = 0  # of the breaker, in a row
    open_until: float = 0.0
    offered: float = 0.0
    admitted: float = 0.0


@dataclass
class Seen:
    """What is measured; only from `begin` on."""

    begin: float
    calls: int = 0
    requests: int = 0
    errors: int = 0
    offered: float = 0.0
    admitted: float = 0.0
    most_over: float = 0.0  # of any window: what was admitted beyond capacity + rate * t
    by_second: dict[int, float] = field(default_factory=dict)
    lowest: float = 0.0  # of what was admitted minus what the rate gives


# Of a process after a time: when its next request is, and of how many tokens.
Traffic = Callable[[random.Random, int, float], "tuple[float, float]"]


class Cluster:
    def __init__(self, settings: Settings, seed: int) -> None:
        self.settings = settings
        self.bucket = Bucket(settings.rate, settings.capacity, settings.capacity)
        share = settings.local_share
        rate, capacity = settings.rate * share or 1e-9, max(1.0, settings.capacity * share)
        self.processes = [Process(Bucket(rate, capacity, capacity)) for _ in range(settings.processes)]
        self.random = random.Random(seed)  # noqa: S311

    # ---- a request ----

    def arrive(self, number: int, tokens: float, now: float) -> None:
        process = self.processes[number]
        if now >= self.seen.begin:
            process.offered += tokens
            self.seen.offered += tokens
            self.seen.requests += 1
        self.request(number, tokens, now)

    def request(self, number: int, tokens: float, now: float) -> None:
        process = self.processes[number]
        leases = self.settings.lease > 0
        if process.front >= tokens:
            process.front -= tokens
            self.admit(process, tokens, now)
        elif leases and now < process.refused_until and tokens >= process.refused_tokens:
            pass  # the refusal stands
        elif leases and now < process.busy_until:
            self.at(process.busy_until, self.request, number, tokens)
        else:
            self.ask(number, tokens, now)

    def ask(self, number: int, tokens: float, now: float) -> None:
        process, settings = self.processes[number], self.settings
        if now < process.open_until:
            self.without(number, tokens, now)
            return
        if process.trips and process.failures >= MAX_FAILURES:
            process.open_until = now + settings.timeout  # while one is let through
        if now >= self.seen.begin:
            self.seen.calls += 1
        from_, to = settings.outage
        if from_ <= now < to:
            process.busy_until = now + settings.timeout
            self.at(process.busy_until, self.fail, number, tokens)
        else:
            process.busy_until = now + settings.round_trip
            self.at(now + settings.round_trip / 2, self.decide, number, tokens)

    def decide(self, number: int, tokens: float, now: float) -> None:
        """In the store."""
        process = self.processes[number]
        missing = max(1.0, tokens - process.front)
        room = self.settings.capacity - process.front
        wanted = max(missing, min(missing + self.settings.lease, room))
        taken, wait = self.bucket.take(wanted, missing, now)
        self.at(now + self.settings.round_trip / 2, self.answer, number, tokens, taken, wait)

    def answer(self, number: int, tokens: float, taken: float, wait: float, now: float) -> None:
        process = self.processes[number]
        process.failures = process.trips = 0
        process.open_until = 0.0
        process.front += taken
        if taken:
            self.request(number, tokens, now)
        elif self.settings.lease > 0:
            process.refused_until = now + min(wait, LONGEST_REFUSAL)
            process.refused_tokens = tokens

    # ---- a store that is down ----

    def fail(self, number: int, tokens: float, now: float) -> None:
        process = self.processes[number]
        process.failures += 1
        if process.failures >= MAX_FAILURES:
            process.open_until = now + min(OPEN_MAX, OPEN * 2.0**process.trips)
            process.trips += 1
        self.without(number, tokens, now)

    def without(self, number: int, tokens: float, now: float) -> None:
        process, how = self.processes[number], self.settings.on_error
        missing = max(0.0, tokens - process.front)
        if how == "refuse":
            self.seen.errors += now >= self.seen.begin
            return
        if how == "local" and missing > 0:
            missing_here = min(missing, process.local.capacity)
            if process.local.take(missing_here, missing_here, now)[0] == 0:
                return
        process.front = max(0.0, process.front - tokens)
        self.admit(process, tokens, now)

    # ---- counting ----

    def admit(self, process: Process, tokens: float, now: float) -> None:
        if now < self.seen.begin:
            return
        seen = self.seen
        balance = seen.admitted - self.settings.rate * (now - seen.begin)
        seen.lowest = min(seen.lowest, balance)
        seen.admitted += tokens
        seen.most_over = max(seen.most_over, balance + tokens - seen.lowest - self.settings.capacity)
        process.admitted += tokens
        second = int(now)
        seen.by_second[second] = seen.by_second.get(second, 0.0) + tokens

    # ---- time ----

    def at(self, when: float, what: Callable[..., None], *arguments: float) -> None:
        self.count += 1
        heapq.heappush(self.events, (when, self.count, what, arguments))

    def run(self, traffic: Traffic, begin: float, end: float) -> Seen:
        self.seen, self.count = Seen(begin), 0
        self.events: list[tuple[float, int, Callable[..., None], tuple[float, ...]]] = []

        def arrival(number: int, tokens: float, now: float) -> None:
            self.arrive(number, tokens, now)
            follow(number, now)

        def follow(number: int, now: float) -> None:
            when, tokens = traffic(self.random, number, now)
            self.at(when, arrival, number, tokens)

        for number in range(self.settings.processes):
            follow(number, 0.0)
        while self.events[0][0] < end:
            now, _, what, arguments = heapq.heappop(self.events)
            what(*arguments, now)
        return self.seen
