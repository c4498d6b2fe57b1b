# SPDX-License-Identifier: Apache-2.0
"""What the middleware adds to a request, and the transport to a call, beside what peers add, in the same run.

    measure.py [--rounds N] [--write]    40 rounds, half a minute; --write: into docs/performance.md

One request at a time on a connection that is kept alive; server and client share a CPU, for only one of them
works at a time, and to wake another CPU takes longer and less evenly than what is measured. A round measures
all of them, and its figure is the mean of its requests; what is added is the median over the rounds of the
difference within a round. run makes the environment."""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median, quantiles

import clients

import autoglm_reliability

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "docs" / "performance.md"
REQUESTS = 100  # of a kind in a round
GOAL = 60.0  # microseconds
BODY = json.dumps(
    {
        "model": "m",
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "max_tokens": 100,
        "usage": {"prompt_tokens": 6, "completion_tokens": 36, "total_tokens": 42},
    }
).encode()

# A kind: what it is, beside what; whether the goal is for it.
SERVERS = {
    "bare": ("Starlette, an echo", "", False),
    "ours.requests": ("limit of requests, headers that tell it", "bare", False),
    "ours": ("the same, admission, idempotency (no key comes)", "bare", True),
    "ours.tokens": ("the same, limit of tokens, settled by the usage", "bare", True),
    "ours.key": ("admission, limit of requests, a new key each time", "bare", False),
    "slowapi": ("slowapi 0.1.10: limit of requests", "bare", False),
    "slowapi.headers": ("slowapi, headers that tell it", "bare", False),
    "fastapi": ("FastAPI, an echo", "", False),
    "fastapi.limiter": ("fastapi-limiter 0.2.0, in memory: limit of requests", "fastapi", False),
}
CALLS = {
    "bare": ("httpx", "", False),
    "ours": ("transport with the default policy", "bare", True),
    "quiet": ("the same, sending no headers of its own", "bare", False),
    "tenacity": ("tenacity 9.2.1 around each call", "bare", False),
}
Round = dict[str, float]


class Connection:
    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), 30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> bytes:
        """The head of the response, when all of it is there."""
        self._socket.sendall(request)
        data = self._socket.recv(65536)
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._socket.recv(65536)
        place = data.index(b"content-length: ") + 16
        length = int(data[place : data.index(b"\r", place)])
        while len(data) < end + 4 + length:
            data += self._socket.recv(65536)
        return data[:end]


def request(key: str = "") -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: localhost", "authorization: Bearer key"]
    lines += ["content-type: application/json", f"content-length: {len(BODY)}"]
    lines += [f"idempotency-key: {key}"] if key else []
    return "\r\n".join([*lines, "", ""]).encode() + BODY


def serving(rounds: int) -> list[Round]:
    command = [sys.executable, str(HERE / "applications.py")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        ports = json.loads(process.stdout.readline())
        connections = {kind: Connection(ports[kind.replace(".key", "")]) for kind in SERVERS}
        plain = request()

        def once(kind: str, turn: int) -> float:
            asked = [plain] * REQUESTS
            if kind == "ours.key":
                asked = [request(f"{turn}-{number}") for number in range(REQUESTS)]
            ask = connections[kind].ask
            start = time.perf_counter()
            for one in asked:
                head = ask(one)
            seconds = time.perf_counter() - start
            assert head.startswith(b"HTTP/1.1 200"), head
            told = b"x-ratelimit-remaining-tokens" in head, b"x-ratelimit-remaining" in head.lower()
            assert told == (kind == "ours.tokens", kind.startswith("ours") or kind == "slowapi.headers"), head
            return seconds / REQUESTS * 1e6

        seen = []
        for turn in range(rounds + 1):
            first = turn % len(SERVERS)
            order = [*list(SERVERS)[first:], *list(SERVERS)[:first]]
            seen.append({kind: once(kind, turn) for kind in order})
        process.stdin.close()
    return seen[1:]


def rows(seen: list[Round], kinds: dict[str, tuple[str, str, bool]], head: str) -> list[list[str]]:
    """A line for each: its time, what it adds (and the middle half of the rounds), its ratio, its goal."""
    lines = [[f"**{head}**", "", "", "", ""]]
    for kind, (what, beside, aimed) in kinds.items():
        line = [what, f"{median(one[kind] for one in seen):.0f}"]
        if not beside:
            lines.append([*line, "", "", ""])
            continue
        added = [one[kind] - one[beside] for one in seen]
        low, _, high = quantiles(added, n=4)
        ratio = median(one[kind] / one[beside] for one in seen)
        reached = "" if not aimed else "yes" if median(added) <= GOAL else "no"
        lines.append([*line, f"{median(added):+.0f} ({low:.0f} … {high:.0f})", f"{ratio:.2f}", reached])
    return lines


def table(served: list[Round], called: dict[str, list[Round]]) -> str:
    head = ["", "us", "added", "ratio", f"at most {GOAL:.0f} us added"]
    lines = [head, ["---", "---:", "---:", "---:", "---"]]
    lines += rows(served, SERVERS, "a request to uvicorn (uvloop, httptools)")
    for kind, seen in called.items():
        lines += rows(seen, CALLS, f"a call by httpx, {kind}")
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="What the integrations add to a request and to a call.")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--write", action="store_true", help="docs/performance.md")
    options = parser.parse_args()
    if not autoglm_reliability.accelerated:
        raise SystemExit("the accelerator is not built: make build")
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})  # which the servers inherit
    told = table(serving(options.rounds), clients.measured(options.rounds, REQUESTS))
    print(told)
    if options.write:
        begin, end = "<!-- integrations -->\n", "<!-- /integrations -->"
        head, rest = PAGE.read_text().split(begin)
        PAGE.write_text(head + begin + told + end + rest.split(end)[1])


if __name__ == "__main__":
    main()
