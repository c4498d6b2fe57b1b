# SPDX-License-Identifier: Apache-2.0
"""What may wait for a store, beside the event loop: in a thread."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import Callable, TypeVar

from .errors import ReliabilityError

T = TypeVar("T")


async def asked(ask: Callable[[], T], let_go: Callable[[T], object]) -> T:
    """Asks in a thread. Whoever is cancelled meanwhile lets go of the answer, which may wait as well."""
    loop = asyncio.get_running_loop()
    future = loop.run_in_executor(None, ask)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(partial(_discard, loop, let_go))
        raise


def _discard(
    loop: asyncio.AbstractEventLoop, let_go: Callable[[T], object], future: asyncio.Future[T]
) -> None:
    def drop() -> None:
        with suppress(ReliabilityError):
            let_go(future.result())

    if not future.cancelled() and future.exception() is None:
        with suppress(RuntimeError):  # the loop's threads are being shut down: what was taken ends by itself
            loop.run_in_executor(None, drop)


async def ended(end: Callable[[], T]) -> T:
    """Ends something in a thread, to the end also when the task is cancelled."""
    future = asyncio.get_running_loop().run_in_executor(None, end)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        raise
