# SPDX-License-Identifier: Apache-2.0
"""Measures the library beside floors and peers, and writes docs/performance.md and its pictures.

    run.py [--quick]          everything in the table of goals: about two minutes
    run.py --check            only the goals, written nowhere; fails when one is missed beyond what is known
    run.py --growth [KEYS]    time and memory with more keys (up to KEYS, 10^7), threads, buckets
    run.py --long [PAIRS]     the idempotency cache for long (10^8 pairs of calls)
    run.py --clock [SECONDS]  the clock's error (300)
    run.py --redis            the Redis store alone: half a minute
    run.py --write            the page and the pictures again, from what was measured last

What it needs is installed as Debian packages; a peer that cannot be had is left out, and said so."""

from __future__ import annotations

import argparse

import measure
import picture
import report
from verdict import Verdict, verdicts

CHECKS = 3  # a miss must be seen each time, for one run may meet a slow moment of the machine


def show(seen: list[Verdict]) -> None:
    for one in seen:
        figure = report.number(one, one.figure)
        print(f"{one.word:10} {one.goal.what:48} {figure:>10}  goal {report.limit(one)}")


def check(passes: int, rounds: int) -> int:
    missed: set[str] = set()
    for number in range(CHECKS):
        seen = verdicts(measure.measure(passes, rounds, all_peers=False)) + verdicts(measure.redis(rounds))
        show(seen)
        now = {one.goal.what for one in seen if not one.tolerated}
        missed = now if number == 0 else missed & now
        if not missed:
            print(f"{len(seen)} passed, 0 failed")
            return 0
        print(f"missed so far: {', '.join(sorted(missed))}")
    print(f"{len(seen) - len(missed)} passed, {len(missed)} failed")
    return 1


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures the library beside floors and peers.")
    parser.add_argument("--quick", action="store_true", help="a short run")
    parser.add_argument("--check", action="store_true", help="fail when a goal is missed")
    parser.add_argument("--growth", type=int, nargs="?", const=10**7, metavar="KEYS")
    parser.add_argument("--long", type=int, nargs="?", const=10**8, metavar="PAIRS")
    parser.add_argument("--clock", type=int, nargs="?", const=300, metavar="SECONDS")
    parser.add_argument("--redis", action="store_true", help="the Redis store alone")
    parser.add_argument("--write", action="store_true", help="only write, from the last results")
    options = parser.parse_args()
    passes, rounds = (1, 7) if options.quick else (5, 15)
    if options.check:
        return check(1 if options.quick else 2, rounds)
    if options.growth:
        results = measure.keep(growth=measure.growth(5 if options.quick else 21, options.growth))
    elif options.long:
        results = measure.keep(long=measure.long_run(options.long))
    elif options.clock:
        results = measure.keep(clock=measure.clock_error(options.clock))
    elif options.write:
        results = measure.load()
    elif options.redis:
        results = measure.keep(redis=measure.redis(rounds))
        show(verdicts(results["redis"]))
    else:
        results = measure.keep(
            main=measure.measure(passes, rounds, all_peers=True), redis=measure.redis(rounds)
        )
        show(verdicts(results["main"]) + verdicts(results["redis"]))
    report.write(results)
    if "main" in results:
        picture.performance(results["main"])
    if "growth" in results:
        picture.growth(results["growth"])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
