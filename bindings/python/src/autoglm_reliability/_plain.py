# SPDX-License-Identifier: Apache-2.0
"""The bases of the classes that the accelerator has bases of its own for."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Optional, TypeVar

if TYPE_CHECKING:
    from . import _generated as c
    from ._convert import Duration
    from .breaker import CircuitBreaker
    from .call import Call
    from .classify import Classify
    from .policy import Policy

Self = TypeVar("Self", bound="PermitBase")


class NativeBase:
    def _attach(self, cell: object, plain: bool) -> None:
        """Tells where the handle is, and whether it may be used from there."""


class PermitBase:
    """started: nanoseconds on the breaker's clock. classify: None for the breaker's own."""

    __slots__ = ("_breaker", "_classify", "_numbers", "_started")

    def __init__(
        self, breaker: CircuitBreaker, number: int, started: int, classify: Optional[Classify]
    ) -> None:
        self._breaker = breaker
        self._classify = classify
        self._started = started
        # Popping is atomic: of several threads that report, one does.
        self._numbers = [number]

    @property
    def reported(self) -> bool:
        return not self._numbers

    def _take(self) -> int:
        """The number, for the one who reports it; 0 for everybody else."""
        try:
            return self._numbers.pop()
        except IndexError:
            return 0

    def _put_back(self, number: int) -> None:
        self._numbers.append(number)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        self._leave(error)

    def __del__(self) -> None:
        if self._numbers:
            self._drop()

    def _leave(self, error: Optional[BaseException]) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        raise NotImplementedError


class AttemptBase:
    __slots__ = ("_call", "_policy", "_raw", "costs", "server_delay")

    _policy: Policy  # of an attempt that has no call yet: the accelerator's

    def __init__(self, call: Call) -> None:
        self._call: Optional[Call] = call
        self._raw: c.agr_step = call._raw
        self.costs: Sequence[Optional[int]] = ()
        self.server_delay: Optional[Duration] = None

    @property
    def _address(self) -> int:
        """Of the call which the accelerator has begun; 0: it is over, or was handed over."""
        return 0

    def _release(self) -> None:
        """It is another's from now on."""
