# SPDX-License-Identifier: Apache-2.0
"""Idempotency-Key: reading it, and what identifies a run."""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b
from typing import Union

from .incoming import Incoming
from .refusal import Refusal, bad_key

LONGEST = 255
# A String of RFC 8941, as the draft has it, or bare as most clients send it.
_QUOTED = re.compile(rb'"((?:[ !#-\[\]-~]|\\["\\])*)"')
_BARE = re.compile(rb"[!#-~]+")
_ESCAPED = re.compile(rb'\\(["\\])')


def read_key(values: list[bytes]) -> Union[bytes, Refusal]:
    """The key that the headers give; quoted or not, it is the same."""
    if len(values) != 1:
        return bad_key("There is more than one Idempotency-Key.")
    value = values[0].strip(b" \t")
    quoted = _QUOTED.fullmatch(value)
    if quoted:
        key = _ESCAPED.sub(rb"\1", quoted[1])
    elif _BARE.fullmatch(value):
        key = value
    else:
        return bad_key("Idempotency-Key is not a string of visible ASCII characters.")
    if not 0 < len(key) <= LONGEST:
        return bad_key(f"Idempotency-Key must have 1 to {LONGEST} characters.")
    return key


def run_name(tenant: bytes, request: Incoming, key: bytes) -> bytes:
    """One for each tenant, method, path and key."""
    return _digest(tenant, request.method.encode(), request.path.encode("utf-8", "surrogatepass"), key)


def fingerprint(request: Incoming, marks: Iterable[bytes] = ()) -> bytes:
    """What must be the same in whatever comes with the same key."""
    content_type = (request.header("content-type") or "").encode("latin-1")
    return _digest(request.query, content_type, request.body or b"", *marks)


def _digest(*parts: bytes) -> bytes:
    digest = blake2b(digest_size=32)
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.digest()
