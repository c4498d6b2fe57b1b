# SPDX-License-Identifier: Apache-2.0
"""The cache against a dictionary."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Optional

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from autoglm_reliability import IdempotencyCache, KeyState, Lease, LeaseLost, Result, Ticket
from autoglm_reliability.testing import ManualClock

KEYS = st.sampled_from(["a", "b", "c"])
TTL, LEASE = 100, 10


@dataclass
class Entry:
    state: KeyState = KeyState.PENDING
    #: when the state ends by itself: the lease, the time to live, the memory of an unknown outcome
    until: int = 0
    lease: Optional[Lease] = None
    data: bytes = b""
    unknown: bool = False
    line: list[Ticket] = field(default_factory=list)


class IdempotencyModel(RuleBasedStateMachine):
    @initialize(seed=st.integers(1, 1000), entries=st.sampled_from([100, 2000, 65536]))
    def create(self, seed: int, entries: int) -> None:
        """The seed and the size decide which keys share a lock. They are drawn, for with a seed of the
        kernel's a failure could not be repeated."""
        self.clock = ManualClock(0)
        self.cache = IdempotencyCache(ttl=TTL, lease=LEASE, max_entries=entries, seed=seed, clock=self.clock)
        self.keys: dict[str, Entry] = {}
        self.leases: list[tuple[str, Lease]] = []
        self.answered: list[tuple[Ticket, bytes]] = []
        self.fence = 0

    @property
    def now(self) -> int:
        return self.clock() // 10**9

    def look(self, key: str) -> Entry:
        """The entry, with what time has done to it."""
        entry = self.keys.setdefault(key, Entry())
        if entry.state is KeyState.PROCESSING and self.now >= entry.until:
            entry.unknown = True
            self.free(key, entry, since=entry.until)
        if entry.state is not KeyState.PROCESSING and not entry.line and self.now >= entry.until:
            entry = self.keys[key] = Entry()
        return entry

    def free(self, key: str, entry: Entry, since: int) -> None:
        """Nobody executes it any more: it is for those who wait, or kept to tell what is unknown."""
        entry.state, entry.lease, entry.until = KeyState.PENDING, None, since + TTL
        if not entry.line and not entry.unknown:
            self.keys[key] = Entry()

    def lead(self, key: str, entry: Entry, lease: Lease) -> None:
        assert lease.fence > self.fence
        assert lease.outcome_unknown == entry.unknown
        self.fence = lease.fence
        entry.state, entry.lease, entry.until = KeyState.PROCESSING, lease, self.now + LEASE
        self.leases.append((key, lease))

    @rule(seconds=st.integers(0, 40))
    def advance(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule(key=KEYS)
    def join(self, key: str) -> None:
        entry = self.look(key)
        answer = self.cache.join(key)
        if entry.state is KeyState.SUCCESS:
            assert isinstance(answer, Result)
            assert bytes(answer) == entry.data
            answer.release()
        elif entry.state is KeyState.PENDING and not entry.line:
            assert isinstance(answer, Lease)
            self.lead(key, entry, answer)
        elif isinstance(answer, Ticket):
            entry.line.append(answer)
        else:
            # Nobody executes it, and others wait: whether the newcomer is let in first is not fixed.
            assert entry.state is KeyState.PENDING
            assert isinstance(answer, Lease)
            self.lead(key, entry, answer)

    @rule(key=KEYS, data=st.data())
    def poll(self, key: str, data: st.DataObject) -> None:
        entry = self.look(key)
        if not entry.line:
            return
        index = data.draw(st.integers(0, len(entry.line) - 1))
        answer = entry.line[index].poll()
        if entry.state is KeyState.PROCESSING:
            assert answer is None
        elif answer is not None:
            assert isinstance(answer, Lease)
            del entry.line[index]
            self.lead(key, entry, answer)
        else:
            # One who does not come for one lease time loses his turn to the next, so that it need
            # not be the first in the model's line; but it is one of them.
            assert len(entry.line) > 1

    @rule(key=KEYS)
    def somebody_is_promoted(self, key: str) -> None:
        entry = self.look(key)
        if entry.state is not KeyState.PENDING or not entry.line:
            return
        answers = [(ticket, ticket.poll()) for ticket in entry.line]
        (promoted,) = [(ticket, answer) for ticket, answer in answers if answer is not None]
        assert isinstance(promoted[1], Lease)
        entry.line.remove(promoted[0])
        self.lead(key, entry, promoted[1])

    @precondition(lambda self: self.answered)
    @rule(data=st.data())
    def collect(self, data: st.DataObject) -> None:
        ticket, content = self.answered.pop(data.draw(st.integers(0, len(self.answered) - 1)))
        answer = ticket.poll()
        assert isinstance(answer, Result)
        assert bytes(answer) == content
        answer.release()

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), content=st.binary(max_size=30))
    def complete(self, data: st.DataObject, content: bytes) -> None:
        key, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        entry = self.look(key)
        try:
            lease.complete(content)
        except LeaseLost:
            assert entry.lease is not lease
            return
        assert entry.lease is lease
        entry.state, entry.lease, entry.data = KeyState.SUCCESS, None, content
        entry.until, entry.unknown = self.now + TTL, False
        self.answered += [(ticket, content) for ticket in entry.line]
        entry.line = []

    @precondition(lambda self: self.leases)
    @rule(data=st.data(), known=st.booleans())
    def fail(self, data: st.DataObject, known: bool) -> None:
        key, lease = self.leases.pop(data.draw(st.integers(0, len(self.leases) - 1)))
        entry = self.look(key)
        try:
            if known:
                lease.fail()
            elif not lease.abandon():
                raise LeaseLost
        except LeaseLost:
            assert entry.lease is not lease
            return
        assert entry.lease is lease
        entry.unknown = entry.unknown or not known
        self.free(key, entry, since=self.now)

    @rule(key=KEYS)
    def leave(self, key: str) -> None:
        entry = self.look(key)
        if entry.line:
            assert entry.line.pop().leave()
            if entry.state is KeyState.PENDING and not entry.line:
                self.free(key, entry, since=self.now)

    @invariant()
    def as_many_wait_as_in_the_model(self) -> None:
        if not hasattr(self, "cache"):
            return
        waiting = sum(len(entry.line) for entry in self.keys.values()) + len(self.answered)
        assert self.cache.snapshot().waiters == waiting


TestIdempotencyModel = IdempotencyModel.TestCase
