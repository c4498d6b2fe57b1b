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


class Loop(asyncio.SelectorEventLoop):
    """Counts the timers that are set."""

    def __init__(self) -> None:
        super().__init__()
        self.delays: list[float] = []
        self.handles: list[asyncio.TimerHandle] = []

    def call_later(self, delay: float, *arguments: Any, **names: Any) -> asyncio.TimerHandle:
        self.delays.append(delay)
        handle = super().call_later(delay, *arguments, **names)
        self.handles.append(handle)
        return handle

    def left(self) -> int:
        """How many of them are still to ring."""
        return sum(not handle.cancelled() for handle in self.handles)


def in_loop(main: Any) -> list[float]:
    loop = Loop()
    try:
        loop.run_until_complete(main)
    finally:
        loop.close()
    return loop.delays


async def at_once() -> None:
    pass


def test_those_who_are_in_time_one_after_another_need_one_timer() -> None:
    async def main() -> None:
        for _ in range(1000):
            await within(60, at_once())

    assert len(in_loop(main())) == 1


def test_a_shorter_limit_is_not_kept_by_the_timer_of_a_longer_one() -> None:
    async def main() -> None:
        await within(60, at_once())
        with pytest.raises(asyncio.TimeoutError):
            await within(0, forever())
        await within(0.01, at_once())
        with pytest.raises(asyncio.TimeoutError):
            await within(0.03, forever())

    # The last timer rings too early for the last limit, and is set for the rest of it.
    *delays, rest = in_loop(main())
    assert delays == [60, 0, 0.01]
    assert 0 < rest < 0.03


def test_a_timer_that_rings_for_nobody_cancels_nobody() -> None:
    async def main() -> int:
        await within(0.01, at_once())
        ended = asyncio.get_running_loop().create_future()
        asyncio.get_running_loop().call_later(0.02, ended.set_result, None)
        await ended
        return cancelling(asyncio.current_task())

    assert asyncio.run(main()) == 0


def test_tasks_at_the_same_time_have_a_limit_each() -> None:
    async def main() -> list[Any]:
        late = [within(0.01 * turn, forever()) for turn in range(20)]
        early = [within(60, at_once()) for _ in range(20)]
        return await asyncio.gather(*late, *early, return_exceptions=True)

    late = [isinstance(found, asyncio.TimeoutError) for found in asyncio.run(main())]
    assert late == [True] * 20 + [False] * 20


def test_every_event_loop_has_timers_of_its_own() -> None:
    async def main() -> None:
        await within(60, at_once())
        with pytest.raises(asyncio.TimeoutError):
            await within(0, forever())

    for _ in range(3):
        asyncio.run(main())


def test_loops_that_take_turns_in_a_thread_are_left_no_heap_of_timers() -> None:
    loops = [Loop(), Loop()]
    for _ in range(10):
        for loop in loops:
            loop.run_until_complete(within(60, at_once()))
    left = [loop.left() for loop in loops]
    for loop in loops:
        loop.close()
    assert left == [0, 1]
