# SPDX-License-Identifier: Apache-2.0
"""The Python client: sends its share of the traffic, naively or guarded.

    client.py naive|guarded PORT START SCHEDULE OUTPUT

SCHEDULE has a line a request: id, seconds after START, tokens. OUTPUT gets a JSON object a line.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any, TextIO

from autoglm_reliability import (
    Attempt,
    Backoff,
    CircuitBreaker,
    Jitter,
    Policy,
    RateLimiter,
    Refused,
    Retry,
    RetryBudget,
    Window,
)

ATTEMPT_TIMEOUT = 1.0
DEADLINE = 9.0


class StatusError(Exception):
    """An HTTP error. The library finds `status` and `headers` by their names."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers


async def post(port: int, request: str, tokens: int, key: str = "") -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        body = json.dumps({"model": "demo", "max_tokens": tokens}).encode()
        extra = f"Idempotency-Key: {key}\r\n" if key else ""
        head = (
            "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
            f"X-Request-Id: {request}\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
        )
        writer.write(head.encode() + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in lines[1:])}
        data = await reader.readexactly(int(headers.get("content-length", "0")))
    except asyncio.IncompleteReadError:
        raise ConnectionResetError(104, "connection dropped") from None
    finally:
        writer.close()
    status = int(lines[0].split()[1])
    if status != 200:
        raise StatusError(status, headers)
    return data


class Naive:
    """What one finds in many programs: five tries, a tenth of a second apart."""

    def __init__(self, port: int) -> None:
        self.port = port

    async def call(self, request: str, tokens: int) -> dict[str, Any]:
        for attempt in range(1, 6):
            try:
                await asyncio.wait_for(post(self.port, request, tokens), ATTEMPT_TIMEOUT)
                return {"ok": True, "attempts": attempt}
            except (OSError, StatusError, asyncio.TimeoutError):
                await asyncio.sleep(0.1)
        return {"ok": False, "attempts": 5}

    def sample(self) -> dict[str, Any]:
        return {}


class Guarded:
    def __init__(self, port: int) -> None:
        self.port = port
        self.breaker = CircuitBreaker(
            window=Window.COUNT, window_calls=20, minimum_calls=10, failure_rate=0.5, open=0.5, open_max=1,
            half_open_permits=2,
        )
        self.limiter = RateLimiter(20, 60)
        self.policy = Policy(
            retry=Retry(
                Backoff(max_attempts=10, base_delay=0.2, max_delay=2, jitter=Jitter.EQUAL),
                server_delay_spread=1,
            ),
            budget=RetryBudget(ratio=0.5, min_per_second=20, quota=200, initial=200),
            breaker=self.breaker,
            limiters=[self.limiter],
            max_limiter_wait=5,
            retry_when_open=True,
            total_timeout=DEADLINE,
            attempt_timeout=ATTEMPT_TIMEOUT,
            max_calls=4096,
        )

    async def call(self, request: str, tokens: int) -> dict[str, Any]:
        attempts = 0

        async def attempt(_: Attempt) -> bytes:
            nonlocal attempts
            attempts += 1
            return await post(self.port, request, tokens, key=request)

        try:
            # The server knows a repeated request by its key, so that an unknown outcome may be retried.
            await self.policy.execute_async(attempt, key=request)
            return {"ok": True, "attempts": attempts}
        except Refused as refusal:
            return {"ok": False, "attempts": attempts, "refused": refusal.reason.name}
        except (OSError, StatusError, asyncio.TimeoutError):
            return {"ok": False, "attempts": attempts}

    def sample(self) -> dict[str, Any]:
        return {"breaker": self.breaker.state.name, "tokens": self.limiter.available}


async def send(client: Naive | Guarded, line: str, start: float, out: TextIO) -> None:
    request, when, tokens = line.split()
    await asyncio.sleep(max(0.0, start + float(when) - time.monotonic()))
    began = time.monotonic() - start
    result = await client.call(request, int(tokens))
    record = {"id": request, "start": began, "end": time.monotonic() - start, **result}
    out.write(json.dumps(record) + "\n")


async def sample(client: Naive | Guarded, start: float, out: TextIO) -> None:
    while True:
        await asyncio.sleep(0.1)
        out.write(json.dumps({"sample": time.monotonic() - start, **client.sample()}) + "\n")


async def main(mode: str, port: int, start: float, schedule: str, output: str) -> None:
    with open(schedule) as file:
        lines = file.readlines()
    client = Guarded(port) if mode == "guarded" else Naive(port)
    with open(output, "w") as out:
        sampler = asyncio.ensure_future(sample(client, start, out))
        await asyncio.gather(*(send(client, line, start, out) for line in lines))
        sampler.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), sys.argv[4], sys.argv[5]))
