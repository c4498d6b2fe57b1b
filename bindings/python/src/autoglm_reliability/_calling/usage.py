# SPDX-License-Identifier: Apache-2.0
"""What a request to a language model costs: an estimate from what is sent, the real number from what comes
back, so that a limiter of tokens charges neither too much nor too little."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Optional

#: Of an event stream so much of the end is kept: its last events have the usage.
TAIL_BYTES = 16_384
#: Bytes of a request that make about a token.
BYTES_A_TOKEN = 4
#: Tokens of an answer whose request sets no bound.
ANSWER_TOKENS = 512


def chat_costs(body: bytes) -> Sequence[int]:
    """(1, tokens): for a policy with limiters of requests and of tokens. The tokens are those of the text
    that is sent, by its length, and of the longest answer that is allowed."""
    answer = ANSWER_TOKENS
    try:
        parsed: Any = json.loads(body)
    except (ValueError, RecursionError):
        parsed = None
    if isinstance(parsed, dict):
        for name in ("max_completion_tokens", "max_output_tokens", "max_tokens"):
            value = parsed.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**40:
                answer = value
                break
    return (1, len(body) // BYTES_A_TOKEN + answer)


def real_costs(body: bytes, count: int) -> Sequence[Optional[int]]:
    """The real costs, for as many limiters as were charged: only the last is of tokens."""
    total = total_tokens(body)
    return () if total is None else (*(None,) * (count - 1), total)


def total_tokens(body: bytes) -> Optional[int]:
    """From a JSON answer, or from the last event of a stream that has a usage."""
    found = _of_document(body)
    if found is not None:
        return found
    for line in reversed(body.splitlines()):
        if line.startswith(b"data:") and b'"usage"' in line:
            found = _of_document(line[5:])
            if found is not None:
                return found
    return None


def _of_document(text: bytes) -> Optional[int]:
    try:
        parsed: Any = json.loads(text)
    except (ValueError, RecursionError):
        return None
    for holder in (parsed, parsed.get("response") if isinstance(parsed, dict) else None):
        usage = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(usage, dict):
            return _of_usage(usage)
    return None


def _of_usage(usage: dict[str, Any]) -> Optional[int]:
    total = _count(usage.get("total_tokens"))
    if total is not None:
        return total
    sides = [_count(usage.get(name)) for name in ("input_tokens", "output_tokens")]
    return None if None in sides else sum(side or 0 for side in sides)


def _count(value: object) -> Optional[int]:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**50 else None
