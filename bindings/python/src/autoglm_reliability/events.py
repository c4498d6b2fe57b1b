# SPDX-License-Identifier: Apache-2.0
"""Reading a ring of events. Readers are independent; each has a cursor of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Callable, Generic, TypeVar

from . import _generated as c
from ._ffi import Uint64, byref, sized
from ._handle import Native

E = TypeVar("E")


class EventReader(Generic[E]):
    """Iterating yields what is there now, oldest first, and ends; iterate again for what came since.

    `lost` counts the events that were overwritten before they could be read.
    """

    def __init__(self, source: Native, function: str, structure: type[Any], read: Callable[[Any], E]) -> None:
        self._source = source
        self._function = function
        self._structure = structure
        self._read = read
        self._cursor = Uint64(0)
        self.lost = 0

    def __iter__(self) -> Iterator[E]:
        while True:
            event, lost = sized(self._structure), Uint64()
            arguments = (byref(self._cursor), byref(event), byref(lost))
            status = self._source._call(self._function, *arguments)
            self.lost += lost.value
            if status == c.AGR_EMPTY:
                return
            yield self._read(event)
