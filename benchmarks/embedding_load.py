# SPDX-License-Identifier: Apache-2.0
"""Loads examples/python/embedding with and without the middleware, the same requests in the same run, and
writes docs/integrations/embedding.md and its picture.

    embedding_load.py [--write]

Two minutes, over loopback. The service has one CPU, the client another, so that neither takes from the other.
Requests of the open loop come when they are due, whatever became of those before; a time is from then on."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "integrations" / "embedding.md"
RUN = ROOT / "examples" / "python" / "embedding" / "run"
TEXTS, DUPLICATES, AT_A_TIME = 200, 10, 16
SHORT, LONG = 20, 100  # words of a text
CALM, OVERLOAD = 0.6, 2.5  # of what the model can do
CALM_SECONDS, OVERLOAD_SECONDS = 9, 15
CALM_TURNS = 6
DEADLINE = 1.0  # seconds after which nobody wants the answer any more
LONGEST = 60.0  # seconds that the client waits for what is still to come
CPUS = sorted(os.sched_getaffinity(0))
KINDS = {"without": ["--plain"], "with": []}
WORDS = ["river", "stone", "market", "letter", "engine", "garden", "winter", "signal", "copper", "window"]


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@dataclass
class Answer:
    due: float
    seconds: float
    status: int


@dataclass
class Load:
    seconds: float = 0
    runs: int = 0
    answers: list[Answer] = field(default_factory=list)

    def add(self, more: Load) -> None:
        self.seconds += more.seconds
        self.runs += more.runs
        self.answers += more.answers

    def of(self, status: int) -> list[float]:
        return sorted(answer.seconds for answer in self.answers if answer.status == status)

    @property
    def statuses(self) -> dict[int, int]:
        return dict(sorted(Counter(answer.status for answer in self.answers).items()))

    def in_time(self) -> int:
        return sum(seconds <= DEADLINE for seconds in self.of(200))


def at(seconds: list[float], share: float) -> float:
    return seconds[min(len(seconds) - 1, int(share * len(seconds)))] if seconds else float("nan")


def texts(count: int, words: int, seed: int) -> list[str]:
    draw = random.Random(seed)  # noqa: S311
    return [" ".join(draw.choices(WORDS, k=words)) for _ in range(count)]


class Service:
    """Over connections that are kept, as many as are needed."""

    FRESH = 3  # seconds; a connection that has been idle for longer is about to be closed by the server

    def __init__(self, address: str) -> None:
        host, port = address.removeprefix("http://").split(":")
        self._host, self._port = host, int(port)
        self._idle: list[tuple[float, Connection]] = []

    async def ask(self, method: str, path: str, body: bytes = b"", key: str = "") -> tuple[int, bytes]:
        reader, writer = await self._connection()
        lines = [f"{method} {path} HTTP/1.1", f"host: {self._host}", "authorization: Bearer load"]
        lines += ["content-type: application/json", f"content-length: {len(body)}"]
        lines += [f"idempotency-key: {key}"] if key else []
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
        data = await reader.readexactly(length)
        if b"connection: close" in head:
            writer.close()
        else:
            self._idle.append((time.monotonic(), (reader, writer)))
        return int(head.split(b" ", 2)[1]), data

    async def _connection(self) -> Connection:
        """The one that was used last, for it is the freshest."""
        since, connection = self._idle.pop() if self._idle else (0.0, None)
        if connection is not None and time.monotonic() - since < self.FRESH:
            return connection
        self.close()
        return await asyncio.open_connection(self._host, self._port)

    async def embed(self, text: str, due: float, start: float, key: str = "") -> Answer:
        body = json.dumps({"input": text, "encoding_format": "base64"}).encode()
        status, _ = await self.ask("POST", "/v1/embeddings", body, key)
        return Answer(due, time.perf_counter() - start - due, status)

    async def runs(self) -> int:
        return int(json.loads((await self.ask("GET", "/stats"))[1])["runs"])

    def close(self) -> None:
        for _, (_, writer) in self._idle:
            writer.close()
        self._idle.clear()


@contextlib.contextmanager
def running(kind: str) -> Iterator[str]:
    command = ["taskset", "-c", str(CPUS[0]), RUN, "service.py", "--port", "0", "--requests", "1000000"]
    command += ["--tokens", "1000000000", *KINDS[kind]]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            process.wait(LONGEST)


async def measured(made: Service, load: Callable[[Load], Any]) -> Load:
    seen = Load(runs=-await made.runs())
    start = time.perf_counter()
    await asyncio.wait_for(load(seen), LONGEST + OVERLOAD_SECONDS)
    seen.seconds = time.perf_counter() - start
    seen.runs += await made.runs()
    return seen


def duplicates(made: Service) -> Callable[[Load], Any]:
    """Ten of each text at a time, with its key."""

    async def load(seen: Load) -> None:
        todo = [
            (text, f"text-{n}") for n, text in enumerate(texts(TEXTS, SHORT, 1)) for _ in range(DUPLICATES)
        ]
        line = iter(todo)

        async def one() -> None:
            for text, key in line:
                seen.answers.append(await made.embed(text, 0, time.perf_counter(), key))

        await asyncio.gather(*(one() for _ in range(AT_A_TIME)))

    return load


async def capacity(made: Service, seconds: float = 1) -> float:
    """Texts a second, when two are always there."""
    end, done = time.perf_counter() + seconds, 0
    line = iter(texts(10_000, LONG, 2))

    async def one() -> None:
        nonlocal done
        for text in line:
            if time.perf_counter() > end:
                return
            await made.embed(text, 0, time.perf_counter())
            done += 1

    await asyncio.gather(one(), one())
    return done / seconds


def arrivals(made: Service, rate: float, seconds: float, seed: int) -> Callable[[Load], Any]:
    """Whenever they are due, with gaps as of callers who do not know of each other."""

    async def load(seen: Load) -> None:
        draw = random.Random(seed)  # noqa: S311
        due, todo = 0.0, []
        while (due := due + draw.expovariate(rate)) < seconds:
            todo.append(due)
        start = time.perf_counter()

        async def one(text: str, due: float) -> None:
            seen.answers.append(await made.embed(text, due, start))

        async with asyncio.TaskGroup() as tasks:
            for due, text in zip(todo, texts(len(todo), LONG, seed)):
                await asyncio.sleep(max(0.0, start + due - time.perf_counter()))
                tasks.create_task(one(text, due))

    return load


Loads = dict[str, dict[str, Load]]


async def measure(addresses: dict[str, str]) -> tuple[Loads, float]:
    """Load by load, one service after the other; the calm one in turns, for there little is to be told
    apart from the machine's own slow moments."""
    services = {kind: Service(address) for kind, address in addresses.items()}
    try:
        for made in services.values():
            for text in texts(5, LONG, 0):
                await made.embed(text, 0, time.perf_counter())
        can = max([await capacity(services["without"]) for _ in range(4)])
        loads: Loads = {"duplicates": {}, "calm": {kind: Load() for kind in services}, "overload": {}}
        for kind, made in services.items():
            loads["duplicates"][kind] = await measured(made, duplicates(made))
        for turn in range(CALM_TURNS):
            for kind, made in services.items():
                calm = arrivals(made, CALM * can, CALM_SECONDS / CALM_TURNS, turn)
                loads["calm"][kind].add(await measured(made, calm))
        for kind, made in services.items():
            over = arrivals(made, OVERLOAD * can, OVERLOAD_SECONDS, CALM_TURNS)
            loads["overload"][kind] = await measured(made, over)
        return loads, can
    finally:
        for made in services.values():
            made.close()


