# SPDX-License-Identifier: Apache-2.0
"""Wrapping a function, or a coroutine function, in something that is entered for each call."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable
from contextlib import AbstractContextManager
from typing import Any, Callable, Optional, TypeVar, cast

F = TypeVar("F")


def decorate(
    function: F,
    enter: Callable[[], AbstractContextManager[object]],
    enter_async: Optional[Callable[[], Awaitable[object]]] = None,
    run: Optional[Callable[..., Any]] = None,
    run_async: Optional[Callable[..., Awaitable[Any]]] = None,
) -> F:
    """enter is called, and what it returns is entered, for each call; in coroutines enter_async is
    awaited instead when there is one. run(function, arguments, keywords) does the same at once, and so does
    run_async for coroutines."""
    refuse_generators(function)
    call = cast("Callable[..., Any]", function)
    if inspect.iscoroutinefunction(call):

        @functools.wraps(call)
        async def guarded_async(*arguments: Any, **keywords: Any) -> Any:
            if run_async is not None:
                return await run_async(call, arguments, keywords)
            if enter_async is not None:
                await enter_async()
                return await call(*arguments, **keywords)
            with enter():
                return await call(*arguments, **keywords)

        return cast("F", guarded_async)

    if run is not None:

        @functools.wraps(call)
        def run_guarded(*arguments: Any, **keywords: Any) -> Any:
            return run(call, arguments, keywords)

        return cast("F", run_guarded)

    @functools.wraps(call)
    def guarded(*arguments: Any, **keywords: Any) -> Any:
        with enter():
            return call(*arguments, **keywords)

    return cast("F", guarded)


def refuse_generators(function: object) -> None:
    """A generator's body runs after the call has returned, when the guard is gone."""
    if not callable(function):
        raise TypeError("a function is needed")
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError("a generator cannot be guarded by a decorator; guard what consumes it")
