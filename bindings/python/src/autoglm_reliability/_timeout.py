# SPDX-License-Identifier: Apache-2.0
"""A time limit for an await. asyncio.wait_for loses a cancellation that comes in the same turn as the
result, before Python 3.12; asyncio.timeout does not, but came with 3.11, and makes more ado."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Awaitable
from typing import Any, Optional, TypeVar

T = TypeVar("T")

#: Seconds; a loop whose clock has no finer steps rings so much too early.
SLACK = 1e-3
#: Those of an event loop that are kept for whoever comes next.
MOST_IDLE = 1024


class Timer:
    """Cancels a task when its time is over.

    Most that is limited ends long before. So what was set in the event loop stays set when its task has done:
    if it rings for the next before that one's time is over, it is set again, and no call has to set one of
    its own. There are as many as there are tasks at the same time, and none is ever late.
    """

    __slots__ = ("_before", "_expired", "_handle", "_limit", "_loop", "_rings", "_task")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._task: Any = None
        self._handle: Optional[asyncio.TimerHandle] = None
        self._rings = math.inf
        self._limit = math.inf
        self._expired = False
        self._before = 0

    def _set(self, timeout: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._rings = self._limit
        self._handle = self._loop.call_later(timeout, self._ring)

    def _ring(self) -> None:
        self._handle, self._rings = None, math.inf
        if self._task is None:
            return
        left = self._limit - self._loop.time()
        if left > SLACK:
            self._set(left)
        else:
            self._expired = True
            self._task.cancel()

    def was_late(self) -> bool:
        """Whether a cancellation was for that. Another may have come as well, and is then not lost."""
        return self._expired and (not _COUNTED or self._task.cancelling() - 1 <= self._before)

    def stop(self) -> None:
        task, self._task = self._task, None
        if self._expired:
            self._expired = False
            if _COUNTED:
                task.uncancel()
        idle = _timers.idle
        if _timers.loop is self._loop and len(idle) < MOST_IDLE:
            idle.append(self)
        else:
            self.drop()

    def drop(self) -> None:
        if self._handle is not None:
            self._handle.cancel()


class _Timers(threading.local):
    """Of the event loop that runs in this thread."""

    loop: Optional[asyncio.AbstractEventLoop] = None

    def __init__(self) -> None:
        self.idle: list[Timer] = []

    def turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """To another loop. The one before may go on later, and is not to ring for nobody then."""
        idle, self.idle, self.loop = self.idle, [], loop
        for timer in idle:
            timer.drop()


_timers = _Timers()
_COUNTED = hasattr(asyncio.Task, "uncancel")


def start(timeout: float) -> Timer:
    """For the present task; to be stopped. RuntimeError: there is no event loop of asyncio."""
    loop = asyncio.get_running_loop()
    if _timers.loop is not loop:
        _timers.turn(loop)
    timer = _timers.idle.pop() if _timers.idle else Timer(loop)
    timer._task = task = asyncio.current_task(loop)
    assert task is not None
    timer._before = task.cancelling() if _COUNTED else 0
    timer._limit = limit = loop.time() + timeout
    if limit < timer._rings:
        timer._set(timeout)
    return timer


async def within(timeout: float, work: Awaitable[T]) -> T:
    """Raises asyncio.TimeoutError when the work has not ended in time."""
    if math.isinf(timeout):
        return await work
    timer = start(timeout)
    try:
        return await work
    except asyncio.CancelledError:
        if timer.was_late():
            raise asyncio.TimeoutError from None
        raise
    finally:
        timer.stop()
