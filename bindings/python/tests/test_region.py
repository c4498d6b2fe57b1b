# SPDX-License-Identifier: Apache-2.0
"""Regions: what one process does to an object the others see."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability as agr

SECOND = 1_000_000_000


@pytest.fixture
def name() -> Iterator[str]:
    made = f"pytest-{os.getpid()}"
    yield made
    agr.Region.unlink(made)


class Time:
    """A clock that stands still."""

    def __init__(self, now: int = SECOND) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now


def test_two_handles_of_one_region_share_their_objects(name: str) -> None:
    time = Time()
    with agr.Region(name, 1 << 23) as one, agr.Region(name) as other:
        regions = (one, other)
        first = agr.RateLimiter(10, 0, scope=one, name="tokens", clock=time)
        second = agr.RateLimiter(10, 0, scope=other, name="tokens", clock=time)
        assert first.try_acquire(7)
        assert not second.try_acquire(7)
        assert second.available == 3
        keys = [agr.KeyedRateLimiter(5, 1, scope=r, name="keys", clock=time) for r in regions]
        assert keys[0].try_acquire("k", 5)
        assert not keys[1].try_acquire("k")
        budgets = [
            agr.RetryBudget(min_per_second=0, initial=1, scope=r, name="retries", clock=time) for r in regions
        ]
        assert budgets[0].try_withdraw()
        assert not budgets[1].try_withdraw()
        breakers = [
            agr.CircuitBreaker(consecutive_failures=1, scope=r, name="upstream", clock=time) for r in regions
        ]
        breakers[0].acquire().report(agr.Outcome.FAILURE)
        with pytest.raises(agr.CircuitOpen):
            breakers[1].acquire()


def test_the_hot_paths_meet_the_shared_state_too(name: str) -> None:
    with agr.Region(name, 1 << 20) as region:
        first = agr.RateLimiter(10, 0, scope=region, name="tokens")
        second = agr.RateLimiter(10, 0, scope=region, name="tokens")
        assert sum(first.try_acquire() + second.try_acquire() for _ in range(20)) == 10
        assert first.snapshot().refused == second.snapshot().refused == 30


def test_another_configuration_is_refused_by_its_field(name: str) -> None:
    with agr.Region(name, 1 << 20) as region:
        limiter = agr.RateLimiter(10, 5, scope=region, name="tokens")
        with pytest.raises(agr.MismatchError) as raised:
            agr.RateLimiter(11, 5, scope=region, name="tokens")
        assert raised.value.field == "capacity"
        with pytest.raises(agr.MismatchError) as raised:
            agr.RetryBudget(scope=region, name="tokens")
        assert raised.value.field == "name"
        limiter.reconfigure(capacity=11)
        assert agr.RateLimiter(11, 5, scope=region, name="tokens").available <= 11


def test_what_is_in_a_region_can_be_told_and_removed(name: str) -> None:
    with agr.Region(name, 1 << 20, max_objects=3) as region:
        kept = agr.RateLimiter(10, 0, scope=region, name="a")
        agr.RetryBudget(scope=region, name="b")
        assert [(o.name, o.kind) for o in region] == [
            ("a", agr.ObjectKind.LIMITER),
            ("b", agr.ObjectKind.RETRY_BUDGET),
        ]
        seen = region.snapshot()
        assert (seen.objects, seen.max_objects, seen.bytes) == (2, 3, 1 << 20)
        assert seen.used_bytes + seen.free_bytes == seen.bytes
        assert region.remove("a")
        assert not region.remove("a")
        assert kept.try_acquire(10)
        assert agr.RateLimiter(10, 0, scope=region, name="a").try_acquire(10)
        with pytest.raises(agr.CapacityError) as raised:
            agr.RateLimiter(10, 0, scope=region, name="c")
        assert raised.value.field == "max_objects"


def test_objects_outlive_their_region_here() -> None:
    region = agr.Region()
    limiter = agr.RateLimiter(1, 0, scope=region, name="tokens")
    region.close()
    region.close()
    assert region.closed
    assert limiter.try_acquire()
    with pytest.raises(agr.ClosedError):
        agr.RateLimiter(1, 0, scope=region, name="tokens")
    with pytest.raises(agr.ClosedError):
        region.snapshot()
    with pytest.raises(TypeError):
        pickle.dumps(region)


def test_a_region_without_a_name_goes_by_its_descriptor() -> None:
    with agr.Region() as region:
        limiter = agr.RateLimiter(10, 0, scope=region, name="tokens")
        with agr.Region.from_fd(region.fileno()) as again:
            assert agr.RateLimiter(10, 0, scope=again, name="tokens").try_acquire(10)
        assert not limiter.try_acquire()


@pytest.mark.parametrize(
    ("make", "field"),
    [
        (lambda n: agr.Region("a/b"), "name"),
        (lambda n: agr.Region(".a"), "name"),
        (lambda n: agr.Region(""), "name"),
        (lambda n: agr.Region("a\0b"), "name"),
        (lambda n: agr.Region("x" * 64), "name"),
        (lambda n: agr.Region(n, 100), "bytes"),
        (lambda n: agr.Region(n, -1), "bytes"),
        (lambda n: agr.Region(n, mode=0o777), "mode"),
        (lambda n: agr.Region(n, max_objects=0), "max_objects"),
        (lambda n: agr.Region(n, owner=-2), "owner"),
        (lambda n: agr.Region.from_fd(-1), "fd"),
        (lambda n: agr.RateLimiter(1, 1, scope=agr.Region(), name="a/b"), "name"),
    ],
)
def test_bad_arguments_are_refused_by_name(make: Any, field: str, name: str) -> None:
    with pytest.raises(agr.ArgumentError) as raised:
        make(name)
    assert raised.value.field == field


def test_a_scope_needs_a_name_and_a_name_a_scope() -> None:
    with agr.Region() as region:
        with pytest.raises(TypeError):
            agr.RateLimiter(1, 1, scope=region)
        with pytest.raises(TypeError):
            agr.RateLimiter(1, 1, name="tokens")
        with pytest.raises(TypeError):
            agr.RateLimiter(1, 1, scope=1, name="tokens")  # type: ignore[arg-type]


def test_files_that_are_no_region_are_refused(name: str) -> None:
    path = Path("/dev/shm", f"agr.{name}")
    path.write_bytes(b"x" * 8192)
    path.chmod(0o600)
    with pytest.raises(agr.RegionError):
        agr.Region(name)
    path.chmod(0o666)
    with pytest.raises(agr.RegionError):
        agr.Region(name)


def test_a_region_that_is_there_or_is_not(name: str) -> None:
    with pytest.raises(agr.SystemFailure):
        agr.Region(name, create=False)
    with agr.Region(name, create=True), pytest.raises(agr.SystemFailure):
        agr.Region(name, create=True)
    agr.Region(name, create=False).close()


def take(name: str, calls: int) -> int:
    with agr.Region(name) as region:
        limiter = agr.RateLimiter(100, 0, scope=region, name="tokens")
        return sum(limiter.try_acquire() for _ in range(calls))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_processes_share_one_bucket(name: str, method: str) -> None:
    agr.Region(name, 1 << 20).close()
    with multiprocessing.get_context(method).Pool(4) as pool:
        taken = pool.starmap(take, [(name, 50)] * 8)
    assert sum(taken) == 100


def test_a_process_that_was_killed_leaves_the_region_good(name: str) -> None:
    agr.Region(name, 1 << 20).close()
    program = f"""
import os, signal, autoglm_reliability as agr
limiter = agr.RateLimiter(100, 0, scope=agr.Region({name!r}), name="tokens")
limiter.acquire(60)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == -9
    assert take(name, 100) == 40
