# SPDX-License-Identifier: Apache-2.0
"""A response as bytes, which is what a cache keeps of it.

u8 version, u8 kind, u16 status, u16 headers, then for each u16 and u32 lengths, its name and value;
then the body. All big-endian.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, Optional

from .incoming import Headers

VERSION = 1
RESPONSE, NOT_KEPT = 0, 1
_HEAD = struct.Struct(">BBHH")
_LENGTHS = struct.Struct(">HI")

#: Added to what was not executed for this very request.
REPLAYED = (b"idempotency-replayed", b"true")

# Of the connection (RFC 9110, 7.6.1) or of the moment, not of the response.
_NOT_OF_THE_RESPONSE = frozenset(
    [
        b"connection",
        b"date",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    ]
)


class Recorded(NamedTuple):
    status: int
    headers: Headers
    body: bytes


def of_the_response(headers: Headers) -> Headers:
    """Those that are sent again with a replay, in their order, each as often as it was sent."""
    named = {
        name.strip().lower()
        for found, value in headers
        if found.lower() == b"connection"
        for name in value.split(b",")
    }
    gone = _NOT_OF_THE_RESPONSE | named
    return [(name, value) for name, value in headers if name.lower() not in gone]


def encode(recorded: Recorded) -> bytes:
    headers = of_the_response(recorded.headers)
    parts = [_HEAD.pack(VERSION, RESPONSE, recorded.status, len(headers))]
    for name, value in headers:
        parts += (_LENGTHS.pack(len(name), len(value)), name, value)
    parts.append(recorded.body)
    return b"".join(parts)


#: In place of a response that is too large: the key has been executed, and that is all that is known.
MARKER = _HEAD.pack(VERSION, NOT_KEPT, 0, 0)


def decode(data: bytes) -> Optional[Recorded]:
    """None: it was not kept, or cannot be read."""
    try:
        version, kind, status, count = _HEAD.unpack_from(data)
        if version != VERSION or kind != RESPONSE:
            return None
        place, headers = _HEAD.size, []
        for _ in range(count):
            name_length, value_length = _LENGTHS.unpack_from(data, place)
            place += _LENGTHS.size
            middle, end = place + name_length, place + name_length + value_length
            if end > len(data):
                return None
            headers.append((data[place:middle], data[middle:end]))
            place = end
    except struct.error:
        return None
    return Recorded(status, headers, data[place:])
