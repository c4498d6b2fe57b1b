# SPDX-License-Identifier: Apache-2.0
"""The SQLite store, and the idempotency cache in it: two stores on one file are two processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability as agr


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def opened(path: Path, **options: Any) -> agr.SQLiteStore:
    return agr.SQLiteStore(path, synchronous=agr.Synchronous.NORMAL, **options)


@pytest.fixture
def stores(path: Path) -> Iterator[tuple[agr.SQLiteStore, agr.SQLiteStore]]:
    with opened(path) as one, opened(path) as two:
        yield one, two


def cache_in(store: agr.Store, **options: Any) -> agr.IdempotencyCache:
    return agr.IdempotencyCache(scope=store, name="jobs", max_entries=64, **options)


def test_a_result_is_everybodys(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)
    lease = one.begin("k", fingerprint="request")
    assert isinstance(lease, agr.Lease)
    assert lease.fence > 0
    assert not lease.outcome_unknown
    assert lease.lost_fence == 0
    with pytest.raises(agr.InProgress) as refused:
        two.begin("k", fingerprint="request")
    assert 0 < (refused.value.retry_after or 0) <= 60
    with pytest.raises(agr.Mismatch):
        two.begin("k", fingerprint="another")
    assert two.state("k") == agr.KeyState.PROCESSING
    assert lease.renew(90)
    lease.complete(b"done")
    result = two.begin("k")
    assert isinstance(result, agr.Result)
    with result:
        assert bytes(result) == b"done"
    assert two.state("k") == agr.KeyState.SUCCESS
    assert two.state("never") is None


def test_it_is_durable(path: Path) -> None:
    for _ in range(2):
        with opened(path) as store, cache_in(store) as cache:
            assert cache.get_or_execute("k", lambda _: str(os.urandom(8))) == (
                cache.get_or_execute("k", lambda _: "never")
            )
    with opened(path) as store, cache_in(store) as cache:
        assert cache.state("k") == agr.KeyState.SUCCESS
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_lost_run_is_told_of(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = cache_in(stores[0], lease=0.02), cache_in(stores[1])
    lost = one.begin("k")
    assert isinstance(lost, agr.Lease)
    ticket = two.join("k")
    assert isinstance(ticket, agr.Ticket)
    lease = ticket.wait(30)
    assert isinstance(lease, agr.Lease)
    assert lease.outcome_unknown
    assert lease.lost_fence == lost.fence
    assert lease.fence > lost.fence
    with pytest.raises(agr.LeaseLost):
        lost.complete(b"late")
    lease.complete(b"known")


def test_another_processs_run_is_waited_for(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)
    lease = one.begin("k")
    assert isinstance(lease, agr.Lease)
    seen: list[bytes] = []

    def wait() -> None:
        seen.append(two.get_or_execute("k", lambda _: b"executed twice", timeout=30))

    threads = [threading.Thread(target=wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    while two.snapshot().waiters < 3:
        time.sleep(0.001)
    lease.complete(b"once")
    for thread in threads:
        thread.join(30)
    assert seen == [b"once"] * 3


def run_in_child(path: Path, key: str, queue: Any) -> None:
    with opened(path) as store, cache_in(store) as cache:
        queue.put(cache.get_or_execute(key, lambda _: str(os.getpid()), timeout=30))


def test_processes_execute_a_key_once(path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    children = [context.Process(target=run_in_child, args=(path, "k", queue)) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    assert len({queue.get() for _ in children}) == 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_goes_on(path: Path) -> None:
    with opened(path) as store, cache_in(store) as cache:
        assert cache.get_or_execute("before", lambda _: b"parent") == b"parent"
        child = os.fork()
        if child == 0:
            good = cache.get_or_execute("before", lambda _: b"again") == b"parent"
            good = good and cache.get_or_execute("child", lambda _: b"child") == b"child"
            os._exit(0 if good else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert cache.get_or_execute("child", lambda _: b"again") == b"child"


def locked(path: Path) -> sqlite3.Connection:
    """Another program that keeps the database to itself."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    return connection


