# SPDX-License-Identifier: Apache-2.0
"""What the Python package costs, by ctypes and with the accelerator, beside peers that do the same.

    bench.py [--rounds N] [--only PREFIX] [--table]

Prints a line of JSON for each case: its name, threads, and nanoseconds an operation, round by round. Two
processes measure in turn, for the accelerator is chosen when the package is imported; a round runs every
case of both once, so that a slow moment of the machine meets all alike. Compare the figures of one run only.
What is not installed is left out, and said so on the standard error. The loop's own time is in every figure;
python.call is that and a call of an empty function."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import textwrap
import time
from functools import cache
from pathlib import Path
from typing import Any, Callable

from cases import CASES

ROOT = Path(__file__).resolve().parents[2]
ROUND = 0.004  # seconds for a case in a round
OURS = "ours"
VARIANTS = {"ctypes": "0", "accelerated": "1"}

Run = Callable[[int], float]


def loop(statement: str, names: dict[str, Any]) -> Run:
    """The statement so many times; returns the seconds that takes."""
    asynchronous = statement.startswith("await ")
    source = f"{'async ' if asynchronous else ''}def run(count):\n  start = now()\n  for _ in range(count):\n"
    source += textwrap.indent(statement, "    ") + "\n  return now() - start\n"
    scope = {**names, "now": time.perf_counter}
    exec(source, scope)  # noqa: S102
    run: Any = scope["run"]
    return (lambda count: event_loop().run_until_complete(run(count))) if asynchronous else run


@cache
def event_loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def calibrated(run: Run) -> int:
    count = 10
    while run(count) < ROUND / 4:
        count *= 2
    return max(1, round(count * ROUND / run(count)))


def serve(names: list[str]) -> None:
    """A worker: says what it can measure, then measures the case of each line that it is sent."""
    runs: dict[str, tuple[Run, int]] = {}
    for name in names:
        try:
            statement, scope = CASES[name]()
        except ImportError as error:
            print(f"bench.py: without {name}: {error}", file=sys.stderr)
            continue
        run = loop(statement, scope)
        runs[name] = run, calibrated(run)
    print(json.dumps(list(runs)), flush=True)
    for line in sys.stdin:
        run, count = runs[line.strip()]
        print(run(count) / count * 1e9, flush=True)


class Worker:
    def __init__(self, variant: str, names: list[str]) -> None:
        environment = {
            "AUTOGLM_RELIABILITY_LIB": str(ROOT / "build" / "libautoglm_reliability.so"),
            **os.environ,
            "AUTOGLM_RELIABILITY_ACCELERATOR": VARIANTS[variant],
            "PYTHONPATH": str(ROOT / "bindings" / "python" / "src"),
        }
        command = [sys.executable, __file__, "--serve", *names]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)
        self.names: list[str] = json.loads(self._line())

    def measure(self, name: str) -> float:
        assert self._process.stdin is not None
        print(name, file=self._process.stdin, flush=True)
        return float(self._line())

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with status {self._process.wait()}")
        return line

    def close(self) -> None:
        self._process.communicate()


def shown(name: str, variant: str) -> str:
    return "python." + (f"{name[: -len(OURS)]}{variant}" if name.endswith(OURS) else name)


def measure(rounds: int, only: str) -> dict[str, list[float]]:
    wanted = [name for name in CASES if name.startswith(only)]
    ours = [name for name in wanted if name.endswith(OURS)]
    workers = {"accelerated": Worker("accelerated", wanted), "ctypes": Worker("ctypes", ours)}
    results: dict[str, list[float]] = {}
    for _ in range(rounds):
        for variant, worker in workers.items():
            for name in worker.names:
                results.setdefault(shown(name, variant), []).append(worker.measure(name))
    for worker in workers.values():
        worker.close()
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="What the Python package costs, beside peers.")
    parser.add_argument("--rounds", type=int, default=31)
    parser.add_argument("--only", default="", metavar="PREFIX", help="the cases whose names begin so")
    parser.add_argument("--table", action="store_true", help="minimum, median and maximum, for reading")
    parser.add_argument("--serve", nargs="*", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return
    results = measure(options.rounds, options.only)
    for name in sorted(results):
        ns = results[name]
        if options.table:
            print(f"{name:40} {min(ns):9.0f} {statistics.median(ns):9.0f} {max(ns):9.0f}")
        else:
            print(json.dumps({"name": name, "threads": 1, "ns": [round(value, 1) for value in ns]}))


if __name__ == "__main__":
    main()
