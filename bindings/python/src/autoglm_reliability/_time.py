# SPDX-License-Identifier: Apache-2.0
"""Waiting. A clock that has a method `sleep` is also what waits are made with, so that a test's clock
moves instead of the test standing still."""

from __future__ import annotations

import asyncio
import time
from typing import Optional

from ._handle import Clock


def sleep(clock: Optional[Clock], duration: float) -> None:
    getattr(clock, "sleep", time.sleep)(duration)


async def sleep_async(clock: Optional[Clock], duration: float) -> None:
    virtual = getattr(clock, "sleep", None)
    if virtual is None:
        await asyncio.sleep(duration)
    else:
        virtual(duration)
        await asyncio.sleep(0)
