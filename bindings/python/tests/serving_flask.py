# SPDX-License-Identifier: Apache-2.0
"""As serving_app.py, by Flask and the WSGI twin."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flask

from autoglm_reliability import IdempotencyCache, KeyedRateLimiter, Region, SQLiteStore
from autoglm_reliability.wsgi import Admission, Idempotency, RateLimit, ReliabilityMiddleware

PLACE = Path(os.environ["AGR_SERVING"])
HOUR = 3600


def log(*words: object) -> None:
    line = " ".join(map(str, (os.getpid(), *words))) + "\n"
    descriptor = os.open(PLACE / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())
    os.close(descriptor)


def until(name: str) -> None:
    while not (PLACE / name).exists():
        time.sleep(0.002)


store = SQLiteStore(PLACE / "runs.db", timeout=30)
cache = IdempotencyCache(scope=store, name="runs", lease=float(os.environ.get("AGR_LEASE", "60")))
region = Region(os.environ["AGR_REGION"], 1 << 20)
requests = KeyedRateLimiter(10, 1, HOUR, scope=region, name="requests", max_keys=100)

app = flask.Flask("serving")
app.wsgi_app = ReliabilityMiddleware(  # type: ignore[method-assign]
    app.wsgi_app,
    idempotency=Idempotency(cache),
    limits=[RateLimit(requests=requests, key=lambda request: request.header("x-tenant"))],
    admission=Admission(200, 200),
)


def told() -> Any:
    return flask.request.environ["autoglm_reliability"]


@app.get("/pid")
def pid() -> str:
    return str(os.getpid())


@app.post("/run/<name>")
def run(name: str) -> str:
    log("run", name, told().fence, told().outcome_unknown, told().lost_fence)
    if not told().outcome_unknown:
        until(name)
    return f"{name} by {os.getpid()}"


@app.post("/stream")
def stream() -> flask.Response:
    log("stream", told().fence, told().outcome_unknown, told().lost_fence)
    again = told().outcome_unknown

    def parts() -> Iterator[bytes]:
        yield b"part 0\n"
        if not again:
            until("never")
        yield b"part 1\n"

    return flask.Response(parts())


@app.post("/work")
def work() -> str:
    log("work", told().key)
    time.sleep(0.02)
    return "done"
