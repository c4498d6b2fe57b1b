# SPDX-License-Identifier: Apache-2.0
"""What an application answers, as it goes by."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import Any, Callable, Optional

from .._serving.limits import Held
from ._gate import Slot
from ._types import Pairs, StartResponse, as_bytes, as_text


class Metered:
    """A response that tells the limits; with its end the slot is free and the tokens are settled."""

    def __init__(self, held: Optional[Held], slot: Slot) -> None:
        self._held, self._slot = held, slot
        self._iterable: Iterable[bytes] = ()
        self._ended = False

    def starting(self, start_response: StartResponse) -> StartResponse:
        held = self._held
        if held is None:
            return start_response

        def start(status: str, headers: Pairs, exc_info: Any = None) -> Callable[[bytes], object]:
            if held.meter is not None:
                held.meter.start(int(status.split(" ", 1)[0]), as_bytes(headers))
            write = start_response(status, [*headers, *as_text(held.headers)], exc_info)

            def metered(data: bytes) -> object:
                if held.meter is not None:
                    held.meter.feed(data)
                return write(data)

            return metered

        return start

    def of(self, iterable: Iterable[bytes]) -> Metered:
        self._iterable = iterable
        self._next = iter(iterable)
        return self

    def __iter__(self) -> Metered:
        return self

    def __next__(self) -> bytes:
        try:
            data = next(self._next)
        except StopIteration:
            self._ended = True
            self.over()
            raise
        if self._held is not None and self._held.meter is not None:
            self._held.meter.feed(data)
        return data

    def over(self) -> None:
        """May be called again: the first counts."""
        self._slot.leave()
        held, self._held = self._held, None
        if held is not None:
            held.settle(self._ended)

    def close(self) -> None:
        try:
            close_of(self._iterable)
        finally:
            self.over()


def close_of(iterable: object) -> None:
    close = getattr(iterable, "close", None)
    if close is not None:
        close()


def close_quietly(iterable: object) -> None:
    with suppress(Exception):
        close_of(iterable)
