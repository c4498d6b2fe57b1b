# SPDX-License-Identifier: Apache-2.0
"""What the middlewares have in common, without a server."""

from __future__ import annotations

import gc
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import autoglm_reliability as agr
from autoglm_reliability._serving.incoming import Incoming, credentials, short
from autoglm_reliability._serving.key import read_key
from autoglm_reliability._serving.line import Admission, Line
from autoglm_reliability._serving.quota_headers import duration
from autoglm_reliability._serving.recording import _NOT_OF_THE_RESPONSE, MARKER, Recorded, decode, encode
from autoglm_reliability._serving.refusal import Refusal, retry_headers
from autoglm_reliability._serving.tokens import Meter, estimate_tokens, total_tokens
from autoglm_reliability.asgi import RateLimit

SSE = [(b"content-type", b"text/event-stream; charset=utf-8")]


def request(body: bytes = b"", *headers: tuple[bytes, bytes]) -> Incoming:
    made = Incoming("POST", "/", b"", list(headers), "10.0.0.1")
    made.body = body
    return made


names = st.binary(min_size=1, max_size=20).filter(lambda name: name.lower() != b"connection")


@given(st.integers(100, 599), st.lists(st.tuples(names, st.binary(max_size=300)), max_size=9), st.binary())
def test_a_response_is_what_it_was(status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> None:
    found = decode(encode(Recorded(status, headers, body)))
    assert found is not None
    gone = _NOT_OF_THE_RESPONSE
    assert found.headers == [pair for pair in headers if pair[0].lower() not in gone]
    assert (found.status, found.body) == (status, body)


def test_what_belongs_to_the_connection_is_not_kept() -> None:
    headers = [
        (b"Connection", b"close, X-Hop"),
        (b"x-hop", b"1"),
        (b"Transfer-Encoding", b"chunked"),
        (b"a", b"1"),
    ]
    found = decode(encode(Recorded(200, headers, b"")))
    assert found is not None
    assert found.headers == [(b"a", b"1")]


@given(st.binary(max_size=60))
def test_no_bytes_are_read_as_more_than_they_are(data: bytes) -> None:
    found = decode(data)
    assert found is None or encode(found)[:1] == b"\x01"
    assert decode(MARKER) is None
    whole = encode(Recorded(200, [(b"name", b"value")], b""))
    assert all(decode(whole[:length]) is None for length in range(len(whole)))


@given(st.binary(max_size=40))
def test_a_key_is_a_key_or_a_refusal(value: bytes) -> None:
    found = read_key([value])
    assert isinstance(found, Refusal) or 0 < len(found) <= 255


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, b"0s"), (0.0001, b"1ms"), (0.017, b"17ms"), (1, b"1s"), (1.5, b"1.5s"), (360, b"6m0s"),
     (59.9999, b"1m0s"), (8.64, b"8.64s"), (3600, b"1h0m0s"), (3725.25, b"1h2m5.25s")],
)  # fmt: skip
def test_durations_are_as_go_writes_them(seconds: float, text: bytes) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "whole", "fine"),
    [(0, 1, 1), (0.2, 1, 200), (1.0001, 2, 1001), (1e300, 10**9, 10**12)],
)
def test_nobody_is_asked_to_come_back_too_early(seconds: float, whole: int, fine: int) -> None:
    assert retry_headers(seconds) == [(b"retry-after", b"%d" % whole), (b"retry-after-ms", b"%d" % fine)]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [({}, 257), ({"max_tokens": 10}, 15), ({"max_completion_tokens": 5, "max_tokens": 10}, 17),
     ({"max_output_tokens": 7, "n": 3}, 30), ({"max_tokens": "many"}, 262), ({"max_tokens": -1}, 261),
     ({"max_tokens": True, "n": 0}, 264)],
)  # fmt: skip
def test_tokens_are_estimated_by_what_the_caller_allows(body: dict[str, object], tokens: int) -> None:
    assert estimate_tokens(request(json.dumps(body).encode())) == tokens


@pytest.mark.parametrize(
    "body", [b"", b"[1]", b"{", b"\xff", b"null", b'{"a":' * 100_000, b'{"max_tokens": 1e400}']
)
def test_a_body_that_is_no_request_is_estimated_all_the_same(body: bytes) -> None:
    assert estimate_tokens(request(body)) == len(body) // 4 + 1 + 256


