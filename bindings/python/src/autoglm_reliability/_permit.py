# SPDX-License-Identifier: Apache-2.0
"""What a permit is made of, and the part of it that every guarded call goes through."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Callable, Optional, TypeVar

from .classify import Classify

if TYPE_CHECKING:
    from .breaker import CircuitBreaker

Self = TypeVar("Self", bound="PermitBase")


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

    def __del__(self, finalizing: Callable[[], bool] = sys.is_finalizing) -> None:
        # At the interpreter's end the process goes anyway.
        if self._numbers and not finalizing():
            self._drop()

    def _leave(self, error: Optional[BaseException]) -> None:
        raise NotImplementedError

    def _drop(self) -> None:
        raise NotImplementedError
