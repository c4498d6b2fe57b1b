# SPDX-License-Identifier: Apache-2.0
"""Headers of httpx at less cost, where it keeps them as it does now: whatever looks for one by its name, or
sets one, otherwise decodes all of them, several times."""

from __future__ import annotations

from collections.abc import Iterable

import httpx

# The name as it was given, in lower case, and the value.
Entries = list[tuple[bytes, bytes, bytes]]
_KNOWN = getattr(httpx.Headers({"A": "b"}), "_list", None) == [(b"A", b"a", b"b")]


def entries(headers: httpx.Headers) -> Entries:
    """All of them, to be looked at."""
    if _KNOWN:
        found: Entries = headers._list
        return found
    return [(name, name.lower(), value) for name, value in headers.raw]


def has(headers: httpx.Headers, name: str) -> bool:
    wanted = name.lower().encode()
    return wanted in [entry[1] for entry in entries(headers)]


def put(headers: httpx.Headers, values: Iterable[tuple[str, str]]) -> None:
    """Each in place of those of its name, if there are any."""
    if not _KNOWN:
        for name, value in values:
            headers[name] = value
        return
    found: Entries = headers._list
    for name, value in values:
        raw = name.encode("ascii")
        lower = raw.lower()
        if lower in [entry[1] for entry in found]:
            headers[name] = value
        else:
            found.append((raw, lower, value.encode("ascii")))
