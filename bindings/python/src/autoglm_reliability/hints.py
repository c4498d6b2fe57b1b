# SPDX-License-Identifier: Apache-2.0
"""What servers say about when to come back."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable, Optional, Protocol

from . import _generated as c
from ._convert import Bytes, octets, seconds
from ._ffi import Int64, byref, check, lib
from .enums import Hint
from .errors import ReliabilityError


class _Headers(Protocol):
    def get(self, key: str, /) -> Optional[str]: ...


def parse_hint(kind: Hint, text: Bytes, *, wall_now: Optional[float] = None) -> float:
    """The seconds which a server asks to wait. Raises ParseError when the text is not in the format.

    wall_now  seconds since 1970, for HTTP dates; the system's clock by default.
    """
    data = octets(text, "text")
    now = time.time_ns() if wall_now is None else round(wall_now * 1e9)
    delay, error = Int64(), c.agr_error()
    check(lib.agr_hint_parse(int(kind), data, len(data), now, byref(delay), byref(error)), error)
    return seconds(delay.value)


def hint_from_headers(headers: Mapping[str, str] | _Headers | object) -> Optional[float]:
    """The hint in a response's headers: retry-after-ms, else Retry-After; None when there is none
    that can be read. A date there is compared with the response's Date, if it has one, so that a clock
    that is wrong here or there does not matter. Anything with a `get` will do."""
    get = getattr(headers, "get", None)
    if get is None:
        return None
    for name, kind in (("retry-after-ms", Hint.RETRY_AFTER_MS), ("Retry-After", Hint.RETRY_AFTER)):
        value = _find(get, name)
        if isinstance(value, (str, bytes)):
            try:
                return parse_hint(kind, value, wall_now=_servers_now(get) if len(value) > 20 else None)
            except ReliabilityError:
                continue
    return None


def _find(get: Callable[[str], Any], name: str) -> Any:
    value = get(name)
    if value is None:
        value = get(name.lower()) if name != name.lower() else get(name.title())
    return value


def _servers_now(get: Callable[[str], Any]) -> Optional[float]:
    """Seconds since 1970 when the server answered, by its own clock, which its dates are by as well."""
    date = _find(get, "Date")
    if not isinstance(date, (str, bytes)):
        return None
    try:
        return parse_hint(Hint.RETRY_AFTER, date, wall_now=0) or None
    except ReliabilityError:
        return None