def test_usage_is_read_by_the_names_that_there_are() -> None:
    assert total_tokens({"total_tokens": 9, "prompt_tokens": 1}) == 9
    assert total_tokens({"input_tokens": 3, "output_tokens": 4}) == 7
    assert total_tokens({"prompt_tokens": 3}) == 3
    assert total_tokens({"total_tokens": "9"}) is None
    assert total_tokens({"total_tokens": -9}) is None


STREAM = b'data: {"a":1,"usage":null}\n\ndata: {"usage":{"total_tokens":42}}\r\n\r\ndata: [DONE]\n\n'


@given(st.lists(st.integers(0, len(STREAM)), max_size=12))
def test_the_usage_of_a_stream_is_found_however_it_is_cut(cuts: list[int]) -> None:
    meter = Meter()
    meter.start(200, SSE)
    places = sorted({0, len(STREAM), *cuts})
    for start, end in zip(places, places[1:]):
        meter.feed(STREAM[start:end])
    meter.end()
    assert (meter.usage, meter.events, meter.broken_off()) == ({"total_tokens": 42}, 2, 2)


def test_the_usage_of_other_streams_is_gathered() -> None:
    meter = Meter()
    meter.start(200, SSE)
    meter.feed(b'data: {"message":{"usage":{"input_tokens":5,"output_tokens":1}}}\n')
    meter.feed(b'data: {"usage":{"output_tokens":20}}\n')
    assert total_tokens(meter.usage) == 25
    meter = Meter()
    meter.start(200, SSE)
    meter.feed(b'data: {"type":"response.completed","response":{"usage":{"total_tokens":11}}}\n')
    assert total_tokens(meter.usage) == 11


def test_what_is_kept_to_find_usage_is_bounded() -> None:
    for headers in (SSE, [(b"Content-Type", b"application/json")]):
        meter = Meter()
        meter.start(200, headers)
        for _ in range(4000):
            meter.feed(b"x" * 1000)
            assert sum(map(len, meter._kept)) <= 1 << 20
        assert meter._kept == []
        meter.feed(b'\ndata: {"usage":{"total_tokens":1}}\n')
        assert meter.usage == ({"total_tokens": 1} if headers is SSE else {})


def test_a_tenant_is_who_it_says_and_is_not_stored_as_that() -> None:
    secret = (b"authorization", b"Bearer secret")
    assert credentials(request(b"", secret)) == credentials(request(b"x", (b"x-api-key", b"k"), secret))
    assert (
        len({credentials(request(b"", *headers)) for headers in ([], [secret], [(b"x-api-key", b"k")])}) == 3
    )
    assert b"secret" not in credentials(request(b"", secret))
    assert short("a") == b"a"
    assert len(short("x" * 100_000)) == 32


def test_a_line_serves_by_priority_and_then_by_arrival() -> None:
    line = Line(3)
    for who, priority in (("a", 1), ("b", 2), ("c", 1)):
        assert line.join(priority, who)[1] is None
    assert line.join(1, "d") == (None, None)
    place, displaced = line.join(2, "e")
    assert displaced == "c"
    assert place is not None
    assert line.leave(place)
    assert not line.leave(place)
    assert [line.next() for _ in range(3)] == ["b", "a", None]


def test_arguments_are_refused_by_name() -> None:
    with pytest.raises(agr.ArgumentError, match="concurrency"):
        Admission(0)
    with pytest.raises(agr.ArgumentError, match="queue "):
        Admission(1, -1)
    with pytest.raises(agr.ArgumentError, match="queue_timeout"):
        Admission(1, 1, -1)
    with pytest.raises(agr.ArgumentError, match="requests or tokens"):
        RateLimit()
    with pytest.raises(agr.ArgumentError, match="name"):
        RateLimit(requests=agr.KeyedRateLimiter(1, 1, 1), name='a"b')


@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf", b" \n"])
def test_usage_is_found_whatever_the_document_begins_with(mark: bytes) -> None:
    meter = Meter()
    meter.start(200, [(b"content-type", b"application/json")])
    meter.feed(mark + b'{"usage": {"total_tokens": 3}}')
    meter.end()
    assert meter.usage == {"total_tokens": 3}


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
def test_a_response_leaves_nothing_to_the_garbage_collector(kind: bytes) -> None:
    gc.collect()
    for _ in range(100):
        meter = Meter()
        meter.start(200, [(b"content-type", kind)])
        meter.feed(b'data: {"usage": {"total_tokens": 3}}\n\n')
        meter.end()
    assert gc.collect() < 100
