# SPDX-License-Identifier: Apache-2.0
"""The demonstration: the same bursty traffic against the same misbehaving server, first from naive clients,
then from guarded ones, half of it through C (libcurl) and half through Python.

    run.py C_CLIENT [--trace CSV] [--out DIRECTORY]

It shows progress, and ends with a table and a picture. Exit status 1 if the guarded run executed a request
twice. --trace takes arrivals and sizes from a CSV with the columns TIMESTAMP, ContextTokens, GeneratedTokens
(such as Azure's 2023 LLM inference trace: Patel et al., Splitwise, ISCA 2024) instead of making them up.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SECONDS = 15.0
RATE = 75.0  # requests a second, on average
PHASES = [(0, "normal"), (3, "overloaded"), (6, "out"), (9, "recovering"), (12, "normal")]

Arrival = tuple[float, int]


def generated(seed: int) -> list[Arrival]:
    """Arrivals in bursts, sizes log-normal, as in published traces of LLM traffic."""
    rng = random.Random(seed)
    arrivals: list[Arrival] = []
    for half in range(int(SECONDS * 2)):
        # A rate of its own for each half second, RATE on average: mean of a log-normal, exp(s^2 / 2).
        rate = RATE * rng.lognormvariate(-0.125, 0.5)
        now = half / 2 + rng.expovariate(rate)
        while now < (half + 1) / 2:
            arrivals.append((now, int(rng.lognormvariate(4.5, 1.0)) + 1))
            now += rng.expovariate(rate)
    return arrivals


def traced(path: str) -> list[Arrival]:
    """The first minutes of a trace, compressed in time to the rate wanted."""
    rows: list[tuple[float, int]] = []
    with open(path) as file:
        for row in csv.DictReader(file):
            stamp = datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp()
            rows.append((stamp, int(row["GeneratedTokens"])))
            if len(rows) >= SECONDS * RATE:
                break
    first, last = rows[0][0], rows[-1][0]
    return [((when - first) / (last - first) * SECONDS, max(1, tokens)) for when, tokens in rows]


@dataclass
class Run:
    mode: str
    calls: list[dict[str, Any]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    server: dict[str, Any] = field(default_factory=dict)

    @property
    def good(self) -> list[dict[str, Any]]:
        return [call for call in self.calls if call["ok"]]

    def row(self) -> list[str]:
        latencies = sorted(call["end"] - call["start"] for call in self.good)
        refused = {int(call["end"] * 10) for call in self.calls if "refused" in call}
        attempts = sum(call["attempts"] for call in self.calls)
        retries = sum(max(0, call["attempts"] - 1) for call in self.calls)

        def quantile(q: float) -> str:
            return f"{latencies[int(q * (len(latencies) - 1))]:.2f} s" if latencies else "-"

        return [
            f"{100 * len(self.good) / len(self.calls):.1f} %",
            str(attempts),
            str(retries),
            str(self.server["executed"]),
            str(self.server["duplicates"]),
            f"{len(refused) / 10:.1f} s",
            quantile(0.5),
            quantile(0.99),
        ]


def run(mode: str, c_client: str, arrivals: list[Arrival], out: Path) -> Run:
    halves: dict[str, list[str]] = {"c": [], "py": []}
    for number, (when, tokens) in enumerate(arrivals):
        name = "c" if number % 2 == 0 else "py"
        halves[name].append(f"{mode}-{name}-{number} {when:.4f} {tokens}\n")
    for name, lines in halves.items():
        (out / f"{mode}-{name}.schedule").write_text("".join(lines))
    start = time.monotonic() + 1.0
    server = subprocess.Popen(
        [sys.executable, str(HERE / "server.py"), str(start)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    clients: list[subprocess.Popen[bytes]] = []
    try:
        assert server.stdout is not None
        port = server.stdout.readline().strip()
        if not port:
            raise SystemExit("the server did not start")
        for name, command in (("c", [c_client]), ("py", [sys.executable, str(HERE / "client.py")])):
            files = [str(out / f"{mode}-{name}.schedule"), str(out / f"{mode}-{name}.jsonl")]
            clients.append(subprocess.Popen([*command, mode, port, str(start), *files]))
        watch(mode, start, clients, len(arrivals))
        report, _ = server.communicate("", timeout=20)
    finally:
        for process in [*clients, server]:
            if process.poll() is None:
                process.terminate()
    result = Run(mode, server=json.loads(report))
    for name in halves:
        for line in (out / f"{mode}-{name}.jsonl").read_text().splitlines():
            record = json.loads(line)
            if "sample" not in record:
                result.calls.append(record)
            elif name == "c":
                result.samples.append(record)
    if any(client.returncode for client in clients):
        raise SystemExit(f"a {mode} client failed")
    if len(result.calls) != len(arrivals):
        raise SystemExit(f"{mode}: {len(result.calls)} of {len(arrivals)} requests were accounted for")
    return result


def watch(mode: str, start: float, clients: list[subprocess.Popen[bytes]], total: int) -> None:
    """A line a second until both clients are done."""
    limit = start + SECONDS + 15
    shown = -1
    while any(client.poll() is None for client in clients):
        now = time.monotonic()
        if now > limit:
            raise SystemExit(f"the {mode} clients did not finish in time")
        second = int(now - start)
        if second > shown >= -1 and now >= start:
            shown = second
            phase = next(name for begin, name in reversed(PHASES) if begin <= second)
            bar = "#" * min(second, int(SECONDS)) + "." * max(0, int(SECONDS) - second)
            print(f"  {mode:8} {bar} {second:2} s  server: {phase}", flush=True)
        try:
            clients[0].wait(0.1)
            clients[1].wait(0.1)
        except subprocess.TimeoutExpired:
            pass


def table(runs: list[Run]) -> str:
    names = ["success", "requests sent", "retries", "executions", "executed twice", "time refused", "p50", "p99"]
    columns = [run.row() for run in runs]
    lines = [f"{'':16}" + "".join(f"{run.mode:>12}" for run in runs)]
    for index, name in enumerate(names):
        lines.append(f"{name:16}" + "".join(f"{column[index]:>12}" for column in columns))
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("c_client")
    parser.add_argument("--trace")
    parser.add_argument("--out", default="out")
    options = parser.parse_args()
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    arrivals = traced(options.trace) if options.trace else generated(seed=2023)
    print(f"{len(arrivals)} requests in {SECONDS:.0f} s, twice; the server is overloaded from 3 s, out from 6 s,")
    print("and slow to recover from 9 s")
    runs = [run(mode, options.c_client, arrivals, out) for mode in ("naive", "guarded")]
    from picture import draw  # after the load, so that it does not compete with it

    draw(runs, PHASES, SECONDS, out / "demo.png")
    print()
    print(table(runs))
    print(f"\npicture: {out / 'demo.png'}")
    duplicates = runs[1].server["duplicates"]
    if duplicates:
        print(f"the guarded run executed {duplicates} requests twice", file=sys.stderr)
    return 1 if duplicates else 0


if __name__ == "__main__":
    sys.exit(main())
