# SPDX-License-Identifier: Apache-2.0
"""While a call waits for a store, other threads and the event loop go on: the server is held up until they
have."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from typing import Any, Callable

import pytest

import autoglm_reliability as agr
from helpers import eventually
from redis_server import RedisServer
from stored import HOUR, breakers, cache_in, limiter_in, opens


class World:
    """One of each, on a server that will be held up."""

    def __init__(self, store: agr.RedisStore) -> None:
        self.store = store
        self.limiter = limiter_in(store, 100)
        self.leased = agr.RateLimiter(100, 1, HOUR, scope=store, name="leased", lease_tokens=50)
        assert self.leased.try_acquire()
        self.keyed = agr.KeyedRateLimiter(100, 1, HOUR, scope=store, name="keyed")
        self.reservations = [self.limiter.reserve(10) for _ in range(3)]
        self.breaker, _ = breakers(store, store)
        self.permits = [self.breaker.acquire(), self.breaker.acquire()]
        assert self.permits.pop().failure()
        self.lock = agr.DistributedLock(store, "lock", ttl=60)
        self.hold = self.lock.acquire("held")
        self.cache = cache_in(store)
        lease = self.cache.begin("leased")
        assert isinstance(lease, agr.Lease)
        self.lease = lease

    async def known(self) -> bool:
        return await self.cache.state_async("unknown") is None

    async def done(self, end: Awaitable[None]) -> bool:
        await end
        return self.lease.ended

    def sync(self) -> agr.Permit:
        """An acquire that looks at the shared state: it is due after a millisecond."""
        while True:
            calls = self.store.snapshot().calls
            permit = self.breaker.acquire()
            if self.store.snapshot().calls > calls:
                return permit

    async def sync_async(self) -> bool:
        while True:
            calls = self.store.snapshot().calls
            async with await self.breaker.acquire_async() as permit:
                if self.store.snapshot().calls > calls:
                    return await permit.report_async(agr.Outcome.SUCCESS)

    async def decorated(self) -> None:
        @self.breaker
        async def nothing() -> None:
            pass

        calls = self.store.snapshot().calls
        while self.store.snapshot().calls == calls:
            await nothing()

    async def end(self, block: Any) -> bool:
        async with block:
            pass
        return True


BLOCKING: dict[str, Callable[[World], object]] = {
    "try_acquire": lambda world: world.limiter.try_acquire(),
    "acquire": lambda world: world.limiter.acquire(timeout=1) is None,
    "reserve": lambda world: world.limiter.reserve(5),
    "try_acquire_all": lambda world: agr.try_acquire_all([(world.limiter, 1)]),
    "acquire_all": lambda world: agr.acquire_all([(world.limiter, 1)], timeout=1) is None,
    "keyed.try_acquire": lambda world: world.keyed.try_acquire("k"),
    "available": lambda world: world.limiter.available == 70,
    "settle": lambda world: world.reservations[0].settle(1),
    "cancel": lambda world: world.reservations[1].cancel(),
    "close": lambda world: world.leased.close() is None,
    "breaker.acquire": lambda world: world.sync(),
    "breaker.report": lambda world: world.permits[0].failure(),
    "lock.try_acquire": lambda world: world.lock.try_acquire("free"),
    "lock.acquire": lambda world: world.lock.acquire("free"),
    "lock.renew": lambda world: world.hold.renew() is None,
    "lock.release": lambda world: world.hold.release() is None,
    "begin": lambda world: world.cache.begin("k"),
    "ping": lambda world: world.store.ping() is None,
}


@pytest.mark.parametrize("name", BLOCKING)
def test_other_threads_go_on_while_a_call_waits_for_the_store(own_redis: RedisServer, name: str) -> None:
    with own_redis.store() as store:
        world = World(store)
        results: list[object] = []
        thread = threading.Thread(target=lambda: results.append(BLOCKING[name](world)))
        before = store.snapshot().calls
        own_redis.hold_up()
        thread.start()
        # This thread comes to the next line only when the call does not keep the interpreter to itself.
        eventually(lambda: store.snapshot().calls > before, "the call is under way")
        assert results == []
        own_redis.go_on()
        thread.join(60)
        assert [bool(result) for result in results] == [True]
        assert store.snapshot().failures == 0


ASYNC: dict[str, Callable[[World], Awaitable[object]]] = {
    "try_acquire": lambda world: world.limiter.try_acquire_async(),
    "acquire": lambda world: world.limiter.acquire_async(timeout=1),
    "reserve": lambda world: world.limiter.reserve_async(5),
    "try_acquire_all": lambda world: agr.try_acquire_all_async([(world.limiter, 1)]),
    "reserve_all": lambda world: agr.reserve_all_async([(world.limiter, 1)]),
    "acquire_all": lambda world: agr.acquire_all_async([(world.limiter, 1)], timeout=1),
    "keyed.try_acquire": lambda world: world.keyed.try_acquire_async("k"),
    "keyed.acquire": lambda world: world.keyed.acquire_async("k"),
    "available": lambda world: world.limiter.available_async(),
    "keyed.available": lambda world: world.keyed.available_async("k"),
    "begin": lambda world: world.cache.begin_async("k"),
    "join": lambda world: world.cache.join_async("k"),
    "state": lambda world: world.known(),
    "lease.complete": lambda world: world.done(world.lease.complete_async(b"result")),
    "lease.fail": lambda world: world.done(world.lease.fail_async()),
    "lease.abandon": lambda world: world.lease.abandon_async(),
    "lease.renew": lambda world: world.lease.renew_async(),
    "lease.leave": lambda world: world.end(world.lease),
    "settle": lambda world: world.reservations[0].settle_async(1),
    "cancel": lambda world: world.reservations[1].cancel_async(),
    "breaker.acquire": lambda world: world.sync_async(),
    "breaker.decorated": lambda world: world.decorated(),
    "breaker.report": lambda world: world.permits[0].report_async(agr.Outcome.FAILURE),
    "lock.try_acquire": lambda world: world.lock.try_acquire_async("free"),
    "lock.acquire": lambda world: world.lock.acquire_async("free"),
    "lock.renew": lambda world: world.hold.renew_async(),
    "lock.release": lambda world: world.hold.release_async(),
    "lock.leave": lambda world: world.end(world.hold),
    "lock.hold": lambda world: world.end(world.lock.hold("free")),
}


@pytest.mark.parametrize("name", ASYNC)
def test_the_loop_goes_on_while_a_coroutine_waits_for_the_store(own_redis: RedisServer, name: str) -> None:
    async def main() -> object:
        before = store.snapshot().calls
        own_redis.hold_up()
        task = asyncio.ensure_future(ASYNC[name](world))
        while store.snapshot().calls == before:
            await asyncio.sleep(0)
        assert not task.done()
        own_redis.go_on()
        return await task

    with own_redis.store() as store:
        world = World(store)
        result = asyncio.run(main())
        assert result is None or result
        assert store.snapshot().failures == 0


def test_a_coroutine_that_is_cancelled_gives_back_what_it_gets(own_redis: RedisServer) -> None:
    async def cancelled(waits: Any) -> None:
        before = store.snapshot().calls
        own_redis.hold_up()
        task = asyncio.ensure_future(waits)
        while store.snapshot().calls == before:
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        own_redis.go_on()

    async def main() -> None:
        await cancelled(limiter.acquire_async(100))
        await cancelled(limiter.reserve_async(100))
        while limiter.available < 100:
            await asyncio.sleep(0)
        await cancelled(lock.acquire_async())
        async with lock.hold(timeout=60):
            pass

    with own_redis.store() as store:
        limiter = limiter_in(store)
        lock = agr.DistributedLock(store, "lock", ttl=HOUR)
        asyncio.run(main())


def test_a_wait_that_ends_while_it_asks_is_no_failure_of_the_store(own_redis: RedisServer) -> None:
    with own_redis.store() as one, own_redis.store(on_error=agr.OnStoreError.LOCAL) as two:
        lease = cache_in(one).begin("k")
        assert isinstance(lease, agr.Lease)
        cache = cache_in(two)
        ticket = cache.join("k")
        assert isinstance(ticket, agr.Ticket)
        results: list[object] = []

        def wait() -> None:
            try:
                results.append(ticket.wait(0.2))
            except agr.ReliabilityError as error:
                results.append(error)

        before = two.snapshot().calls
        own_redis.hold_up()
        started = time.monotonic()
        thread = threading.Thread(target=wait)
        thread.start()
        eventually(lambda: two.snapshot().calls > before, "the store is asked")
        eventually(lambda: time.monotonic() > started + 0.5, "the wait's own time is over")
        own_redis.go_on()
        thread.join(60)
        # Not a second execution, which the store's silence would have allowed.
        assert isinstance(results.pop(), agr.WaitTimeout)
        assert two.snapshot().failures == 0
        lease.complete(b"once")
        assert isinstance(ticket.wait(60), agr.Result)


def test_decorated_coroutines(stores: tuple[agr.Store, agr.Store]) -> None:
    limiter = limiter_in(stores[0], 2)
    breaker, other = breakers(*stores)

    @breaker
    async def fails() -> None:
        raise OSError("down")

    @limiter
    async def counted() -> str:
        return "done"

    async def main() -> None:
        assert [await counted() for _ in range(2)] == ["done"] * 2
        with pytest.raises(agr.RateLimited):
            await limiter.acquire_async(timeout=1)
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                await fails()
        with pytest.raises(agr.CircuitOpen):
            await fails()

    asyncio.run(main())
    eventually(lambda: opens(other), "the other opens")
