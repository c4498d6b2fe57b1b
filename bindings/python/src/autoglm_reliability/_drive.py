# SPDX-License-Identifier: Apache-2.0
"""Driving a call to its end: in a thread, in an event loop, around a function."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, cast

from . import _generated as c
from ._decorate import refuse_generators
from ._readiness import readable, wait_readable
from ._report import ClassifyResult, Report
from ._time import sleep, sleep_async
from ._timeout import within
from .attempt import Attempt, current
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
        while not call.done:
            if call._raw.kind != c.AGR_STEP_ATTEMPT:
                _wait(policy._clock, call.step)
                call.advance()
                continue
            attempt = Attempt(call)
            token = current.set(attempt)
            try:
                value = function(attempt)
            except BaseException as error:
                outcome = report.raised(attempt, error)
            else:
                outcome = report.returned(attempt, value)
            finally:
                current.reset(token)
            call.advance(outcome)
            report.let_cancellation_pass()
        return cast("T", report.conclude(call))


async def execute_async(policy: Policy, function: Callable[[Attempt], Awaitable[T]], request: Request) -> T:
    report = Report(policy, request)
    with policy.begin(request) as call:
        while not call.done:
            if call._raw.kind != c.AGR_STEP_ATTEMPT:
                await _wait_async(policy._clock, call.step)
                call.advance()
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
            call.advance(outcome)
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

        @functools.wraps(call)
        def guarded(*arguments: Any, **keywords: Any) -> Any:
            asked = request(arguments, keywords)
            return execute(policy, lambda _: call(*arguments, **keywords), asked)

        return cast("F", guarded)

    return decorate
