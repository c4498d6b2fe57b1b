# SPDX-License-Identifier: Apache-2.0
"""Headers of httpx at less cost, where it keeps them as it does now: whatever looks for one by its name, or
sets one, otherwise decodes all of them, several times."""

from __future__ import annotations

from collections.abc import Iterable

import httpx

# The name as it was given, in lower case, and the value.
Entries = list[tuple[bytes, bytes, bytes]]
Names = tuple[bytes, ...]
_KNOWN = getattr(httpx.Headers({"A": "b"}), "_list", None) == [(b"A", b"a", b"b")]


def entries(headers: httpx.Headers) -> Entries:
    """All of them, to be looked at."""
    if _KNOWN:
        found: Entries = headers._list
        return found
    return [(name, name.lower(), value) for name, value in headers.raw]


class Name:
    """Of a header that is looked for in many requests."""

    __slots__ = ("_lower", "_raw", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._raw = text.encode("ascii")
        self._lower = self._raw.lower()

    def is_in(self, headers: httpx.Headers) -> bool:
        lower = self._lower
        for entry in headers._list if _KNOWN else entries(headers):  # noqa: SIM110 - any() makes more ado
            if entry[1] == lower:
                return True
        return False

    def add_to(self, headers: httpx.Headers, value: str) -> None:
        """Where it is not yet."""
        if _KNOWN:
            headers._list.append((self._raw, self._lower, value.encode("ascii")))
        else:
            headers[self._text] = value


def tell(headers: httpx.Headers, values: Iterable[tuple[str, int]], names: Names) -> None:
    """Sets these, of the headers with one of the names, and takes the others of them away."""
    if not _KNOWN:
        take_back(headers, names)
        headers.update({name: str(value) for name, value in values})
        return
    for entry in headers._list:
        if entry[1] in names:
            take_back(headers, names)
            break
    for name, value in values:
        raw = name.encode()
        headers._list.append((raw, raw, b"%d" % value))


def take_back(headers: httpx.Headers, names: Names) -> None:
    """Takes away those with one of the names, which are in lower case."""
    if not _KNOWN:
        for name in names:
            headers.pop(name.decode("ascii"), None)
        return
    found: Entries = headers._list
    found[:] = [entry for entry in found if entry[1] not in names]
