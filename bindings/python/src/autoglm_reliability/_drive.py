# SPDX-License-Identifier: Apache-2.0
"""Driving a call to its end: in a thread, in an event loop, around a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, cast

from . import _generated as c
from ._accelerate import register
from ._decorate import refuse_generators
from ._readiness import readable, wait_readable
from ._report import ClassifyResult, Report
from ._time import sleep, sleep_async
from ._timeout import within
from .attempt import Attempt, current
from .call import Call
from .request import DEFAULTS, Request
from .step import Step

if TYPE_CHECKING:
    from ._handle import Clock
    from .policy import Policy

__all__ = ["ClassifyResult", "decorator", "execute", "execute_async"]

T = TypeVar("T")
F = TypeVar("F")


def execute(policy: Policy, function: Callable[[Attempt], T], request: Request) -> T:
    report = Report(policy, request)
    with policy.begin(request) as call:
        return cast("T", _go_on(policy, function, report, call))


def _go_on(policy: Policy, function: Callable[[Attempt], Any], report: Report, call: Call) -> Any:
    while not call.done:
        if call._raw.kind == c.AGR_STEP_ATTEMPT:
            _attempt(function, report, call, Attempt(call))
        else:
            _wait(policy._clock, call.step)
            call._go_on()
    return report.conclude(call)


def _attempt(function: Callable[[Attempt], Any], report: Report, call: Call, attempt: Attempt) -> None:
    token = current.set(attempt)
    try:
        value = function(attempt)
    except BaseException as error:
        outcome = report.raised(attempt, error)
    else:
        outcome = report.returned(attempt, value)
    finally:
        current.reset(token)
    call._go_on(outcome)
    report.let_cancellation_pass()


# How far the accelerator has come.
BEGUN, RETURNED, RAISED, ADVANCED = range(4)


@register("resume")
def _resume(
    policy: Policy,
    function: Callable[..., Any],
    arguments: Optional[tuple[Any, ...]],
    keywords: Optional[dict[str, Any]],
    attempt: Attempt,
    where: int,
    result: Any,
    step: Optional[bytes],
) -> Any:
    """Goes on with a call which the accelerator has begun: it was refused, or it failed, or its function
    has said something about its attempt. result is what the function returned or raised."""
    if arguments is not None:
        function = _bound(function, arguments, keywords or {})
    report = Report(policy, DEFAULTS)
    results = [result]
    del result  # an exception refers to this frame

    def again(_: Attempt) -> Any:
        if where == RAISED:
            raise results.pop()
        return results.pop()

    with attempt._owned() as call:
        if where in (RETURNED, RAISED):
            _attempt(again, report, call, attempt)
        elif step is not None:
            report.returned(attempt, results.pop())
            call._arrive(c.agr_step.from_buffer_copy(step))
        return _go_on(policy, function, report, call)


def _bound(
    function: Callable[..., Any], arguments: tuple[Any, ...], keywords: dict[str, Any]
) -> Callable[[Attempt], Any]:
    return lambda _: function(*arguments, **keywords)


async def execute_async(policy: Policy, function: Callable[[Attempt], Awaitable[T]], request: Request) -> T:
    report = Report(policy, request)
    async with await policy.begin_async(request) as call:
        while not call.done:
            if call._raw.kind != c.AGR_STEP_ATTEMPT:
                await _wait_async(policy._clock, call.step)
                await call._go_on_async()
                continue
            attempt = Attempt(call)
            token = current.set(attempt)
            try:
                value = await within(attempt.timeout, function(attempt))
            except BaseException as error:
                outcome = report.raised(attempt, error)
            else:
                outcome = report.returned(attempt, value)
            finally:
                current.reset(token)
            await call._go_on_async(outcome)
            report.let_cancellation_pass()
        return cast("T", report.conclude(call))


def _wait(clock: Optional[Clock], step: Step) -> None:
    if step.fd >= 0:
        wait_readable(step.fd, step.wait)
    else:
        sleep(clock, step.wait)


async def _wait_async(clock: Optional[Clock], step: Step) -> None:
    if step.fd >= 0:
        await readable(step.fd, step.wait)
    else:
        await sleep_async(clock, step.wait)


def decorator(policy: Policy, fields: dict[str, Any]) -> Callable[[F], F]:
    def request(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Request:
        values = {
            name: field(*arguments, **keywords) if callable(field) else field
            for name, field in fields.items()
        }
        return Request(**values) if values else DEFAULTS

    def decorate(function: F) -> F:
        refuse_generators(function)
        call = cast("Callable[..., Any]", function)
        if inspect.iscoroutinefunction(call):

            @functools.wraps(call)
            async def guarded_async(*arguments: Any, **keywords: Any) -> Any:
                asked = request(arguments, keywords)
                return await execute_async(policy, lambda _: call(*arguments, **keywords), asked)

            return cast("F", guarded_async)

        if not fields:

            @functools.wraps(call)
            def run(*arguments: Any, **keywords: Any) -> Any:
                return policy._run(call, arguments, keywords)

            return cast("F", run)

        @functools.wraps(call)
        def guarded(*arguments: Any, **keywords: Any) -> Any:
            asked = request(arguments, keywords)
            return execute(policy, lambda _: call(*arguments, **keywords), asked)

        return cast("F", guarded)

    return decorate
