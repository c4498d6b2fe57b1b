# SPDX-License-Identifier: Apache-2.0
"""Several workers of uvicorn, and of gunicorn: they share limits and keys, are killed, and are reloaded."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability as agr
from asgi_server import HOST, Raw, body_of, exchange, is_whole, request_bytes, status_of
from helpers import eventually, in_threads, unique

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

HERE = str(Path(__file__).parent)


def command_of(kind: str, port: int, workers: int) -> list[str]:
    options = ["--workers", str(workers), "--log-level", "critical"]
    if kind == "uvicorn":
        own = ["serving_app:app", "--app-dir", HERE, "--port", str(port), "--ws", "none"]
    else:
        own = ["serving_flask:app", "--chdir", HERE, "--bind", f"{HOST}:{port}"]
        own += ["--worker-class", "gthread", "--threads", "24"]
    return [sys.executable, "-m", kind, *own, *options]


class Server:
    """In processes of its own, on a free port."""

    def __init__(self, kind: str, place: Path, workers: int, **environment: str) -> None:
        self.kind, self.place, self.workers = kind, place, workers
        with socket.create_server((HOST, 0)) as taken:
            self.port: int = taken.getsockname()[1]
        self.region = unique()
        self._environment = {"AGR_SERVING": str(place), "AGR_REGION": self.region, **environment}
        self.start()

    def start(self) -> None:
        environment = {**os.environ, **self._environment}
        self.process = subprocess.Popen(command_of(self.kind, self.port, self.workers), env=environment)
        # One of gunicorn's may be quicker than the other each time.
        least = self.workers if self.kind == "uvicorn" else 1
        eventually(lambda: len(self.pids()) >= least, "not all workers answer")

    def pids(self, seen: Any = None) -> set[int]:
        """Of the workers that answered now; they are asked at a time, so that all have a chance."""
        found: set[int] = set()
        with suppress(OSError):
            clients = [Raw(self.port, request_bytes("GET", "/pid")) for _ in range(8)]
            for client in clients:
                with suppress(OSError, ValueError, IndexError):
                    found.add(int(body_of(client.rest())))
                client.close()
        return found

    def log(self) -> list[list[str]]:
        with suppress(FileNotFoundError):
            return [line.split() for line in (self.place / "log").read_text().splitlines()]
        return []

    def kill(self) -> None:
        """The workers too: gunicorn's would go on without it."""
        workers = self.pids()
        self.process.kill()
        self.process.wait()
        for worker in workers - {self.process.pid}:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def close(self) -> None:
        for name in ("a", "b", "never"):
            (self.place / name).touch()
        if self.process.poll() is None:
            self.stop()
        agr.Region.unlink(self.region)


@pytest.fixture(params=["uvicorn", "gunicorn"])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    made: list[Server] = []

    def build(workers: int, **environment: str) -> Server:
        made.append(Server(request.param, tmp_path, workers, **environment))
        return made[-1]

    yield build
    for server in made:
        server.close()


def key(name: str) -> list[tuple[str, str]]:
    return [("Idempotency-Key", name)]


def test_workers_share_a_limit_and_the_duplicates_of_a_key(make: Any) -> None:
    server = make(2)
    tenant = [("x-tenant", "t")]
    answers = in_threads(
        8, lambda _: [status_of(exchange(server.port, "GET", "/pid", tenant)) for _ in range(5)]
    )
    assert Counter(status for some in answers for status in some)[200] == 10
    clients = [Raw(server.port, request_bytes("POST", "/run/a", key("k"))) for _ in range(12)]
    eventually(lambda: len(server.log()) == 1, "it is not executed")
    (server.place / "a").touch()
    bodies = {body_of(client.rest()) for client in clients}
    assert len(bodies) == 1
    assert sum(b"idempotency-replayed: true" in client.got for client in clients) == 11
    for client in clients:
        client.close()
    # Whoever is asked later replays it too.
    later = [exchange(server.port, "POST", "/run/a", key("k")) for _ in range(8)]
    assert {body_of(response) for response in later} == bodies
    assert len(server.log()) == 1


def test_a_worker_that_is_killed_while_it_executes_a_key_is_followed_by_one_that_is_told(make: Any) -> None:
    server = make(2, AGR_LEASE="1")
    first = Raw(server.port, request_bytes("POST", "/run/a", key("k")))
    eventually(lambda: len(server.log()) == 1, "it is not executed")
    worker, _, _, fence, unknown, _ = server.log()[0]
    assert unknown == "False"
    os.kill(int(worker), signal.SIGKILL)
    with suppress(ConnectionError):
        assert first.rest() == b""
    first.close()
    # It waits until the lease of the run that was lost is over, and is then the one who executes.
    second = exchange(server.port, "POST", "/run/a", key("k"))
    assert status_of(second) == 200
    assert len(server.log()) == 2
    other, _, _, next_fence, unknown, lost = server.log()[1]
    assert (unknown, lost) == ("True", fence)
    assert int(next_fence) > int(fence)
    assert other != worker
    assert body_of(second) == f"a by {other}".encode()


def test_a_server_that_is_killed_in_a_stream_leaves_no_whole_answer_and_says_so_afterwards(make: Any) -> None:
    server = make(1, AGR_LEASE="1")
    first = Raw(server.port, request_bytes("POST", "/stream", key("k")))
    first.until(b"part 0")
    server.kill()
    with suppress(ConnectionError):
        first.rest()
    assert not is_whole(first.got)
    first.close()
    server.start()
    again = exchange(server.port, "POST", "/stream", key("k"))
    assert body_of(again) == b"part 0\npart 1\n"
    (_, _, fence, _, _), (_, _, _, unknown, lost) = server.log()
    assert (unknown, lost) == ("True", fence)


# gunicorn itself resets connections that a worker has accepted and not read from when it is replaced.
@pytest.mark.parametrize("make", ["uvicorn"], indirect=True)
def test_a_reload_under_load_drops_no_request(make: Any) -> None:
    server = make(2)
    before = server.pids()
    stop = threading.Event()
    asked: list[tuple[str, int]] = []

    def load(thread: int) -> None:
        number = 0
        while not stop.is_set():
            name = f"{thread}-{number}"
            response = exchange(server.port, "POST", "/work", key(name))
            asked.append((name, status_of(response) if response else 0))
            number += 1

    def reload() -> None:
        try:
            eventually(lambda: len(asked) > 20, "nothing is answered")
            server.process.send_signal(signal.SIGHUP)
            after: set[int] = set()

            def replaced() -> bool:
                after.update(server.pids() - before)
                return len(after) == 2

            eventually(replaced, "the workers were not replaced")
            count = len(asked)
            eventually(lambda: len(asked) > count + 20, "nothing is answered any more")
        finally:
            stop.set()

    in_threads(5, lambda thread: load(thread) if thread else reload())
    assert Counter(status for _, status in asked) == {200: len(asked)}
    executed = Counter(line[2] for line in server.log() if line[1] == "work")
    assert executed == {name: 1 for name, _ in asked}
