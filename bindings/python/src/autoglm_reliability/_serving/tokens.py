# SPDX-License-Identifier: Apache-2.0
"""What a request may cost in tokens, before it is served, and what it has cost, as its response tells."""

from __future__ import annotations

import json
from typing import Any, Optional

from .incoming import Headers, Incoming, decoded

#: Of English text, on the average.
BYTES_PER_TOKEN = 4
LONGEST_LINE = 1 << 16
LONGEST_JSON = 1 << 20
MOST_TOKENS = 2**40
# What of a response is looked at.
NOTHING, DOCUMENT, EVENTS = range(3)
LIMITS = ("max_completion_tokens", "max_output_tokens", "max_tokens")

Usage = dict[str, Any]


def input_estimate(request: Incoming) -> int:
    return len(request.body or b"") // BYTES_PER_TOKEN + 1


def estimate_tokens(request: Incoming, default_output: int = 256) -> int:
    """The body's bytes / 4, and the most that the caller lets be generated, times `n`; `default_output` when
    it says nothing."""
    body = request.json or {}
    output = default_output
    for name in LIMITS:
        if name in body and _is_count(body[name]):
            output = body[name]
            break
    times = body["n"] if "n" in body and _is_count(body["n"]) and body["n"] > 0 else 1
    return min(input_estimate(request) + output * times, MOST_TOKENS)


def total_tokens(usage: Usage) -> Optional[int]:
    """`total_tokens`, else the sum of what went in and came out, by the names that APIs have for them."""
    if _is_count(usage.get("total_tokens")):
        return int(usage["total_tokens"])
    ways = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
    found = [next((usage[name] for name in way if _is_count(usage.get(name))), None) for way in ways]
    return None if found == [None, None] else sum(count or 0 for count in found)


def _is_count(value: object) -> bool:
    # In JSON there is no other whole number than an int; True is none.
    return type(value) is int and 0 <= value <= MOST_TOKENS


class Meter:
    """Watches a response go by for the usage that it tells: a JSON body up to 1 MiB, or the events of a
    stream, in lines up to 64 KiB. What is longer is passed over."""

    __slots__ = ("_kept", "_look", "_size", "events", "sent", "status", "usage")

    def __init__(self) -> None:
        self.usage: Usage = {}
        self.status = 0
        self.sent = 0
        self.events = 0
        self._kept: list[bytes] = []
        self._size = 0
        self._look = NOTHING

    def start(self, status: int, headers: Headers) -> None:
        self.status = status
        for name, value in headers:
            if name.lower() == b"content-type":
                kind = value.split(b";", 1)[0].strip().lower()
                if kind == b"text/event-stream":
                    self._look = EVENTS
                elif kind == b"application/json" or kind.endswith(b"+json"):
                    self._look = DOCUMENT
                return

    def feed(self, data: bytes) -> None:
        self.sent += len(data)
        if self._look == DOCUMENT:
            self._part(data)
        elif self._look == EVENTS:
            self._line(data)

    def end(self) -> None:
        """When all of the response has gone by."""
        if self._kept and self._look == DOCUMENT:
            self._read(b"".join(self._kept))
        elif self._kept:
            self._event(b"".join(self._kept))
        self._kept = []

    def broken_off(self) -> int:
        """The tokens of what has been sent of it: one an event, or its bytes / 4."""
        return self.events if self._look == EVENTS else self.sent // BYTES_PER_TOKEN

    def _part(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > LONGEST_JSON:
            self._kept, self._look = [], NOTHING
        else:
            self._kept.append(data)

    def _line(self, data: bytes) -> None:
        *whole, rest = data.replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            if self._kept:
                self._kept.append(line)
                line, self._kept = b"".join(self._kept), []
            if self._size <= LONGEST_LINE:
                self._event(line)
            self._size = 0
        self._size += len(rest)
        if self._size > LONGEST_LINE:
            self._kept = []
        elif rest:
            self._kept.append(rest)

    def _event(self, line: bytes) -> None:
        if line.startswith(b"data:") and line.strip() != b"data: [DONE]":
            self.events += 1
            if b'"usage"' in line:
                self._read(line[5:])

    def _read(self, text: bytes) -> None:
        if b'"usage"' not in text:
            return
        try:
            value = decoded(text) if text[:1] == b"{" else json.loads(text)
        except (ValueError, RecursionError):
            return
        # Some tell it inside: the end of a Responses stream, the beginning of a Messages stream.
        for place in (value, _member(value, "response"), _member(value, "message")):
            usage = _member(place, "usage")
            if isinstance(usage, dict):
                self.usage.update(usage)


def _member(value: object, name: str) -> object:
    return value.get(name) if isinstance(value, dict) else None
