# SPDX-License-Identifier: Apache-2.0
"""A small OpenAI-compatible inference server that misbehaves as real ones do.

    server.py SECONDS_UNTIL_START

It prints its port, begins its scenario at the time given (CLOCK_MONOTONIC, in seconds) and serves until
its standard input closes; then it prints what it did as JSON.

    0 -  3 s   normal: now and then a 503, a 429, or a connection that is dropped after the work was done
    3 -  6 s   overloaded: everything takes four times as long; the queue fills; 503 with Retry-After
    6 -  9 s   out: every connection is dropped
    9 - 12 s   slow recovery: one slot, then a few more
   12 s ...    normal

Requests that carry an Idempotency-Key are executed once: the server embeds this library's cache. The naive
client sends none, as most clients do.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections import Counter

from autoglm_reliability import IdempotencyCache, Lease, RateLimiter, Refused

SLOTS = 8
QUEUE = 48
SERVICE = 0.055  # mean seconds of work
PHASES = [(3.0, "normal"), (6.0, "overloaded"), (9.0, "out"), (12.0, "recovering")]


class Busy(Exception):
    """Answered instead of the work: a status, and when to come back."""

    def __init__(self, status: int, retry_after: str) -> None:
        super().__init__(status)
        self.status = status
        self.retry_after = retry_after


class Server:
    def __init__(self, start: float, seed: int) -> None:
        self.start = start
        self.random = random.Random(seed)
        self.cache = IdempotencyCache(max_entries=20_000, ttl=600, lease=30)
        self.limiter = RateLimiter(60, 130)
        self.running = 0
        self.waiting: list[asyncio.Future[None]] = []
        self.executed: Counter[str] = Counter()
        self.requests: Counter[int] = Counter()
        self.statuses: Counter[str] = Counter()

    def age(self) -> float:
        return time.monotonic() - self.start

    def phase(self) -> str:
        age = self.age()
        return next((name for end, name in PHASES if age < end), "normal")

    def slots(self) -> int:
        return min(SLOTS, 1 + int((self.age() - 9) * 3)) if self.phase() == "recovering" else SLOTS

    async def slot(self) -> None:
        """Waits for a place to work in."""
        if self.running >= self.slots():
            if len(self.waiting) >= QUEUE:
                raise Busy(503, "1")
            turn = asyncio.get_running_loop().create_future()
            self.waiting.append(turn)
            await turn
        self.running += 1

    def free(self) -> None:
        self.running -= 1
        while self.waiting and self.running < self.slots():
            turn = self.waiting.pop(0)
            if not turn.done():
                turn.set_result(None)
                break

    async def execute(self, request: str, tokens: int) -> bytes:
        """The work itself. It goes on when the client has left: that is what makes duplicates dear."""
        await self.slot()
        try:
            self.executed[request] += 1
            slow = 4.0 if self.phase() == "overloaded" else 1.0
            await asyncio.sleep(slow * self.random.lognormvariate(0, 0.4) * SERVICE)
        finally:
            self.free()
        message = {"role": "assistant", "content": "token " * min(tokens, 50)}
        return json.dumps(
            {"id": request, "choices": [{"message": message}], "usage": {"completion_tokens": tokens}}
        ).encode()

    async def answer(self, headers: dict[str, str], body: bytes) -> bytes:
        request = headers.get("x-request-id", "")
        tokens = int(json.loads(body)["max_tokens"])
        if self.phase() == "normal" and self.random.random() < 0.03:
            raise Busy(503, "0.2")
        if not self.limiter.try_acquire():
            raise Busy(429, "0.5")
        key = headers.get("idempotency-key")
        if key is None:
            return await self.execute(request, tokens)

        async def run(_: Lease) -> bytes:
            return await self.execute(request, tokens)

        return await self.cache.get_or_execute_async(key, run, fingerprint=body)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.requests[int(self.age() * 10)] += 1
        try:
            if self.phase() == "out":
                self.statuses["dropped"] += 1
                return
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:])}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            try:
                # Shielded: a client that gives up does not stop the work.
                data = await asyncio.shield(asyncio.ensure_future(self.answer(headers, body)))
                status, extra = "200 OK", ""
            except Busy as busy:
                status = "503 Service Unavailable" if busy.status == 503 else "429 Too Many Requests"
                data, extra = b"{}", f"Retry-After: {busy.retry_after}\r\n"
            except Refused:
                status, data, extra = "503 Service Unavailable", b"{}", "Retry-After: 1\r\n"
            if self.phase() == "normal" and status.startswith("200") and self.random.random() < 0.03:
                self.statuses["dropped"] += 1
                return
            self.statuses[status[:3]] += 1
            head_out = f"HTTP/1.1 {status}\r\nContent-Length: {len(data)}\r\n{extra}Connection: close\r\n\r\n"
            writer.write(head_out.encode() + data)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            self.statuses["client left"] += 1
        finally:
            writer.close()


async def main() -> None:
    server = Server(float(sys.argv[1]), seed=7)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, backlog=1024)
    print(listener.sockets[0].getsockname()[1], flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    listener.close()
    report = {
        "executed": sum(server.executed.values()),
        "duplicates": sum(count - 1 for count in server.executed.values()),
        "requests": server.requests,
        "statuses": server.statuses,
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
