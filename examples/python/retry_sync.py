# SPDX-License-Identifier: Apache-2.0
"""Calling an upstream that stumbles, from ordinary blocking code.

Starts a small HTTP server on loopback which answers 503 twice, then works, and refuses bad requests;
calls it under a policy; prints what happened.
"""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from autoglm_reliability import (
    Attempt,
    Backoff,
    CircuitBreaker,
    EventKind,
    IdempotencyCache,
    Policy,
    RateLimited,
    RateLimiter,
    Retry,
    RetryBudget,
)


class Upstream(BaseHTTPRequestHandler):
    served = 0
    stumbles = 2

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        Upstream.served += 1
        if self.path == "/bad":
            self.reply(400, b"no such model")
        elif Upstream.served <= Upstream.stumbles:
            self.reply(503, b"warming up", {"Retry-After-Ms": "40"})
        else:
            self.reply(200, b"hello from request %d" % Upstream.served)

    def reply(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """The example prints its own account."""


def complete(policy: Policy, base: str, path: str = "/chat", key: str = "") -> bytes:
    def post(attempt: Attempt) -> bytes:
        print(f"  attempt {attempt.number}, {attempt.timeout:.1f} s left")
        request = urllib.request.Request(base + path, data=b"{}", method="POST")
        with urllib.request.urlopen(request, timeout=attempt.timeout) as reply:
            body: bytes = reply.read()
            return body

    return policy.execute(post, key=key, fingerprint=path, trace_id=key or path)


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    base = f"http://127.0.0.1:{server.server_address[1]}"
    policy = Policy(
        retry=Retry(Backoff(max_attempts=4, base_delay=0.05), server_delay_spread=0.05),
        budget=RetryBudget(ratio=0.2, initial=10),
        limiters=[RateLimiter(capacity=6, refill_tokens=6, refill_interval=60)],
        breaker=CircuitBreaker(failure_rate=0.5, minimum_calls=10),
        idempotency=IdempotencyCache(ttl=60),
        total_timeout=4,
    )
    events = policy.events()
    with policy, server:
        print("two answers of 503 with a hint, then a reply:")
        print(" ", complete(policy, base, key="order-1").decode())
        print("the same key again costs no request:")
        print(" ", complete(policy, base, key="order-1").decode())
        print("a mistake of our own is not repeated:")
        try:
            complete(policy, base, "/bad")
        except urllib.error.HTTPError as error:
            print(f"  {error.code} {error.read().decode()}")
            error.close()
        print("and the limiter has the last word:")
        try:
            while True:
                complete(policy, base)
        except RateLimited as refusal:
            print(f"  refused by the {refusal.component.name.lower()}, again in {refusal.retry_after:.0f} s")
        for event in events:
            if event.kind is EventKind.RETRY:
                print("event:", event.json)
        print(f"the upstream served {Upstream.served} requests")
        server.shutdown()


if __name__ == "__main__":
    main()
