# SPDX-License-Identifier: Apache-2.0
"""What the tests serve by uvicorn in processes of its own. AGR_SERVING names a directory in which `log` tells
who did what, and files let runs go on."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from autoglm_reliability import IdempotencyCache, KeyedRateLimiter, Region, SQLiteStore
from autoglm_reliability.asgi import Admission, Idempotency, RateLimit, ReliabilityMiddleware

PLACE = Path(os.environ["AGR_SERVING"])
HOUR = 3600


def log(*words: object) -> None:
    line = " ".join(map(str, (os.getpid(), *words))) + "\n"
    descriptor = os.open(PLACE / "log", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(descriptor, line.encode())  # one write, so that lines of several processes do not mix
    os.close(descriptor)


async def until(name: str) -> None:
    while not (PLACE / name).exists():
        await asyncio.sleep(0.002)


store = SQLiteStore(PLACE / "runs.db", timeout=30)
cache = IdempotencyCache(scope=store, name="runs", lease=float(os.environ.get("AGR_LEASE", "60")))
region = Region(os.environ["AGR_REGION"], 1 << 20)
requests = KeyedRateLimiter(10, 1, HOUR, scope=region, name="requests", max_keys=100)
limit = RateLimit(requests=requests, key=lambda request: request.header("x-tenant"))

app = FastAPI()
app.add_middleware(
    ReliabilityMiddleware,
    idempotency=Idempotency(cache),
    limits=[limit],
    admission=Admission(200, 200),
)


@app.get("/pid")
async def pid() -> int:
    return os.getpid()


@app.post("/run/{name}")
async def run(name: str, request: Request) -> Response:
    told: Any = request.state.autoglm_reliability
    log("run", name, told.fence, told.outcome_unknown, told.lost_fence)
    if not told.outcome_unknown:
        await until(name)
    return PlainTextResponse(f"{name} by {os.getpid()}")


@app.post("/stream")
async def stream(request: Request) -> Response:
    told: Any = request.state.autoglm_reliability
    log("stream", told.fence, told.outcome_unknown, told.lost_fence)

    async def parts() -> AsyncIterator[bytes]:
        yield b"part 0\n"
        if not told.outcome_unknown:
            await until("never")
        yield b"part 1\n"

    return StreamingResponse(parts())


@app.post("/work")
async def work(request: Request) -> Response:
    log("work", request.state.autoglm_reliability.key)
    await asyncio.sleep(0.02)
    return PlainTextResponse("done")
