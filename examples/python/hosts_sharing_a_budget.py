# SPDX-License-Identifier: Apache-2.0
"""Two hosts of four worker processes each that share one budget of tokens per minute, by a Redis server.

    python hosts_sharing_a_budget.py [HOST:PORT]

An account may use 60,000 tokens a minute, however many hosts there are. The hosts have nothing in common but
the server's address: each is started by itself, in a directory of its own. A worker takes 300 tokens more
than it needs whenever it asks the server, so that it asks less often. One is killed in the middle of its
first call: the others go on, and what it held counts as used. At the end the hosts agree who writes the
report: whoever gets the lock first.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time

from autoglm_reliability import DistributedLock, RateLimited, RateLimiter, RedisStore

HOSTS = 2
WORKERS = 4
TOKENS_PER_MINUTE = 60_000
BURST = 6_000
LEASE = 300
SECONDS = 2.0


def open_store(address: str, run: str) -> RedisStore:
    return RedisStore(address, prefix=run, timeout=5)


def open_budget(store: RedisStore) -> RateLimiter:
    return RateLimiter(
        BURST, TOKENS_PER_MINUTE, 60.0, scope=store, name="tokens-per-minute", lease_tokens=LEASE
    )


def work(
    address: str,
    run: str,
    host: int,
    number: int,
    results: multiprocessing.SimpleQueue[tuple[int, int, int, int]],
) -> None:
    """Makes calls until the time is over; tells how many there were, and what they cost."""
    calls = used = 0
    end = time.monotonic() + SECONDS
    with open_store(address, run) as store, open_budget(store) as budget:
        if (host, number) == (0, 0):
            budget.reserve(300, max_wait=60.0)
            os.kill(os.getpid(), signal.SIGKILL)  # out of memory, say
        while time.monotonic() < end:
            try:
                # The prompt, and the most that the answer may have.
                reservation = budget.reserve(300, max_wait=max(0.0, end - time.monotonic()))
            except RateLimited:
                break  # not before the end
            time.sleep(reservation.wait)
            cost = random.randint(100, 300)  # noqa: S311
            reservation.settle(cost)
            calls += 1
            used += cost
    results.put((host, number, calls, used))


def run_host(
    address: str,
    run: str,
    host: int,
    results: multiprocessing.SimpleQueue[tuple[int, int, int, int]],
    fences: multiprocessing.SimpleQueue[tuple[int, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        context = multiprocessing.get_context("spawn")
        workers = [
            context.Process(target=work, args=(address, run, host, i, results)) for i in range(WORKERS)
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        os.chdir("/")
    with open_store(address, run) as store, DistributedLock(store, "report", ttl=60) as lock:
        hold = lock.try_acquire("2026-11")
        # The report is written under this number; who keeps reports refuses one with a smaller number.
        fences.put((host, 0 if hold is None else hold.fence))


def main(address: str) -> None:
    run = f"example-{os.getpid()}-{time.time_ns()}"
    context = multiprocessing.get_context("spawn")
    results, fences = context.SimpleQueue(), context.SimpleQueue()
    started = time.monotonic()
    with open_store(address, run) as store:
        store.ping()
        hosts = [
            context.Process(target=run_host, args=(address, run, i, results, fences)) for i in range(HOSTS)
        ]
        for host in hosts:
            host.start()
        for host in hosts:
            host.join()
        passed = time.monotonic() - started
        reports = [results.get() for _ in range(HOSTS * WORKERS - 1)]
        for number, worker, calls, cost in sorted(reports):
            print(f"host {number}, worker {worker}: {calls} calls, {cost} tokens")
        used = sum(cost for *_, cost in reports)
        # What was leased may be spent after the bucket has refilled.
        allowed = BURST + TOKENS_PER_MINUTE / 60 * passed + HOSTS * WORKERS * LEASE
        print(f"{used} tokens, within the budget: {used <= allowed}")
        held = [fence for _, fence in (fences.get() for _ in hosts) if fence]
        print(f"hosts that write the report: {len(held)}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "127.0.0.1:6379")
