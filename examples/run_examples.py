# SPDX-License-Identifier: Apache-2.0
"""Runs one of the C and C++ examples against the real thing, over loopback, and checks what it did.

python run_examples.py curl_retry|curl_multi|poll_loop|gateway|inference_server PROGRAM
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT = 20.0  # of everything that is waited for; a test that passes needs a fraction of it


class FlakyServer(ThreadingHTTPServer):
    """Executes a key once and knows its reply from then on; troubles every key in a fixed manner."""

    daemon_threads = True
    request_queue_size = 128

    # What a key's requests meet before one is answered; the n-th key that comes meets the n-th.
    TROUBLES: tuple[list[str], ...] = (
        [],
        ["503"],
        ["503-ms"],
        ["drop"],
        ["429", "cut"],
        ["stall"],
        ["drop", "503-ms"],
    )

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), FlakyHandler)
        self.lock = threading.Lock()
        self.troubles: dict[str, list[str]] = {}
        self.served: dict[str, list[str]] = defaultdict(list)
        self.executions: Counter[str] = Counter()
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1/generate"

    def admit(self, key: str) -> str:
        """What a request with this key is to meet now."""
        with self.lock:
            if key not in self.troubles:
                self.troubles[key] = list(self.TROUBLES[len(self.troubles) % len(self.TROUBLES)])
            self.served[key].append(self.troubles[key].pop(0) if self.troubles[key] else "200")
            met = self.served[key][-1]
            # A connection that is lost may be lost after the work was done, and here it always is.
            if met in ("200", "drop", "cut", "stall") and not self.executions[key]:
                self.executions[key] += 1
            return met

    def planned(self, count: int) -> list[list[str]]:
        return [[*self.TROUBLES[i % len(self.TROUBLES)], "200"] for i in range(count)]


class FlakyHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FlakyServer

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers["Idempotency-Key"] or "none"
        met = self.server.admit(key)
        if met == "503":
            self.reply(503, b"{}", {"Retry-After": "0"})
        elif met == "503-ms":
            self.reply(503, b"{}", {"retry-after-ms": "12.5", "Retry-After": "100"})
        elif met == "429":
            self.reply(429, b"{}", {"Retry-After": "0"})
        elif met == "cut":
            self.reply(200, b"{", {}, announced=100)
            self.hang_up()
        elif met == "drop":
            self.hang_up()
        elif met == "stall":
            self.server.closing.wait(TIMEOUT)
            self.hang_up()
        else:
            self.reply(200, json.dumps({"reply_to": key}).encode(), {})

    def reply(self, status: int, body: bytes, headers: dict[str, str], announced: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if announced is None else announced))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def flaky_server() -> Iterator[FlakyServer]:
    with FlakyServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.closing.set()
            server.shutdown()
            thread.join(TIMEOUT)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    print(done.stdout, done.stderr, sep="")
    return done


def equal(seen: object, wanted: object, what: str) -> None:
    if seen != wanted:
        raise SystemExit(f"{what}: {seen!r}, not {wanted!r}")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    """Asks until it holds."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(0.005)


def check_served(server: FlakyServer, prefix: str, count: int) -> None:
    """Every key met its troubles, was answered once, never asked for again, and executed once."""
    equal(sorted(server.served), sorted(f"{prefix}-{i}" for i in range(count)), "keys")
    for (key, met), planned in zip(server.served.items(), server.planned(count), strict=True):
        equal(met, planned, f"what {key} met")
    equal(set(server.executions.values()), {1}, "executions of a key")


def curl_retry(program: str) -> None:
    with flaky_server() as server:
        equal(run(program, server.url, "10").returncode, 0, "exit status")
        check_served(server, "curl", 10)

    # Nobody listens there: a port that was taken, and is free again.
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    refused = run(program, f"http://127.0.0.1:{port}/", "10")
    equal(refused.returncode, 1, "exit status without a server")
    equal("open (breaker)" in refused.stdout, True, "the breaker opened")
    equal("0 of 10 calls succeeded; 5 attempts" in refused.stdout, True, "five attempts in all")


def curl_multi(program: str) -> None:
    with flaky_server() as server:
        # A tenth in trouble: less than opens the breaker, or uses the budget up.
        server.TROUBLES = ([],) * 17 + (["503"], ["429"], ["503-ms"])
        equal(run(program, server.url, "2000", "100").returncode, 0, "exit status")
        check_served(server, "multi", 2000)

    # And all of it: the breaker opens, and those who come then cost the server nothing.
    with flaky_server() as server:
        server.TROUBLES = (["drop"] * 10,)
        done = run(program, server.url, "2000", "100")
        equal(done.returncode, 1, "exit status")
        equal("open (breaker)" in done.stdout, True, "the breaker opened")
        equal("0 succeeded, 2000 failed" in done.stdout, True, "the summary")
        equal(sum(map(len, server.served.values())) < 500, True, "few requests in all")
    equal(run(program, "http://127.0.0.1:1/", "10", "x").returncode, 2, "exit status with a bad number")


def poll_loop(program: str) -> None:
    with flaky_server() as server:
        done = run(program, server.url)
        equal(done.returncode, 0, "exit status")
        equal("24 executed, 48 joined, 24 replayed, 0 failed" in done.stdout, True, "the summary")
        check_served(server, "poll", 24)
    equal(run(program, "http://localhost/").returncode, 2, "exit status with a bad URL")


def gateway(program: str) -> None:
    equal(run(program).returncode, 0, "exit status")


