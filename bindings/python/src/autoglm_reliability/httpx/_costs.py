# SPDX-License-Identifier: Apache-2.0
"""Estimates for httpx's requests."""

from __future__ import annotations

from collections.abc import Sequence

import httpx

from .._calling import usage


def chat_costs(request: httpx.Request) -> Sequence[int]:
    """(1, tokens), for a policy with a limiter of requests and one of tokens: those of the text that is sent,
    by its length, and of the longest answer that it allows."""
    try:
        return usage.chat_costs(request.content)
    except httpx.RequestNotRead:
        return usage.chat_costs(b"")
