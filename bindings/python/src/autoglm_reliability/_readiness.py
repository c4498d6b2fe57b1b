# SPDX-License-Identifier: Apache-2.0
"""Waiting for a file descriptor, with a time limit, in a thread and in an event loop."""

from __future__ import annotations

import asyncio
import math
import select

# The longest that poll and timers are asked for at once.
LONGEST = 3600.0


def wait_readable(descriptor: int, timeout: float) -> bool:
    """Blocks this thread, and can be interrupted by signals."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(math.ceil(min(timeout, LONGEST) * 1000)))


async def readable(descriptor: int, timeout: float) -> bool:
    """Blocks this task only. The descriptor is no longer watched when this returns, so that its owner
    may close it."""
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[bool] = loop.create_future()

    def settle(value: bool) -> None:
        if not ready.done():
            ready.set_result(value)

    loop.add_reader(descriptor, settle, True)
    timer = loop.call_later(min(timeout, LONGEST), settle, False)
    try:
        return await ready
    finally:
        timer.cancel()
        loop.remove_reader(descriptor)
