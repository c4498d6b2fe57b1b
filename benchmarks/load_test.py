# SPDX-License-Identifier: Apache-2.0
"""Loads the C and C++ examples over loopback, checks that nothing was lost or admitted beyond the limits, and
writes the figures to docs/integrations/native.md.

    load_test.py [--seconds N]   of each of wrk's runs; 5, at most 60

The server is examples/cpp/inference_server with a model that takes no time, so that what is measured is HTTP
and the library; wrk is Debian's. The client is examples/c/curl_multi, against an ASGI application under
uvicorn."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "build" / "examples"
PAGE = ROOT / "docs" / "integrations" / "native.md"
MANY = 10**9
CONNECTIONS = 32

SUMMARY = re.compile(r"(\d+) succeeded, (\d+) failed; .*; (\d+) calls/s; p50 ([\d.]+) ms, p99 ([\d.]+) ms")

ECHO = """
async def app(scope, receive, send):
    if scope["type"] == "http":
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""


@dataclass
class Run:
    what: str
    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    answers: str

    def row(self) -> str:
        rate = self.requests / self.seconds
        return f"| {self.what} | {rate:,.0f} | {self.p50_ms:.2f} | {self.p99_ms:.2f} | {self.answers} |"


@contextlib.contextmanager
def inference_server(requests: int) -> Iterator[str]:
    """With so many requests a minute for each tenant. It says itself whether anything was left behind."""
    command = [str(EXAMPLES / "inference_server"), str(requests), str(MANY), "0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            assert process.stdin
            yield process.stdout.readline().strip()
            process.stdin.close()
            if process.wait(30) != 0:
                raise SystemExit(f"the server: {process.stdout.read()}")
        finally:
            process.kill()


def wrk(address: str, seconds: int, what: str, *, keys: int, tenants: int) -> tuple[Run, dict[str, int]]:
    script = ROOT / "benchmarks" / "load" / "generate.lua"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "-s", str(script), address]
    environment = {**os.environ, "KEYS": str(keys), "TENANTS": str(tenants)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    seen = json.loads(done.stdout.strip().splitlines()[-1])
    if seen["broken"]:
        raise SystemExit(f"{what}: {seen['broken']} connections were broken")
    statuses: dict[str, int] = seen["statuses"]
    answers = ", ".join(f"{count:,} x {status}" for status, count in sorted(statuses.items()))
    return Run(what, seen["requests"], seen["seconds"], seen["p50_ms"], seen["p99_ms"], answers), statuses


def serve(seconds: int) -> list[Run]:
    runs = []
    with inference_server(MANY) as address:
        run, statuses = wrk(address, seconds, "a new key for each request", keys=0, tenants=100)
        if set(statuses) != {"200"}:
            raise SystemExit(f"{run.what}: {run.answers}")
        runs.append(run)
        run, statuses = wrk(address, seconds, "1,000 keys, asked for again and again", keys=1000, tenants=100)
        if set(statuses) != {"200"}:
            raise SystemExit(f"{run.what}: {run.answers}")
        runs.append(run)
    tenants, limit = 10, 600
    start = time.monotonic()
    with inference_server(limit) as address:
        what = f"{tenants} tenants of {limit} requests a minute"
        run, statuses = wrk(address, seconds, what, keys=0, tenants=tenants)
    most = tenants * (limit + limit * (time.monotonic() - start) / 60)
    if set(statuses) != {"200", "429"} or not tenants * limit <= statuses["200"] <= most:
        raise SystemExit(f"{run.what}: {run.answers}, at most {most:.0f} should have been admitted")
    return [*runs, run]


@contextlib.contextmanager
def echo() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=4096) as listening:
        port = listening.getsockname()[1]
        program = (
            f"{ECHO}\nimport socket, uvicorn\nlistening = socket.socket(fileno={listening.fileno()})\n"
            "uvicorn.Server(uvicorn.Config(app, log_level='error', backlog=4096)).run(sockets=[listening])"
        )
        with subprocess.Popen([sys.executable, "-c", program], pass_fds=[listening.fileno()]) as process:
            try:
                yield f"http://127.0.0.1:{port}/"
            finally:
                process.terminate()


def call(calls: int, at_once: int) -> Run:
    with echo() as address:
        command = [str(EXAMPLES / "curl_multi"), address, str(calls), str(at_once)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    found = SUMMARY.search(done.stdout)
    if done.returncode != 0 or found is None:
        raise SystemExit(f"curl_multi: {done.stdout}{done.stderr}")
    good, _, rate, p50, p99 = found.groups()
    what = f"`curl_multi`, {at_once:,} calls at a time on one thread"
    return Run(what, calls, calls / float(rate), float(p50), float(p99), f"{int(good):,} succeeded")


def write(runs: list[Run]) -> None:
    head = ["| load | requests/s | p50 ms | p99 ms | answers |", "|---|---|---|---|---|"]
    table = [*head, *(run.row() for run in runs)]
    text = PAGE.read_text()
    begin, end = "<!-- load: make load -->\n", "<!-- end of load -->"
    before, rest = text.split(begin)
    PAGE.write_text(before + begin + "\n".join(table) + "\n" + end + rest.split(end)[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Loads the C and C++ examples.")
    parser.add_argument("--seconds", type=int, choices=range(1, 61), default=5, metavar="N")
    options = parser.parse_args()
    runs = [*serve(options.seconds), call(20_000, 100), call(20_000, 4000)]
    for run in runs:
        print(run.row())
    write(runs)


if __name__ == "__main__":
    main()
