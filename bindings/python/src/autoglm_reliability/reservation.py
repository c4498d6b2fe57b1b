# SPDX-License-Identifier: Apache-2.0
"""Tokens taken ahead of their use."""

from __future__ import annotations

from types import TracebackType
from typing import Callable, Optional, Protocol

from ._accelerate import register
from ._aside import ended
from ._convert import integer, seconds
from .errors import ArgumentError


class _Issuer(Protocol):
    _waits: bool

    @property
    def closed(self) -> bool: ...

    def _settle(self, permit: int, cost: int) -> bool: ...

    def _give_back(self, permit: int) -> bool: ...


class Reservation:
    """Ended once: settled by the real cost, or cancelled. As a context manager it is settled on exit
    as reserved, unless that was done inside, and cancelled when an exception passes.

    tokens  how many were taken.
    wait    seconds to wait before making use of them; 0: they are there.
    """

    def __init__(self, limiter: _Issuer, permit: int, tokens: int, wait_ns: int) -> None:
        self._limiter = limiter
        self._permits = [permit]
        self.tokens = tokens
        self.wait = seconds(wait_ns)

    @property
    def ended(self) -> bool:
        return not self._permits

    def settle(self, actual: Optional[int] = None) -> bool:
        """Ends it by its real cost: the rest is given back, or the excess taken. None: not known, which
        keeps what was reserved. False when it had ended before, or expired."""
        cost = -1 if actual is None else integer(actual, "actual")
        if actual is not None and cost < 0:
            raise ArgumentError("actual must not be negative", "actual")
        return self._end(self._limiter._settle, cost)

    def cancel(self) -> bool:
        """Gives all of it back. False when it had ended before, or expired."""
        return self._end(self._limiter._give_back)

    async def settle_async(self, actual: Optional[int] = None) -> bool:
        """As settle; does not block the event loop in a store either."""
        return await ended(lambda: self.settle(actual)) if self._limiter._waits else self.settle(actual)

    async def cancel_async(self) -> bool:
        """As cancel; does not block the event loop in a store either."""
        return await ended(self.cancel) if self._limiter._waits else self.cancel()

    def _end(self, how: Callable[..., bool], *arguments: int) -> bool:
        try:
            permit = self._permits.pop()
        except IndexError:
            return False
        try:
            return how(permit, *arguments)
        except ArgumentError:
            self._permits.append(permit)  # it is still open
            raise

    def __enter__(self) -> Reservation:
        return self

    def __exit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self.ended or self._limiter.closed:
            return
        if error is None:
            self.settle()
        else:
            self.cancel()

    async def __aenter__(self) -> Reservation:
        return self

    async def __aexit__(
        self,
        kind: Optional[type[BaseException]],
        error: Optional[BaseException],
        trace: Optional[TracebackType],
    ) -> None:
        if self._limiter._waits:
            await ended(lambda: self.__exit__(kind, error, trace))
        else:
            self.__exit__(kind, error, trace)


register("reservation")(Reservation)
