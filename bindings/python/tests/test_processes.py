# SPDX-License-Identifier: Apache-2.0
"""Several processes: a prefork server, multiprocessing by fork, spawn and forkserver; and callbacks from C
on eight threads."""

from __future__ import annotations

import http.client
import multiprocessing
import os
import pickle
import signal
import socket
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from autoglm_reliability import (
    Backoff,
    CircuitBreaker,
    IdempotencyCache,
    Policy,
    RateLimited,
    RateLimiter,
    RetryBudget,
    _ffi,
)
from autoglm_reliability import _generated as c
from helpers import in_threads

WORKERS = 3
REQUESTS = 60
PER_WORKER = 40


class Guarded(BaseHTTPRequestHandler):
    """Answers with its process and the key; the policy was made before the fork."""

    policy: Policy
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        try:
            body = self.policy.execute(lambda _: b"%d %s" % (os.getpid(), self.path.encode()), key=self.path)
            status = 200
        except RateLimited:
            status, body = 429, b""
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Inherited(HTTPServer):
    """Serves on a socket which the parent has bound."""

    def __init__(self, listening: socket.socket) -> None:
        super().__init__(("127.0.0.1", 0), Guarded, bind_and_activate=False)
        self.socket = listening


def serve(listening: socket.socket) -> int:
    """A worker of the server; its process id."""
    child = os.fork()
    if child:
        return child
    try:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
        Inherited(listening).serve_forever()
    finally:
        os._exit(1)


def get(port: int, path: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def test_a_prefork_server_uses_what_it_made_before_the_fork() -> None:
    Guarded.policy = Policy(
        limiters=[RateLimiter(PER_WORKER, 0)],
        breaker=CircuitBreaker(),
        idempotency=IdempotencyCache(),
        retry=Backoff(max_attempts=2),
        budget=RetryBudget(),
    )
    with socket.create_server(("127.0.0.1", 0), backlog=REQUESTS) as listening:
        children = [serve(listening) for _ in range(WORKERS)]
        try:
            port = listening.getsockname()[1]
            with ThreadPoolExecutor(8) as clients:
                answers = list(clients.map(lambda i: get(port, f"/{i}"), range(REQUESTS)))
        finally:
            for child in children:
                os.kill(child, signal.SIGTERM)
            ends = [os.waitpid(child, 0)[1] for child in children]
    assert ends == [0] * WORKERS
    served = Counter(int(body.split()[0]) for status, body in answers if status == 200)
    assert set(served) <= set(children)
    # Each worker has a bucket of its own: nobody is refused before it is empty.
    assert all(count <= PER_WORKER for count in served.values())
    refused = sum(status == 429 for status, _ in answers)
    assert refused == 0 or max(served.values()) == PER_WORKER
    assert all(body.split()[1] == b"/%d" % i for i, (status, body) in enumerate(answers) if status == 200)


SHARED: dict[str, Any] = {}


def guarded_square(number: int) -> tuple[int, int]:
    """In a worker: with the parent's policy if it was inherited, else with one of its own."""
    policy = SHARED.get("policy")
    if policy is None:
        policy = SHARED["policy"] = Policy(limiters=[RateLimiter(1000, 0)], idempotency=IdempotencyCache())
    value = policy.execute(lambda _: b"%d" % (number * number), key=str(number))
    return os.getpid(), int(value)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_multiprocessing(method: str) -> None:
    SHARED.clear()
    if method == "fork":
        SHARED["policy"] = Policy(limiters=[RateLimiter(1000, 0)], idempotency=IdempotencyCache())
        SHARED["policy"].execute(lambda _: b"warm", key="warm")
    with multiprocessing.get_context(method).Pool(2) as pool:
        answers = pool.map(guarded_square, range(40), chunksize=1)
    assert [value for _, value in answers] == [number * number for number in range(40)]
    assert os.getpid() not in {pid for pid, _ in answers}


@pytest.mark.parametrize("make", [lambda: RateLimiter(1, 1), CircuitBreaker, IdempotencyCache, Policy])
def test_a_handle_is_not_pickled(make: Any) -> None:
    with make() as handle, pytest.raises(TypeError, match="one process"):
        pickle.dumps(handle)


def test_callbacks_from_c_on_eight_threads() -> None:
    retry = Backoff(base_delay=0, max_delay=0, max_attempts=3)
    policy = Policy(limiters=[RateLimiter(10**6, 0)], retry=retry)
    attempts = Counter[int]()
    lock = threading.Lock()

    def attempt(step: Any, outcome: Any, user_data: Any) -> None:
        with lock:
            attempts[step.contents.attempt] += 1
        if step.contents.attempt == 1:
            raise RuntimeError("a callback that raises has failed")
        outcome.contents.error_class = c.AGR_CLASS_SUCCESS

    callback = c.agr_attempt_fn(attempt)

    def work(_: int) -> list[tuple[int, int, int]]:
        seen = []
        for _ in range(50):
            step = _ffi.sized(c.agr_step)
            status = _ffi.lib.agr_policy_execute(policy._handle, None, callback, None, None, step, None)
            seen.append((status, step.kind, step.reason))
        return seen

    with pytest.MonkeyPatch.context() as patch:
        # ctypes prints what a callback raises, and goes on.
        patch.setattr("sys.unraisablehook", lambda _: None)
        results = in_threads(8, work)
    done = (c.AGR_OK, c.AGR_STEP_DONE, c.AGR_REASON_SUCCEEDED)
    assert all(seen == done for thread in results for seen in thread)
    assert attempts == {1: 400, 2: 400}
