# SPDX-License-Identifier: Apache-2.0
"""Locks in a store, against a real Redis server."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability as agr
from helpers import answers, eventually, in_threads, unique
from redis_server import RedisServer


def test_a_key_has_one_holder(store: agr.RedisStore) -> None:
    lock, other = agr.DistributedLock(store, "lock"), agr.DistributedLock(store, "lock")
    hold = lock.acquire("k")
    assert hold.fence > 0
    assert hold.key == b"k"
    assert 29 < hold.remaining <= 30
    assert other.try_acquire("k") is None
    with pytest.raises(agr.WaitTimeout):
        other.acquire("k", timeout=0.01)
    with pytest.raises(agr.WaitTimeout):
        asyncio.run(other.acquire_async("k", timeout=0.01))
    elsewhere = other.try_acquire(b"another")
    assert elsewhere is not None
    hold.release()
    assert hold.released
    assert hold.remaining == 0
    with other.hold("k") as later:
        assert later.fence > hold.fence
        assert lock.try_acquire("k") is None
    with lock.hold("k"):
        pass


def test_a_file_will_do_on_one_host(tmp_path: Path) -> None:
    with agr.SQLiteStore(tmp_path / "locks.db") as one, agr.SQLiteStore(tmp_path / "locks.db") as two:
        with agr.DistributedLock(one, "lock").hold("k") as hold:
            assert agr.DistributedLock(two, "lock").try_acquire("k") is None
        with agr.DistributedLock(two, "lock").hold("k", timeout=60) as later:
            assert later.fence > hold.fence


def test_a_semaphore_has_as_many_as_its_limit(store: agr.RedisStore) -> None:
    lock = agr.DistributedLock(store, "semaphore", limit=3)
    holds = [lock.acquire() for _ in range(3)]
    assert len({hold.fence for hold in holds}) == 3
    assert lock.try_acquire() is None
    holds[1].release()
    assert lock.try_acquire() is not None


def test_a_hold_that_is_renewed_lasts(store: agr.RedisStore) -> None:
    lock = agr.DistributedLock(store, "renewed", ttl=30)
    with lock.acquire() as hold:
        until = hold.until
        hold.renew()
        asyncio.run(hold.renew_async())
        assert hold.until > until


def test_a_hold_that_was_lost_is_told_of(store: agr.RedisStore) -> None:
    lock = agr.DistributedLock(store, "short", ttl=0.02)
    first = lock.acquire("k")
    following = lock.acquire("k", timeout=30)
    assert following.fence > first.fence
    with pytest.raises(agr.LockLost):
        first.renew()
    with pytest.raises(agr.LockLost):
        first.release()
    with pytest.raises(agr.LockLost, match="released"):
        first.release()
    with pytest.raises(agr.LockLost), lock.hold("j"):
        lock.acquire("j", timeout=30)
    # What went wrong inside is what counts.
    with pytest.raises(ValueError, match="inside"), lock.hold("i"):
        lock.acquire("i", timeout=30)
        raise ValueError("inside")


def test_threads_take_turns(store: agr.RedisStore) -> None:
    lock = agr.DistributedLock(store, "threads")
    inside: list[int] = []
    fences: list[int] = []

    def enter(index: int) -> None:
        for _ in range(10):
            with lock.hold("k", timeout=60) as hold:
                inside.append(index)
                assert inside == [index]
                fences.append(hold.fence)
                inside.pop()

    in_threads(4, enter)
    assert len(fences) == 40
    assert sorted(set(fences)) == fences


def enter_often(address: str, prefix: str, directory: Path) -> None:
    with agr.RedisStore(address, prefix=prefix, timeout=30) as store:
        lock = agr.DistributedLock(store, "processes", ttl=60)
        for _ in range(25):
            with lock.hold("k", timeout=60) as hold:
                (directory / "inside").touch(exist_ok=False)
                with (directory / "fences").open("a") as file:
                    file.write(f"{hold.fence}\n")
                (directory / "inside").unlink()


def test_processes_take_turns(redis: RedisServer, tmp_path: Path) -> None:
    prefix, context = unique(), multiprocessing.get_context("spawn")
    arguments = (redis.address, prefix, tmp_path)
    children = [context.Process(target=enter_often, args=arguments) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * 4
    fences = [int(line) for line in (tmp_path / "fences").read_text().split()]
    assert len(fences) == 100
    assert sorted(set(fences)) == fences


def take_and_die(address: str, prefix: str, queue: Any) -> None:
    with agr.RedisStore(address, prefix=prefix, timeout=30) as store:
        queue.put(agr.DistributedLock(store, "lock", ttl=1).acquire("k").fence)
        os._exit(7)


def test_a_holder_that_died_is_followed_by_a_larger_fence(redis: RedisServer) -> None:
    prefix, context = unique(), multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=take_and_die, args=(redis.address, prefix, queue))
    child.start()
    child.join(60)
    assert child.exitcode == 7
    fence = queue.get()
    with redis.store(prefix=prefix) as store, agr.DistributedLock(store, "lock").hold("k", 60) as hold:
        assert hold.fence > fence


def test_without_the_store_nobody_gets_a_lock(own_redis: RedisServer) -> None:
    with own_redis.store(timeout=0.05, on_error=agr.OnStoreError.ADMIT, max_failures=0) as store:
        lock = agr.DistributedLock(store, "lock", ttl=60)
        hold = lock.acquire("k")
        own_redis.hold_up()
        with pytest.raises(agr.StoreError):
            lock.try_acquire("j")
        with pytest.raises(agr.StoreError):
            lock.acquire("j")
        with pytest.raises(agr.StoreError):
            hold.renew()
        with pytest.raises(agr.StoreError):
            hold.release()
        assert not hold.released
        with pytest.raises(agr.StoreError), hold:
            pass
        own_redis.go_on()
        eventually(lambda: answers(store), "the server is found again")
        # What was asked for in vain may have been taken all the same, and then lasts for its ttl.
        with agr.DistributedLock(store, "lock", timeout=30).hold("later", timeout=60):
            pass


def test_coroutines_take_turns(store: agr.RedisStore) -> None:
    lock = agr.DistributedLock(store, "coroutines")
    inside: list[int] = []
    fences: list[int] = []

    async def enter(index: int) -> None:
        for _ in range(5):
            async with lock.hold("k", timeout=60) as hold:
                inside.append(index)
                await asyncio.sleep(0)
                assert inside == [index]
                fences.append(hold.fence)
                inside.pop()

    async def main() -> None:
        await asyncio.gather(*(enter(index) for index in range(4)))
        hold = await lock.try_acquire_async()
        assert hold is not None
        assert await lock.try_acquire_async() is None
        await hold.release_async()
        with pytest.raises(agr.LockLost):
            await hold.renew_async()

    asyncio.run(main())
    assert len(fences) == 20
    assert sorted(set(fences)) == fences


def test_an_interrupt_ends_a_wait(store: agr.RedisStore, request: pytest.FixtureRequest) -> None:
    import _thread

    # A process that was started in the background may have been told to ignore interrupts.
    before_test = signal.signal(signal.SIGINT, signal.default_int_handler)
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before_test))
    lock = agr.DistributedLock(store, "interrupted")
    with lock.hold():
        before = store.snapshot().calls

        def interrupt() -> None:
            while store.snapshot().calls < before + 3:
                pass
            _thread.interrupt_main()

        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            lock.acquire()
        thread.join()


def test_what_is_wrong_is_named(store: agr.RedisStore) -> None:
    with pytest.raises(agr.ArgumentError, match="limit"):
        agr.DistributedLock(store, "x", limit=0)
    with pytest.raises(agr.ArgumentError, match="ttl"):
        agr.DistributedLock(store, "x", ttl=0)
    with pytest.raises(agr.ArgumentError, match="name"):
        agr.DistributedLock(store, "x y")
    with pytest.raises(TypeError, match="store"):
        agr.DistributedLock("redis", "x")  # type: ignore[arg-type]
    with pytest.raises(agr.ArgumentError, match="timeout"):
        agr.DistributedLock(store, "x").acquire(timeout=-1)
    with pytest.raises(TypeError, match="key"):
        agr.DistributedLock(store, "x").acquire(5)  # type: ignore[arg-type]
