# SPDX-License-Identifier: Apache-2.0
"""The time limit for an await: who is late is told so, and nobody else's cancellation is lost by that."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import pytest

from autoglm_reliability._timeout import within


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


def cancelling(task: Any) -> int:
    return int(task.cancelling()) if sys.version_info >= (3, 11) else 0


def test_who_is_late_is_told_so_and_goes_on() -> None:
    async def main() -> int:
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await within(0, forever())
        await asyncio.sleep(0)
        return cancelling(asyncio.current_task())

    assert asyncio.run(main()) == 0


def test_limits_within_limits_end_the_one_that_is_over() -> None:
    async def inner() -> str:
        with pytest.raises(asyncio.TimeoutError):
            await within(0, forever())
        return "inner is over"

    assert asyncio.run(within(60, inner())) == "inner is over"
    with pytest.raises(asyncio.TimeoutError):
        asyncio.run(within(0, within(60, forever())))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="cancellations are counted since 3.11")
@pytest.mark.parametrize("first", [True, False])
def test_a_cancellation_in_the_same_turn_is_not_taken_for_the_time_limit(first: bool) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()

        async def work() -> None:
            if not first:
                loop.call_later(0, task.cancel)
            await forever()

        task = asyncio.ensure_future(within(0, work()))
        if first:
            loop.call_later(0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def test_what_is_done_in_time_is_what_it_is() -> None:
    async def main() -> tuple[int, int]:
        async def work() -> int:
            await asyncio.sleep(0)
            return 7

        return await within(60, work()), cancelling(asyncio.current_task())

    assert asyncio.run(main()) == (7, 0)