class Client:
    """Of the inference server. Every request has a connection of its own."""

    def __init__(self, address: str) -> None:
        self.address = address.removeprefix("http://")

    def generate(
        self, prompt: str, max_tokens: int, tenant: str, key: str | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        headers = {"X-Tenant": tenant} | ({"Idempotency-Key": key} if key else {})
        return self.ask("POST", f"/v1/generate?max_tokens={max_tokens}", prompt, headers)

    def stats(self) -> dict[str, int]:
        stats: dict[str, int] = json.loads(self.ask("GET", "/stats")[2])
        return stats

    def ask(
        self, method: str, path: str, body: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.address, timeout=TIMEOUT)
        with contextlib.closing(connection):
            connection.request(method, path, body, {"Connection": "close"} | (headers or {}))
            response = connection.getresponse()
            return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()


def inference_server(program: str) -> None:
    # 5 requests a minute for each tenant, 1200 tokens a minute for all.
    command = [program, "5", "1200"]
    with (
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as at_end,
    ):
        at_end.callback(process.kill)
        assert process.stdin
        assert process.stdout
        client = Client(process.stdout.readline().strip())
        check_duplicates(client)
        check_limits(client)
        check_breaker(client)
        process.stdin.close()
        equal(process.wait(TIMEOUT), 0, "exit status")
        print(process.stdout.read(), end="")
        at_end.pop_all()


def check_duplicates(client: Client) -> None:
    prompt = " ".join(f"word{i}" for i in range(400))  # 1.6 s of generation
    with ThreadPoolExecutor(9) as threads:
        first = threads.submit(client.generate, prompt, 600, "a", "key")
        wait_for(lambda: client.stats()["runs"] == 1, "the first to be under way")
        others = [threads.submit(client.generate, prompt, 600, "a", "key") for _ in range(7)]
        wait_for(lambda: client.stats()["waiting"] == 7, "seven duplicates to wait for it")

        # Meanwhile 1000 of the 1200 tokens are reserved.
        status, headers, _ = client.generate("hello", 600, "b")
        equal((status, 1 <= int(headers["retry-after"]) <= 60), (429, True), "limited by tokens")
        status, _, _ = client.generate(prompt, 599, "a", "key")
        equal(status, 422, "the key with another request, while it is executed")
        replies = [future.result(TIMEOUT) for future in [first, *others]]

    equal([status for status, _, _ in replies], [200] * 8, "statuses")
    equal(len({body for _, _, body in replies}), 1, "different replies")
    equal(json.loads(replies[0][2])["generated_tokens"], 400, "tokens")
    marks = [headers.get("idempotency-replayed") for _, headers, _ in replies]
    equal(marks, [None] + ["true"] * 7, "marks of a replay")

    again = client.generate(prompt, 600, "a", "key")
    equal((again[0], again[2]), (200, replies[0][2]), "a duplicate that comes later")
    equal(client.generate("other", 600, "a", "key")[0], 422, "the key with another request")
    stats = client.stats()
    equal((stats["runs"], stats["joined"], stats["mismatched"]), (1, 7, 2), "runs, joined, mismatched")
    # A tenant's keys are its own: this one runs. 800 were used; the other 200 came back.
    status, _, body = client.generate("mine", 300, "b", "key")
    equal((status, json.loads(body)["run"]), (200, 2), "the key of another tenant")


def check_limits(client: Client) -> None:
    for i in range(5):  # reserved 21 each, settled by 2
        equal(client.generate("hi", 20, "c", f"key{i}")[0], 200, "within the tenant's limit")
    before = client.stats()
    status, headers, body = client.generate("hi", 20, "c", "key5")
    equal((status, b"tenant" in body), (429, True), "beyond it")
    equal(1 <= int(headers["retry-after"]) <= 12, True, "when it clears: a request every 12 s")
    equal(0 < int(headers["retry-after-ms"]) <= 12000, True, "the same in milliseconds")
    equal(client.generate("hi", 20, "c", "key4")[0], 200, "a replay costs nothing")
    equal(client.generate("hi", 20, "d")[0], 200, "another tenant is not concerned")
    after = client.stats()
    equal(after["runs"], before["runs"] + 1, "runs")
    equal(after["tokens_available"] >= before["tokens_available"] - 2, True, "tokens came back")
    equal(client.generate("hi", 4000, "d")[0], 400, "more than ever fits")
    equal(client.generate("hi", 0, "d")[0], 400, "no tokens")


def check_breaker(client: Client) -> None:
    client.ask("POST", "/model?works=0")
    for i in range(5):
        equal(client.generate("hi", 2, f"e{i}", "failed")[0], 500, "a failure of the model")
    before = client.stats()
    status, headers, _ = client.generate("hi", 2, "f")
    equal((status, 1 <= int(headers["retry-after"]) <= 2), (503, True), "the model is left alone")
    after = client.stats()
    equal(after["runs"], before["runs"], "runs")
    client.ask("POST", "/model?works=1")
    wait_for(lambda: client.generate("hi", 2, "g", "again")[0] == 200, "the model to be asked again")
    equal(client.generate("hi", 2, "e0", "failed")[0], 200, "a key that failed may be tried again")


EXAMPLES: dict[str, Callable[[str], None]] = {
    "curl_multi": curl_multi,
    "curl_retry": curl_retry,
    "poll_loop": poll_loop,
    "gateway": gateway,
    "inference_server": inference_server,
}

if __name__ == "__main__":
    EXAMPLES[sys.argv[1]](sys.argv[2])
    print("good")
