# SPDX-License-Identifier: Apache-2.0
"""Embeddings by a real model, in the form of OpenAI's API, behind the middleware.

    examples/python/embedding/run service.py [--port 8000] [--workers 1] [--plain]

prints its address. POST /v1/embeddings is guarded; /health and /stats are answered also when the service is
full. --plain is the same application without the middleware: what the middleware is compared with."""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import socket
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import uvicorn
from minilm import MiniLM
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from autoglm_reliability import IdempotencyCache, KeyedRateLimiter
from autoglm_reliability.asgi import (
    Admission,
    Idempotency,
    RateLimit,
    ReliabilityMiddleware,
    estimate_tokens,
)

NAME = "all-MiniLM-L6-v2"
MOST_TEXTS = 64


class BadRequestError(Exception):
    def __init__(self, field: str, what: str) -> None:
        super().__init__(f"{field}: {what}")
        self.field = field


async def wanted(request: Request) -> tuple[list[str], bool]:
    """The texts, and whether the numbers are to be packed (base64), as OpenAI's SDK asks for them."""
    try:
        body = await request.json()
    except (ValueError, RecursionError):
        raise BadRequestError("body", "not JSON") from None
    if not isinstance(body, dict):
        raise BadRequestError("body", "not an object")
    texts = [body.get("input")] if isinstance(body.get("input"), str) else body.get("input")
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise BadRequestError("input", "a text or a list of texts, none of them empty")
    if not 1 <= len(texts) <= MOST_TEXTS:
        raise BadRequestError("input", f"1 to {MOST_TEXTS} texts")
    if any("\ud800" <= letter <= "\udfff" for text in texts for letter in text):
        raise BadRequestError("input", "half of a surrogate pair")
    if body.get("dimensions", MiniLM.dimensions) != MiniLM.dimensions:
        raise BadRequestError("dimensions", f"{MiniLM.dimensions}")
    if body.get("encoding_format", "float") not in ("float", "base64"):
        raise BadRequestError("encoding_format", "float or base64")
    return texts, body.get("encoding_format") == "base64"


class Service:
    """The model, and the threads in which it computes, so that the event loop goes on."""

    def __init__(self, workers: int) -> None:
        self.model = MiniLM()
        self.pool = ThreadPoolExecutor(workers, "model")
        self.runs = 0

    def compute(self, texts: list[str], packed: bool) -> tuple[list[Any], int]:
        vectors, tokens = self.model.embed(texts)
        if packed:
            return [base64.b64encode(row.astype("<f4").tobytes()).decode() for row in vectors], tokens
        return [row.tolist() for row in vectors], tokens

    async def embed(self, request: Request) -> JSONResponse:
        try:
            texts, packed = await wanted(request)
        except BadRequestError as error:
            told = {
                "message": str(error),
                "type": "invalid_request_error",
                "param": error.field,
                "code": None,
            }
            return JSONResponse({"error": told}, 400)
        self.runs += 1
        loop = asyncio.get_running_loop()
        rows, tokens = await loop.run_in_executor(self.pool, self.compute, texts, packed)
        data = [{"object": "embedding", "index": n, "embedding": row} for n, row in enumerate(rows)]
        usage = {"prompt_tokens": tokens, "total_tokens": tokens}
        return JSONResponse({"object": "list", "model": NAME, "data": data, "usage": usage})

    async def health(self, _: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def stats(self, _: Request) -> JSONResponse:
        return JSONResponse({"runs": self.runs})

    @contextlib.asynccontextmanager
    async def life(self, _: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(self.pool.shutdown)

    def application(self) -> Starlette:
        routes = [
            Route("/v1/embeddings", self.embed, methods=["POST"]),
            Route("/health", self.health),
            Route("/stats", self.stats),
        ]
        return Starlette(routes=routes, lifespan=self.life)


def guarded(app: Any, workers: int, requests: int, tokens: int, queue: int, patience: float) -> Any:
    """As many as the model computes at a time, and one that is just being read or answered, are served; few
    wait, and not for long: whoever is refused knows so at once, and the others are not slowed down."""
    middleware = ReliabilityMiddleware(
        app,
        idempotency=Idempotency(IdempotencyCache(), quota=KeyedRateLimiter(100_000, 100_000, 86_400)),
        limits=[
            RateLimit(
                requests=KeyedRateLimiter(requests, requests, 60),
                tokens=KeyedRateLimiter(tokens, tokens, 60),
                estimate=lambda request: estimate_tokens(request, default_output=0),
            )
        ],
        admission=Admission(workers + 1, queue, patience),
    )

    async def route(scope: Any, receive: Any, send: Any) -> None:
        aside = scope["type"] == "http" and scope["path"] in ("/health", "/stats")
        await (app if aside else middleware)(scope, receive, send)

    return route


def main() -> None:
    parser = argparse.ArgumentParser(description="Embeddings, behind the middleware.")
    parser.add_argument("--port", type=int, default=8000, help="0: any")
    parser.add_argument("--workers", type=int, default=1, help="threads of the model")
    parser.add_argument("--plain", action="store_true", help="without the middleware")
    parser.add_argument("--requests", type=int, default=600, help="a minute for each API key")
    parser.add_argument("--tokens", type=int, default=100_000, help="a minute for each API key")
    parser.add_argument("--queue", type=int, default=16, help="requests that may wait")
    parser.add_argument("--patience", type=float, default=0.5, help="seconds that they may wait")
    options = parser.parse_args()
    app: Any = Service(options.workers).application()
    if not options.plain:
        app = guarded(app, options.workers, options.requests, options.tokens, options.queue, options.patience)
    with socket.create_server(("127.0.0.1", options.port), backlog=2048) as listener:
        print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, log_level="warning", loop="uvloop", http="httptools", ws="none")
        uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
