# SPDX-License-Identifier: Apache-2.0
"""Eight worker processes of one host that share one budget of tokens per minute, by a region.

An account may use 60,000 tokens a minute, however many workers there are. Each worker opens the region by its
name, finds the limiter there or creates it, and asks it before each call; what a call really cost is settled
afterwards. One of them is killed in the middle of its first call: the others go on, and what it held counts as
used. Nothing runs besides the workers, and nothing has to be cleaned up.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

from autoglm_reliability import RateLimited, RateLimiter, Region

WORKERS = 8
TOKENS_PER_MINUTE = 60_000
BURST = 6_000
SECONDS = 2.0


def open_budget(region: Region) -> RateLimiter:
    return RateLimiter(BURST, TOKENS_PER_MINUTE, 60.0, scope=region, name="tokens-per-minute")


def work(name: str, number: int, results: multiprocessing.SimpleQueue[tuple[int, int, int]]) -> None:
    """Makes calls until the time is over; tells how many there were, and what they cost."""
    calls = used = 0
    end = time.monotonic() + SECONDS
    with Region(name) as region, open_budget(region) as budget:
        if number == 0:
            budget.reserve(300, max_wait=60.0)
            os.kill(os.getpid(), signal.SIGKILL)  # out of memory, say; it holds 300 tokens
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
    results.put((number, calls, used))


def main() -> None:
    name = f"example-{os.getpid()}"
    results: multiprocessing.SimpleQueue[tuple[int, int, int]] = multiprocessing.SimpleQueue()
    started = time.monotonic()
    with Region(name, 1 << 20, create=True) as region, open_budget(region) as budget:
        try:
            workers = [multiprocessing.Process(target=work, args=(name, i, results)) for i in range(WORKERS)]
            for worker in workers:
                worker.start()
            for worker in workers:
                worker.join()
            passed = time.monotonic() - started
            reports = [results.get() for _ in range(WORKERS - 1)]
            used = sum(cost for _, _, cost in reports)
            allowed = BURST + TOKENS_PER_MINUTE / 60 * passed
            for number, calls, cost in sorted(reports):
                print(f"worker {number}: {calls} calls, {cost} tokens")
            killed = [worker.exitcode for worker in workers].count(-signal.SIGKILL)
            print(f"{killed} of {WORKERS} workers was killed")
            print(f"{used} tokens, within the budget: {used <= allowed}")
            print(f"still open: {budget.snapshot().open_reservations} reservation(s), of the one that was killed")
        finally:
            Region.unlink(name)


if __name__ == "__main__":
    main()
