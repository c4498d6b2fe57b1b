# SPDX-License-Identifier: Apache-2.0
"""The Redis store, and what lies in it, against a real server: two stores on it are two processes."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import pickle
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability as agr
from helpers import answers, eventually, unique
from redis_server import RedisServer
from stored import HOUR, breakers, cache_in, limiter_in, opens

# ---- the store ----


def test_it_answers(store: agr.RedisStore) -> None:
    assert store.name == "redis"
    store.ping()
    asyncio.run(store.ping_async())
    assert store.snapshot().state == agr.BreakerState.CLOSED


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("address", ""),
        ("address", "host:99999"),
        ("connections", 0),
        ("connections", 65),
        ("connect_timeout", 0),
        ("database", -1),
        ("prefix", "a b"),
        ("password", "a\0b"),
        ("certificate_file", "/only/one.pem"),
        ("max_result_bytes", 2**29),
        ("max_calls", 0),
    ],
)
def test_what_is_wrong_is_named(field: str, value: Any) -> None:
    tls = {"tls": True} if field == "certificate_file" else {}
    with pytest.raises(agr.ArgumentError, match="key_file" if tls else field):
        agr.RedisStore(**{field: value, **tls})


def test_other_types_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="address: str or bytes"):
        agr.RedisStore(6379)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="connections"):
        agr.RedisStore(connections="2")  # type: ignore[arg-type]
    with pytest.raises(agr.ArgumentError, match="ca_file"):
        agr.RedisStore(tls=True, ca_file=tmp_path / "nowhere.pem")


def test_passwords_are_given_to_the_server() -> None:
    server = RedisServer("--requirepass", "geheim-ü")
    try:
        with server.store(password="geheim-ü") as store:
            store.ping()
        with server.store(user="default", password=b"geheim-\xc3\xbc", database=3) as store:
            store.ping()
        with server.store(password="another") as store, pytest.raises(agr.StoreError, match="password"):
            store.ping()
        with server.store() as store, pytest.raises(agr.StoreError, match="NOAUTH"):
            store.ping()
    finally:
        server.close()


def test_nobody_listens(own_redis: RedisServer) -> None:
    own_redis.kill()
    with own_redis.store(max_failures=1, open=60, open_max=60) as store:
        with pytest.raises(agr.StoreError, match="refused"):
            store.ping()
        with pytest.raises(agr.StoreError):
            limiter_in(store).try_acquire()
        with pytest.raises(agr.StoreError):
            limiter_in(store).try_acquire()
        assert store.snapshot().state == agr.BreakerState.OPEN
        own_redis.start()
        # After a failure it is left a pause before a connection is tried again.
        eventually(lambda: answers(store), "the server is found again")
        assert limiter_in(store).try_acquire()


def test_a_store_outlives_its_close_in_its_objects(redis: RedisServer) -> None:
    store = redis.store(prefix=unique())
    limiter = limiter_in(store)
    breaker = agr.CircuitBreaker(scope=store, name="upstream")
    lock = agr.DistributedLock(store, "lock")
    store.close()
    with pytest.raises(agr.ClosedError):
        store.ping()
    with pytest.raises(agr.ClosedError):
        limiter_in(store)
    assert limiter.try_acquire()
    breaker.acquire().success()
    lock.acquire().release()
    for thing in (limiter, breaker, lock):
        thing.close()
        with pytest.raises(TypeError, match="one process"):
            pickle.dumps(thing)
    with pytest.raises(agr.ClosedError):
        limiter.try_acquire()
    with pytest.raises(agr.ClosedError):
        breaker.acquire()
    with pytest.raises(agr.ClosedError):
        lock.try_acquire()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_child_of_a_fork_goes_on(store: agr.RedisStore) -> None:
    limiter = limiter_in(store)
    assert limiter.try_acquire(10)
    child = os.fork()
    if child == 0:
        good = limiter.available == 90 and limiter.try_acquire(20)
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert limiter.available == 70


# ---- a limiter in it ----


def take_all(address: str, prefix: str, lease_tokens: int, queue: Any) -> None:
    with agr.RedisStore(address, prefix=prefix, timeout=30) as store:
        taken = refused = 0
        with limiter_in(store, 500, lease_tokens=lease_tokens) as limiter:
            while refused < 3:
                if limiter.try_acquire():
                    taken += 1
                else:
                    refused += 1
        queue.put(taken)


@pytest.mark.parametrize("lease_tokens", [0, 20])
def test_processes_share_one_bucket_exactly(redis: RedisServer, lease_tokens: int) -> None:
    prefix, context = unique(), multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    arguments = (redis.address, prefix, lease_tokens, queue)
    children = [context.Process(target=take_all, args=arguments) for _ in range(4)]
    for child in children:
        child.start()
    for child in children:
        child.join(60)
    assert [child.exitcode for child in children] == [0] * 4
    taken = sum(queue.get() for _ in children)
    with redis.store(prefix=prefix) as store, limiter_in(store, 500) as limiter:
        # What was leased went back with its limiter.
        assert taken + limiter.available == 500
    assert taken == 500 if lease_tokens == 0 else taken > 500 - 4 * (lease_tokens + 1)


def test_several_are_taken_as_one_by_one_round_trip(store: agr.RedisStore) -> None:
    requests = agr.RateLimiter(3, 1, HOUR, scope=store, name="requests")
    tokens = agr.RateLimiter(100, 1, HOUR, scope=store, name="tokens-per-minute")
    before = store.snapshot().calls
    assert agr.try_acquire_all([(requests, 1), (tokens, 60)])
    assert store.snapshot().calls == before + 1
    assert not agr.try_acquire_all([(requests, 1), (tokens, 60)])
    assert (requests.available, tokens.available) == (2, 40)
    for reservation in agr.reserve_all([(requests, 1), (tokens, 40)]):
        assert reservation.cancel()
    assert (requests.available, tokens.available) == (2, 40)

    async def main() -> None:
        assert not await agr.try_acquire_all_async([(requests, 1), (tokens, 60)])
        assert await agr.try_acquire_all_async([(requests, 1), (tokens, 10)])
        one, other = await agr.reserve_all_async([(requests, 1), (tokens, 30)], 0)
        await other.settle_async(5)
        await one.cancel_async()
        with pytest.raises(agr.RateLimited):
            await agr.acquire_all_async([(tokens, 60)], 1)

    asyncio.run(main())
    assert (requests.available, tokens.available) == (1, 25)
    with pytest.raises(agr.ArgumentError, match="one store"):
        agr.try_acquire_all([(requests, 1), (agr.RateLimiter(1, 1), 1)])


def test_reservations_are_settled_by_the_real_cost(store: agr.RedisStore) -> None:
    limiter = limiter_in(store)
    with limiter.reserve(60) as reservation:
        assert reservation.wait == 0
        assert limiter.available == 40
        assert reservation.settle(10)
        assert not reservation.settle(10)
    assert limiter.available == 90
    with pytest.raises(agr.RateLimited) as refused:
        limiter.reserve(95, max_wait=1)
    assert (refused.value.retry_after or 0) > HOUR
    with pytest.raises(agr.NeverFits):
        limiter.try_acquire(101)
    with pytest.raises(agr.RateLimited):
        limiter.acquire(100, timeout=0)
    limiter.acquire(90, timeout=0)
    assert limiter.available == 0
    assert limiter.snapshot().refused == 2


def test_keys_have_buckets_of_their_own(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (agr.KeyedRateLimiter(10, 1, HOUR, scope=store, name="keys") for store in stores)
    assert one.try_acquire("a", 7)
    assert not two.try_acquire("a", 4)
    assert two.try_acquire("b", 10)
    with one.reserve(b"a", 3) as reservation:
        assert two.available("a") == 0
        reservation.settle(1)
    assert two.available("a") == 2

    async def main() -> None:
        assert await two.try_acquire_async("a", 2)
        assert not await one.try_acquire_async("a")
        async with await one.reserve_async("c", 10, 0) as reservation:
            await reservation.cancel_async()
        await two.acquire_async("c", 10, 0)

    asyncio.run(main())
    with pytest.raises(agr.ArgumentError, match="local_share is for an object in a store"):
        agr.KeyedRateLimiter(10, 1, local_share=0.5)


def test_tokens_are_waited_for(store: agr.RedisStore) -> None:
    limiter = agr.RateLimiter(1, 1000, 1, scope=store, name="quick")
    for _ in range(5):
        limiter.acquire()
    other = threading.Thread(target=limiter.acquire)
    other.start()
    other.join(60)
    assert not other.is_alive()
    assert limiter.snapshot().open_reservations == 0


def test_leased_tokens_need_no_round_trip(store: agr.RedisStore) -> None:
    limiter = limiter_in(store, 1000, lease_tokens=99)
    before = store.snapshot().calls
    for _ in range(500):
        assert limiter.try_acquire()
    assert store.snapshot().calls - before == 5


def test_configurations_are_checked(store: agr.RedisStore) -> None:
    with pytest.raises(agr.ArgumentError, match="lease_tokens"):
        limiter_in(store, 10, lease_tokens=11)
    with pytest.raises(agr.ArgumentError, match="local_share"):
        limiter_in(store, local_share=0.0)
    with pytest.raises(agr.ArgumentError, match="lease_tokens is for an object in a store"):
        agr.RateLimiter(10, 1, lease_tokens=1)
    with pytest.raises(agr.ArgumentError, match="sync is for an object in a store"):
        agr.CircuitBreaker(sync=1)
    with pytest.raises(agr.ArgumentError, match="sync"):
        agr.CircuitBreaker(scope=store, name="b", sync=0)
    with pytest.raises(TypeError, match="RetryBudget cannot lie in a RedisStore"):
        agr.RetryBudget(scope=store, name="k")  # type: ignore[arg-type]
    with pytest.raises(agr.StateError):
        limiter_in(store).reconfigure(capacity=5)


@pytest.mark.parametrize("held_up", [False, True])
def test_what_a_limiter_does_without_its_store_is_a_choice(own_redis: RedisServer, held_up: bool) -> None:
    on = agr.OnStoreError
    with own_redis.store(timeout=0.05) as store:
        limiters = {
            how: agr.RateLimiter(10, 1, HOUR, scope=store, name=how.name, on_error=how, local_share=0.5)
            for how in (on.REFUSE, on.ADMIT, on.LOCAL)
        }
        if held_up:
            own_redis.hold_up()
        else:
            own_redis.kill()
        with pytest.raises(agr.StoreError):
            limiters[on.REFUSE].try_acquire()
        assert [limiters[on.ADMIT].try_acquire() for _ in range(20)] == [True] * 20
        assert [limiters[on.LOCAL].try_acquire() for _ in range(10)].count(True) == 5
        assert store.snapshot().fallbacks == 25
        if held_up:
            own_redis.go_on()
        else:
            own_redis.start()

        def is_back() -> bool:
            try:
                return limiters[on.REFUSE].try_acquire()
            except agr.StoreError:
                return False

        eventually(is_back, "the store is used again")
        assert limiters[on.REFUSE].available <= 9


# ---- a breaker in it ----


def test_what_one_learns_all_know(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = breakers(*stores)
    assert not opens(two)
    for _ in range(2):
        with pytest.raises(OSError, match="down"), one.guard():
            raise OSError("down")
    assert one.state == agr.BreakerState.OPEN
    eventually(lambda: opens(two), "the other opens")
    with pytest.raises(agr.CircuitOpen) as refused:
        two.acquire()
    assert 0 < (refused.value.retry_after or 0) <= 1.2 * HOUR


def test_one_process_has_the_probes(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = breakers(*stores, open=0.05, open_max=0.05, half_open_permits=1)
    for _ in range(2):
        one.acquire().failure()
    eventually(lambda: opens(two), "the other opens")
    permits: list[agr.Permit] = []

    def probe() -> bool:
        permit = one.try_acquire()
        permits.extend([permit] if permit is not None else [])
        return permit is not None

    eventually(probe, "a probe is admitted")
    assert permits.pop().success()
    assert one.state == agr.BreakerState.CLOSED
    eventually(lambda: not opens(two), "the other closes")


def test_a_breaker_goes_on_without_its_store(own_redis: RedisServer) -> None:
    with own_redis.store(timeout=0.05) as store:
        breaker, _ = breakers(store, store)
        own_redis.kill()
        for _ in range(2):
            breaker.acquire().failure()
        assert breaker.state == agr.BreakerState.OPEN


# ---- an idempotency cache in it ----


def begin_and_die(address: str, prefix: str, queue: Any) -> None:
    with agr.RedisStore(address, prefix=prefix, timeout=30) as store:
        lease = cache_in(store, lease=1).begin("k")
        assert isinstance(lease, agr.Lease)
        queue.put(lease.fence)
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_worker_that_was_killed_is_told_of(redis: RedisServer) -> None:
    prefix, context = unique(), multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    child = context.Process(target=begin_and_die, args=(redis.address, prefix, queue))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    fence = queue.get()
    with redis.store(prefix=prefix) as store, cache_in(store) as cache:
        told: list[tuple[bool, int, int]] = []

        def work(lease: agr.Lease) -> bytes:
            told.append((lease.outcome_unknown, lease.lost_fence, lease.fence))
            return b"done"

        assert cache.get_or_execute("k", work, timeout=60) == b"done"
        (unknown, lost, later) = told.pop()
        assert unknown
        assert lost == fence
        assert later > fence
        assert cache.get_or_execute("k", work) == b"done"
        assert told == []


def test_a_result_is_everybodys(stores: tuple[agr.Store, agr.Store]) -> None:
    one, two = (cache_in(store) for store in stores)
    assert one.get_or_execute("k", lambda _: b"once") == b"once"
    assert two.get_or_execute("k", lambda _: b"twice") == b"once"


def test_coroutines_of_two_processes_execute_once(stores: tuple[agr.Store, agr.Store]) -> None:
    runs = []

    async def work(lease: agr.Lease) -> bytes:
        runs.append(lease.fence)
        await asyncio.sleep(0)
        return b"v"

    async def main() -> None:
        one, two = (cache_in(store) for store in stores)
        calls = [c.get_or_execute_async("k", work, timeout=60) for c in (one, two) for _ in range(5)]
        assert await asyncio.gather(*calls) == [b"v"] * 10

    asyncio.run(main())
    assert len(runs) == 1
