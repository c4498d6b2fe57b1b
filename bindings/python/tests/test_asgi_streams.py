# SPDX-License-Identifier: Apache-2.0
"""Streams with an Idempotency-Key: who comes later follows them from their start, over sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route

import autoglm_reliability as agr
from asgi_server import AsgiServer, Raw, Steps, body_of, is_whole, request_bytes, status_of, without
from autoglm_reliability.asgi import Idempotency, ReliabilityMiddleware, _run
from helpers import eventually

KEY = [("Idempotency-Key", "k")]
PARTS = [f"data: part {number}\n\n".encode() for number in range(5)]


class Streams:
    """Five events, each when it is allowed; `broken`: after how many it raises."""

    def __init__(self, cache: Any = None, size: int = 0, **options: Any) -> None:
        self.cache = cache or agr.IdempotencyCache()
        self.steps = Steps()
        self.calls = self.ended = 0
        self.broken: int | None = None
        self.parts = [part + b"x" * size for part in PARTS]

        async def events(_: Request) -> StreamingResponse:
            self.calls += 1
            return StreamingResponse(self._events(), media_type="text/event-stream", headers={"x-a": "1"})

        app = Starlette(routes=[Route("/events", events, methods=["POST"])])
        idempotency = Idempotency(self.cache, **options)
        self.middleware = ReliabilityMiddleware(app, idempotency=idempotency)
        self.server = AsgiServer(self.middleware)
        self.clients: list[Raw] = []

    async def _events(self) -> AsyncIterator[bytes]:
        for number, part in enumerate(self.parts):
            await self.steps.step()
            if number == self.broken:
                raise RuntimeError("on purpose")
            yield part
        self.ended += 1

    def client(self) -> Raw:
        self.clients.append(Raw(self.server.port, request_bytes("POST", "/events", KEY)))
        return self.clients[-1]

    def followed_by(self, count: int) -> bool:
        keyed = self.middleware._keyed
        assert keyed is not None
        return sum(run.followed_by for run in list(keyed._runs.values())) == count

    def close(self) -> None:
        self.steps.allow(1000)
        for client in self.clients:
            client.close()
        self.server.__exit__()


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setattr(_run, "LONGEST_STALL", 3600)  # nobody is late, unless a test says so
    made: list[Streams] = []

    def build(*arguments: Any, **options: Any) -> Streams:
        made.append(Streams(*arguments, **options))
        return made[-1]

    yield build
    for streams in made:
        streams.close()


def test_a_duplicate_gets_what_was_sent_from_the_start_and_then_follows(make: Any) -> None:
    streams = make()
    first = streams.client()
    streams.steps.allow(2)
    first.until(b"part 1")
    second = streams.client()
    second.until(b"part 1")
    assert b"part 2" not in first.got + second.got
    streams.steps.allow()
    first.until(b"part 2")
    second.until(b"part 2")
    third = streams.client()
    streams.steps.allow(2)
    for client in (first, second, third):
        assert body_of(client.rest()) == b"".join(PARTS)
    later = streams.client()
    assert body_of(later.rest()) == b"".join(PARTS)
    assert streams.calls == 1
    # Apart from how the parts are put into chunks, it is the same to the byte.
    heads = [without(client.got, b"date").split(b"\r\n\r\n")[0] for client in (first, second, later)]
    assert (
        heads[1]
        == heads[2]
        == heads[0].replace(b"\r\nconnection", b"\r\nidempotency-replayed: true\r\nconnection")
    )


def test_the_first_client_goes_away_and_the_others_get_all_of_it(make: Any) -> None:
    streams = make()
    first = streams.client()
    streams.steps.allow(2)
    first.until(b"part 1")
    second = streams.client()
    eventually(lambda: streams.followed_by(2), "the second does not follow")
    first.close()
    streams.steps.allow(3)
    assert body_of(second.rest()) == b"".join(PARTS)
    assert streams.calls == 1


def test_a_stream_that_nobody_reads_any_more_goes_on_to_its_end(make: Any) -> None:
    streams = make()
    first = streams.client()
    streams.steps.allow(1)
    first.until(b"part 0")
    first.close()
    streams.steps.allow(4)
    eventually(lambda: streams.ended == 1, "the stream does not end")
    assert body_of(streams.client().rest()) == b"".join(PARTS)
    assert streams.calls == 1


def test_a_stream_that_breaks_off_is_whole_for_nobody_and_its_outcome_unknown(make: Any) -> None:
    streams = make()
    streams.broken = 2
    first = streams.client()
    streams.steps.allow(2)
    first.until(b"part 1")
    second = streams.client()
    second.until(b"part 1")
    streams.steps.allow()
    for client in (first, second):
        assert status_of(client.rest()) == 200
        assert not is_whole(client.got)
    streams.broken = None
    streams.steps.allow(5)
    again = streams.client().rest()
    assert body_of(again) == b"".join(PARTS)
    assert b"replayed" not in again
    assert streams.calls == 2


def test_a_stream_that_is_too_large_goes_on_for_those_who_follow_and_is_not_sent_again(make: Any) -> None:
    streams = make(size=100_000, max_response_bytes=250_000)
    first = streams.client()
    streams.steps.allow(2)
    first.until(b"part 1")
    second = streams.client()
    eventually(lambda: streams.followed_by(2), "the second does not follow")
    streams.steps.allow(2)
    first.until(b"part 3")
    second.until(b"part 3")
    late = streams.client().rest()
    assert status_of(late) == 409
    assert b"response_not_kept" in late
    streams.steps.allow()
    for client in (first, second):
        assert body_of(client.rest()) == b"".join(streams.parts)
    assert status_of(streams.client().rest()) == 409
    assert streams.calls == 1


def test_memory_is_bounded_by_what_may_be_kept(make: Any) -> None:
    streams = make(size=100_000, max_response_bytes=150_000)
    first = streams.client()
    streams.steps.allow(4)
    first.until(b"part 3\n\n" + b"x" * 100_000)
    run = next(iter(streams.middleware._keyed._runs.values()))
    eventually(lambda: run._chunks == [] and run.size > 400_000, "what was sent is still kept")


def test_a_client_that_takes_nothing_is_left_behind_and_holds_up_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_run, "LONGEST_STALL", 0.2)

    async def go() -> bytes:
        run = _run.Run(b"", 10)
        run.start({"status": 200})
        got: list[bytes] = []

        async def take(message: Any) -> None:
            got.append(message.get("body", b""))

        async def stall(message: Any) -> None:
            if message["type"] == "http.response.body":
                await asyncio.get_running_loop().create_future()

        reader = asyncio.create_task(run.follow(take, True))
        stalled = asyncio.create_task(run.follow(stall, False))
        while run.followed_by < 2:
            await asyncio.sleep(0)
        for part in PARTS:
            run.write(part)
            await run.caught_up()
        assert run.followed_by == 1
        run.end()
        await reader
        stalled.cancel()
        return b"".join(got)

    assert asyncio.run(go()) == b"".join(PARTS)


def test_duplicates_beyond_the_bound_are_told_to_come_later(make: Any) -> None:
    streams = make(max_duplicates=2)
    streams.client()
    eventually(lambda: streams.steps.waiting == 1, "it is not executed")
    for _ in range(2):
        streams.client()
    eventually(lambda: streams.followed_by(3), "the duplicates do not follow")
    refused = streams.client().rest()
    assert status_of(refused) == 503
    assert b"too_many_duplicates" in refused
    assert b"retry-after: 1" in refused


def test_a_lease_is_renewed_for_as_long_as_the_run_lasts(make: Any) -> None:
    cache = agr.IdempotencyCache(lease=0.2)
    streams = make(cache)
    first = streams.client()
    renewed: list[bool] = []
    original = agr.Lease.renew
    try:
        agr.Lease.renew = lambda lease, duration=0: renewed.append(original(lease, duration)) or renewed[-1]  # type: ignore[assignment,method-assign,func-returns-value]
        eventually(lambda: len(renewed) >= 9, "the lease is not renewed")
    finally:
        agr.Lease.renew = original  # type: ignore[method-assign]
    streams.steps.allow(5)
    assert body_of(first.rest()) == b"".join(PARTS)
    assert body_of(streams.client().rest()) == b"".join(PARTS)
    # Nine renewals take three leases; had they not counted, the response would not have been kept.
    assert all(renewed)
    assert (streams.calls, cache.snapshot().leases_lost) == (1, 0)