def check(loads: Loads) -> None:
    """What the page says must be so, whatever the machine."""
    once, over = loads["duplicates"], loads["overload"]
    wanted: Iterable[tuple[bool, str]] = [
        (once["with"].runs == TEXTS, f"the model ran {once['with'].runs} times for {TEXTS} keys"),
        (once["without"].runs == TEXTS * DUPLICATES, "without the middleware each duplicate is computed"),
        *((set(load.statuses) == {200}, f"duplicates: {load.statuses}") for load in once.values()),
        *((load.statuses.get(200, 0) > 0, f"calm: {load.statuses}") for load in loads["calm"].values()),
        (set(over["without"].statuses) == {200}, f"overload, without: {over['without'].statuses}"),
        (set(over["with"].statuses) == {200, 503}, f"overload, with: {over['with'].statuses}"),
        (over["with"].runs == len(over["with"].of(200)), "what was refused was not computed"),
        (over["with"].in_time() > over["without"].in_time(), "more is answered in time"),
        (at(over["with"].of(200), 0.99) <= DEADLINE, "whoever is answered is answered in time"),
    ]
    for good, what in wanted:
        if not good:
            raise SystemExit(f"not as it should be: {what}")


def milliseconds(seconds: list[float]) -> str:
    if not seconds:
        return ""
    return f"{at(seconds, 0.5) * 1e3:,.1f} / {at(seconds, 0.99) * 1e3:,.1f}"