def test_what_happens_when_it_fails_is_a_choice(path: Path) -> None:
    on = agr.OnStoreError
    with opened(path, max_failures=0) as store:
        caches = {how: cache_in(store, on_error=how, timeout=0.01) for how in (on.REFUSE, on.ADMIT, on.LOCAL)}
        kept = caches[on.REFUSE].begin("kept")
        assert isinstance(kept, agr.Lease)
        other = locked(path)
        with pytest.raises(agr.StoreError, match="timed out"):
            caches[on.REFUSE].begin("k")
        with pytest.raises(agr.StoreError, match="timed out"):
            kept.complete(b"paid for")
        for how in (on.ADMIT, on.LOCAL):
            lease = caches[how].begin("k")
            assert isinstance(lease, agr.Lease)
            assert lease.fence == 0
            lease.complete(b"alone")
        assert isinstance(caches[on.LOCAL].begin("k"), agr.Result)
        assert isinstance(caches[on.ADMIT].begin("k"), agr.Lease)
        seen = store.snapshot()
        assert seen.failures > 0
        assert seen.fallbacks == 3
        other.rollback()
        other.close()
        # The lease was still held, and the result is kept now.
        kept.complete(b"paid for")
        assert caches[on.REFUSE].state("kept") == agr.KeyState.SUCCESS


def test_a_result_that_was_paid_for_is_not_lost(path: Path) -> None:
    with opened(path) as store, cache_in(store, timeout=0.01) as cache:
        others = []

        def work(_: agr.Lease) -> bytes:
            others.append(locked(path))
            return b"paid for"

        with pytest.raises(agr.StoreError) as failed:
            cache.get_or_execute("k", work)
        assert failed.value.data == b"paid for"
        others[0].close()


def test_a_store_that_fails_is_left_alone_for_a_while(path: Path) -> None:
    with opened(path, max_failures=2, timeout=0.01, open=60, open_max=60) as store, cache_in(store) as cache:
        store.ping()
        other = locked(path)
        for _ in range(2):
            with pytest.raises(agr.StoreError):
                cache.begin("k")
        seen = store.snapshot()
        assert seen.state == agr.BreakerState.OPEN
        assert 0 < seen.retry_after <= 70
        other.close()
        with pytest.raises(agr.StoreError):
            cache.begin("k")
        assert store.snapshot().refused > 0
        store.ping(10)
        assert isinstance(cache.begin("k"), agr.Lease)


def test_a_result_that_cannot_be_kept_does_not_begin(path: Path) -> None:
    with opened(path, max_result_bytes=10) as store:
        with cache_in(store) as cache, pytest.raises(agr.NeverFits):
            cache.begin("k")
        with cache_in(store, max_result_bytes=10) as cache:
            lease = cache.begin("k")
            assert isinstance(lease, agr.Lease)
            with pytest.raises(agr.NeverFits):
                lease.complete(b"01234567890")
            lease.complete(b"0123456789")


def test_what_is_no_store_is_refused(tmp_path: Path, path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("This is no database. " * 1000)
    with pytest.raises(agr.StoreError, match="not a database"):
        agr.SQLiteStore(text)
    with pytest.raises(agr.StoreError):
        agr.SQLiteStore(tmp_path / "nowhere" / "runs.db")
    with pytest.raises(agr.ArgumentError, match="path"):
        agr.SQLiteStore(":memory:")
    with pytest.raises(agr.ArgumentError, match="max_batch"):
        agr.SQLiteStore(path, max_batch=0)
    with pytest.raises(agr.ArgumentError, match="max_calls"):
        opened(path, max_calls=0)
    with pytest.raises(agr.StoreError):
        agr.SQLiteStore("a\0b")


def test_objects_say_where_they_can_lie(path: Path) -> None:
    with opened(path) as store, agr.Region(bytes=1 << 17) as region:
        assert store.name == "sqlite"
        with pytest.raises(agr.ArgumentError, match="does not offer buckets"):
            agr.RateLimiter(10, 1, scope=store, name="tokens")
        with pytest.raises(TypeError, match="IdempotencyCache cannot lie in a Region"):
            agr.IdempotencyCache(scope=region, name="jobs")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="scope and name"):
            agr.IdempotencyCache(scope=store)
        with pytest.raises(agr.ArgumentError, match="in a store"):
            agr.IdempotencyCache(timeout=1)
        with pytest.raises(agr.ArgumentError, match="name"):
            agr.IdempotencyCache(scope=store, name="a b")
        with pytest.raises(TypeError, match="one process"):
            pickle.dumps(store)


