# SPDX-License-Identifier: Apache-2.0
"""One uvicorn (uvloop, httptools) with an application on each of several ports: an echo, bare, behind our
middleware, and behind peers. Prints a line of JSON with the ports. Nothing is refused."""

from __future__ import annotations

import json
import socket
import sys
import threading
from typing import Any

import uvicorn
from fastapi import Depends, FastAPI
from fastapi_limiter.depends import RateLimiter as FastapiLimiter
from pyrate_limiter import Duration, Limiter, Rate
from slowapi import Limiter as SlowLimiter
from slowapi.util import get_remote_address
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from autoglm_reliability import IdempotencyCache, KeyedRateLimiter, WhenFull
from autoglm_reliability.asgi import Admission, Idempotency, RateLimit, ReliabilityMiddleware

MANY = 10**9
PATH = "/v1/chat/completions"


async def echo(request: Request) -> Response:
    return Response(await request.body(), media_type="application/json")


def bare(endpoint: Any = echo) -> Starlette:
    return Starlette(routes=[Route(PATH, endpoint, methods=["POST"])])


def limiter() -> KeyedRateLimiter:
    return KeyedRateLimiter(MANY, MANY, 60)


def ours(*, tokens: bool = False, everything: bool = True) -> Any:
    limits = [RateLimit(requests=limiter(), tokens=limiter() if tokens else None)]
    if not everything:
        return ReliabilityMiddleware(bare(), limits=limits)
    cache = IdempotencyCache(max_entries=10_000, when_full=WhenFull.EVICT)
    return ReliabilityMiddleware(
        bare(), limits=limits, admission=Admission(100, 100), idempotency=Idempotency(cache)
    )


def slowapi(headers: bool) -> Any:
    slow = SlowLimiter(key_func=get_remote_address, headers_enabled=headers)
    app = bare(slow.limit(f"{MANY}/minute")(echo))
    app.state.limiter = slow
    return app


def fastapi(limited: bool) -> Any:
    # By default it counts in memory; each hit is kept until its minute is over.
    rate = Limiter(Rate(MANY, Duration.MINUTE))
    app = FastAPI()
    app.post(PATH, dependencies=[Depends(FastapiLimiter(limiter=rate))] if limited else [])(echo)
    return app


APPLICATIONS = {
    "bare": bare,
    "ours.requests": lambda: ours(everything=False),
    "ours": ours,
    "ours.tokens": lambda: ours(tokens=True),
    "slowapi": lambda: slowapi(headers=False),
    "slowapi.headers": lambda: slowapi(headers=True),
    "fastapi": lambda: fastapi(limited=False),
    "fastapi.limiter": lambda: fastapi(limited=True),
}


def main() -> None:
    made: dict[int, Any] = {}
    ports: dict[str, int] = {}
    listeners = []
    for name, make in APPLICATIONS.items():
        listeners.append(socket.create_server(("127.0.0.1", 0)))
        ports[name] = listeners[-1].getsockname()[1]
        made[ports[name]] = make()

    async def by_port(scope: Any, receive: Any, send: Any) -> None:
        await made[scope["server"][1]](scope, receive, send)

    config = uvicorn.Config(
        by_port, loop="uvloop", http="httptools", ws="none", lifespan="off", log_level="error"
    )
    server = uvicorn.Server(config)

    def until_told() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=until_told, daemon=True).start()
    print(json.dumps(ports), flush=True)
    server.run(listeners)


if __name__ == "__main__":
    main()
