# SPDX-License-Identifier: Apache-2.0
"""A gateway in front of an LLM, in one event loop.

An upstream on loopback is slow, overloaded at times, and counts what it executes. The gateway gives
every tenant a share, charges requests and tokens together, lets duplicates join the call that is under
way, retries within a budget, and answers from its cache when the upstream is gone. Clients call it; the
program prints what each of them got.
"""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from collections import Counter
from typing import Any

from autoglm_reliability import (
    JSON,
    Attempt,
    Backoff,
    CircuitBreaker,
    Fallback,
    IdempotencyCache,
    KeyedRateLimiter,
    Policy,
    RateLimited,
    RateLimiter,
    Refused,
    Retry,
    RetryBudget,
)

REASONS = {200: "OK", 429: "Too Many Requests", 503: "Service Unavailable"}


class StatusError(Exception):
    """An answer other than 200. The library looks for these two attributes."""

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        super().__init__(f"HTTP {status}")
        self.status = status
        self.headers = headers


async def read_message(reader: asyncio.StreamReader) -> tuple[str, dict[str, str], bytes]:
    start, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return start, headers, await reader.readexactly(int(headers.get("content-length", 0)))


def message(start: str, body: Any, **headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [start, f"Content-Length: {len(data)}", "Connection: close"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + data


async def post(port: int, body: Any, **headers: str) -> Any:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(message("POST /chat HTTP/1.1", body, Host="localhost", **headers))
        start, reply_headers, data = await read_message(reader)
    finally:
        writer.close()
    status = int(start.split()[1])
    if status != 200:
        raise StatusError(status, reply_headers)
    return json.loads(data)


class Server(ABC):
    """A server which answers each connection once; subclasses say what."""

    @abstractmethod
    async def answer(self, body: Any, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        """The status, the body, and headers besides."""

    async def start(self) -> int:
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        return int(self.server.sockets[0].getsockname()[1])

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        _, headers, data = await read_message(reader)
        status, body, extra = await self.answer(json.loads(data), headers)
        writer.write(message(f"HTTP/1.1 {status} {REASONS[status]}", body, **extra))
        await writer.drain()
        writer.close()

    def stop(self) -> None:
        self.server.close()


class Upstream(Server):
    def __init__(self) -> None:
        self.executed: Counter[str] = Counter()
        self.asked = 0

    async def answer(self, body: Any, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        self.asked += 1
        if self.asked % 4 == 1:
            return 429, "busy", {"Retry_After_Ms": "30"}
        await asyncio.sleep(0.02)
        self.executed[body["prompt"]] += 1
        return 200, {"text": body["prompt"].upper(), "tokens": 12}, {}


class Gateway(Server):
    def __init__(self, upstream_port: int) -> None:
        self.upstream_port = upstream_port
        self.tenants = KeyedRateLimiter(capacity=8, refill_tokens=8, refill_interval=60)
        self.policy = Policy(
            idempotency=IdempotencyCache(ttl=300),
            retry=Retry(Backoff(max_attempts=4, base_delay=0.03), server_delay_spread=0.03),
            budget=RetryBudget(ratio=0.5),
            limiters=[RateLimiter(100, 100), RateLimiter(2000, 2000)],
            breaker=CircuitBreaker(consecutive_failures=5, open=1),
            fallback=Fallback.CACHED,
            cached_entries=4096,
            attempt_timeout=1,
            total_timeout=3,
            codec=JSON,
        )

    async def answer(self, body: Any, headers: dict[str, str]) -> tuple[int, Any, dict[str, str]]:
        async def ask(attempt: Attempt) -> Any:
            reply = await post(self.upstream_port, body)
            attempt.report_costs(1, reply["tokens"])
            return reply

        try:
            self.tenants.acquire(headers["x-tenant"], timeout=0)
            reply = await self.policy.execute_async(
                ask,
                key=headers.get("idempotency-key", ""),
                fingerprint=json.dumps(body, sort_keys=True),
                cache_key=body["prompt"],
                costs=[1, 200],
            )
        except RateLimited as refusal:
            return 429, "limited", {"Retry_After": f"{refusal.retry_after:.3f}"}
        except (Refused, StatusError, OSError) as failure:
            return 503, str(failure), {}
        return 200, reply, {}


async def client(port: int, tenant: str, prompt: str, key: str) -> str:
    try:
        reply = await post(port, {"prompt": prompt}, X_Tenant=tenant, Idempotency_Key=key)
    except StatusError as error:
        return f"{error.status}, retry-after {error.headers.get('retry-after', 'unknown')}"
    return str(reply["text"])


async def main() -> None:
    upstream = Upstream()
    gateway = Gateway(await upstream.start())
    port = await gateway.start()
    print("ten different prompts at once, every fourth request to the upstream meets a 429:")
    calls = [client(port, f"tenant-{n % 3}", f"prompt {n}", f"key-{n}") for n in range(10)]
    texts = await asyncio.gather(*calls)
    print("  ", Counter("answered" if text.startswith("PROMPT") else text for text in texts))
    print("five clients send the same request:")
    texts = await asyncio.gather(*(client(port, "dup", "the same", "dup") for _ in range(5)))
    print("  ", Counter(texts))
    print(f"   the upstream executed it {upstream.executed['the same']} time(s)")
    print("one tenant wants more than its share:")
    greedy = await asyncio.gather(*(client(port, "greedy", "more", "greedy") for _ in range(10)))
    print(f"   {greedy.count('MORE')} answered, {len(greedy) - greedy.count('MORE')} limited")
    print("the upstream goes away, and what was asked before is answered from the cache:")
    upstream.stop()
    print("  ", await client(port, "late", "prompt 3", "another key"))
    gateway.stop()
    snapshot = gateway.policy.snapshot()
    print(f"{snapshot.calls} calls, {snapshot.attempts} attempts, {snapshot.retries} retries, ", end="")
    print(f"{snapshot.joined} joined, {snapshot.replayed} replayed, {snapshot.fallbacks} from the cache")


if __name__ == "__main__":
    asyncio.run(main())
