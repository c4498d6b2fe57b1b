# SPDX-License-Identifier: Apache-2.0
"""A time limit for an await. asyncio.wait_for loses a cancellation that comes in the same turn as the
result, before Python 3.12; asyncio.timeout does not, but came with 3.11."""

from __future__ import annotations

import asyncio
import math
import sys
from collections.abc import Awaitable
from typing import TypeVar

T = TypeVar("T")

if sys.version_info >= (3, 11):

    async def within(timeout: float, work: Awaitable[T]) -> T:
        async with asyncio.timeout(None if math.isinf(timeout) else timeout):
            return await work

else:

    async def within(timeout: float, work: Awaitable[T]) -> T:
        if math.isinf(timeout):
            return await work
        task = asyncio.current_task()
        assert task is not None
        expired = False

        def expire() -> None:
            nonlocal expired
            expired = True
            task.cancel()

        timer = asyncio.get_running_loop().call_later(timeout, expire)
        try:
            return await work
        except asyncio.CancelledError:
            if expired:
                raise asyncio.TimeoutError from None
            raise
        finally:
            timer.cancel()
