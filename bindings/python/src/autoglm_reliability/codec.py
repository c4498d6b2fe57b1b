# SPDX-License-Identifier: Apache-2.0
"""Between a function's values and the bytes that are kept of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Callable

from ._convert import octets


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        raise TypeError("a policy keeps bytes: give it a codec, or return bytes rather than str")
    return octets(value, "the function's result")


@dataclass(frozen=True)
class Codec:
    """Used only for calls with a key or a cache_key; without one of one's own, values are bytes."""

    encode: Callable[[Any], bytes] = _bytes
    decode: Callable[[bytes], Any] = bytes


def _to_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode("utf-8")


JSON = Codec(_to_json, json.loads)