def both(load: dict[str, Load], what: str, figure: Callable[[Load], str]) -> list[str]:
    return [what, *(figure(load[kind]) for kind in KINDS)]


def table(loads: Loads, can: float) -> str:
    once, calm, over = loads["duplicates"], loads["calm"], loads["overload"]
    rows = [
        [f"**{TEXTS} texts, each asked for {DUPLICATES} times at once with one key**", "", ""],
        both(once, "runs of the model", lambda seen: f"{seen.runs:,}"),
        both(once, "answers a second", lambda seen: f"{len(seen.answers) / seen.seconds:,.0f}"),
        both(once, "p50 / p99 of answers, ms", lambda seen: milliseconds(seen.of(200))),
        [f"**{CALM:.0%} of what the model can do, for {CALM_SECONDS} s**", "", ""],
        both(calm, "answered", lambda seen: f"{len(seen.of(200)):,} of {len(seen.answers):,}"),
        both(calm, "p50 / p99 of answers, ms", lambda seen: milliseconds(seen.of(200))),
        [
            f"**{OVERLOAD:g} times what it can do ({OVERLOAD * can:.0f} a second), {OVERLOAD_SECONDS} s**",
            "",
            "",
        ],
        both(over, "answered", lambda seen: f"{len(seen.of(200)):,} of {len(seen.answers):,}"),
        both(
            over,
            f"answered within {DEADLINE:g} s, a second",
            lambda seen: f"{seen.in_time() / OVERLOAD_SECONDS:.1f}",
        ),
        both(over, "p50 / p99 of answers, ms", lambda seen: milliseconds(seen.of(200))),
        both(over, "refused (503)", lambda seen: f"{len(seen.of(503)):,}"),
        both(over, "p50 / p99 of refusals, ms", lambda seen: milliseconds(seen.of(503))),
    ]
    lines = [["", "without", "with the middleware"], ["---", "---:", "---:"], *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    best = f"{can:.0f} texts in its best second of four"
    return f"{text}\n\nBy itself, with two requests always there, the model does {best}.\n"


def draw(over: dict[str, Load], where: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(9, 4.2), layout="constrained")
    for kind, status, colour, label in (
        ("without", 200, "#e0a458", "without: answered"),
        ("with", 200, "#27476e", "with the middleware: answered"),
        ("with", 503, "#c8553d", "with the middleware: refused (503)"),
    ):
        shown = [answer for answer in over[kind].answers if answer.status == status]
        milli = [answer.seconds * 1e3 for answer in shown]
        axes.plot([answer.due for answer in shown], milli, ".", markersize=3, color=colour, label=label)
    axes.axhline(DEADLINE * 1e3, color="#999999", linewidth=0.8)
    beside = OVERLOAD_SECONDS, DEADLINE * 1e3 * 1.1
    axes.text(*beside, "too late from here on", ha="right", fontsize=8, color="#666666")
    axes.set_yscale("log")
    axes.set_xlabel("seconds since the overload began, when the request was due")
    axes.set_ylabel("ms until its answer")
    axes.set_title(f"{OVERLOAD:g} times what the model can do, the same requests", loc="left", fontsize=10)
    axes.legend(fontsize=8, loc="center right", markerscale=3)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(where, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Loads the embedding service, with and without the middleware."
    )
    parser.add_argument("--write", action="store_true", help="the page and its picture")
    options = parser.parse_args()
    subprocess.run([RUN, "--install"], check=True)
    os.sched_setaffinity(0, {CPUS[-1]})
    with contextlib.ExitStack() as both_services:
        addresses = {kind: both_services.enter_context(running(kind)) for kind in KINDS}
        loads, can = asyncio.run(measure(addresses))
    told = table(loads, can)
    print(told)
    check(loads)
    if options.write:
        begin, end = "<!-- load: make embedding-demo -->\n", "<!-- end of load -->"
        head, rest = PAGE.read_text().split(begin)
        PAGE.write_text(head + begin + told + end + rest.split(end)[1])
        draw(loads["overload"], PAGE.with_suffix(".png"))


if __name__ == "__main__":
    main()