def test_a_store_outlives_its_close_in_its_objects(path: Path) -> None:
    store = opened(path)
    cache = cache_in(store)
    store.close()
    store.close()
    assert store.closed
    with pytest.raises(agr.ClosedError):
        store.ping()
    with pytest.raises(agr.ClosedError):
        cache_in(store)
    assert cache.get_or_execute("k", lambda _: b"v") == b"v"
    cache.close()
    with pytest.raises(agr.ClosedError):
        cache.begin("k")


# ---- asyncio ----


async def ticks_while(waits: Any) -> tuple[Any, int]:
    """What a coroutine returns, and how often the loop came round meanwhile."""
    count = 0
    task = asyncio.ensure_future(waits)
    while not task.done():
        count += 1
        await asyncio.sleep(0)
    return task.result(), count


def test_the_loop_is_not_blocked(path: Path) -> None:
    async def main() -> None:
        with opened(path, timeout=10) as store, cache_in(store) as cache:
            other = locked(path)

            async def unlock() -> None:
                while store.snapshot().calls == 0:
                    await asyncio.sleep(0)
                other.close()

            async def work(_: agr.Lease) -> bytes:
                return b"v"

            freeing = asyncio.ensure_future(unlock())
            value, ticks = await ticks_while(cache.get_or_execute_async("k", work))
            await freeing
            assert value == b"v"
            assert ticks > 3
            await store.ping_async()

    asyncio.run(main())


def test_coroutines_of_two_processes_execute_once(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)
    runs = 0

    async def work(_: agr.Lease) -> bytes:
        nonlocal runs
        runs += 1
        await asyncio.sleep(0)
        return b"v"

    async def main() -> None:
        calls = [c.get_or_execute_async("k", work, timeout=30) for c in (one, two) for _ in range(5)]
        assert await asyncio.gather(*calls) == [b"v"] * 10

    asyncio.run(main())
    assert runs == 1


def test_a_coroutine_that_fails_leaves_the_key_free(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)

    async def fail(_: agr.Lease) -> bytes:
        raise ValueError("of its own")

    async def main() -> None:
        with pytest.raises(ValueError, match="of its own"):
            await one.get_or_execute_async("k", fail)

    asyncio.run(main())
    lease = two.begin("k")
    assert isinstance(lease, agr.Lease)
    assert not lease.outcome_unknown


def test_a_cancelled_run_is_told_of(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)

    async def main() -> None:
        started = asyncio.Event()

        async def work(_: agr.Lease) -> bytes:
            started.set()
            await asyncio.Event().wait()
            return b""

        task = asyncio.ensure_future(one.get_or_execute_async("k", work))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    lease = two.begin("k")
    assert isinstance(lease, agr.Lease)
    assert lease.outcome_unknown


def test_a_wait_that_is_cancelled_leaves_the_line(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)
    lease = one.begin("k")
    assert isinstance(lease, agr.Lease)

    async def work(_: agr.Lease) -> bytes:
        return b""

    async def main() -> None:
        task = asyncio.ensure_future(two.get_or_execute_async("k", work))
        while two.snapshot().waiters == 0:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(agr.WaitTimeout):
            await two.get_or_execute_async("k", work, timeout=0.01)

    asyncio.run(main())
    # Threads that were asking when they were cancelled have let go as well.
    assert two.snapshot().waiters == 0
    lease.complete(b"")
