# SPDX-License-Identifier: Apache-2.0
"""A stored result, read in place."""

from __future__ import annotations

import weakref
from typing import Optional

from . import _generated as c
from ._ffi import byref, lib, pinned_buffer
from ._handle import Handle
from .enums import KeyState
from .errors import ClosedError


class Result:
    """The bytes of a result, pinned. `view` is the memory of the cache itself, which stays where it
    is until release() has been called and the last slice of the view is gone; bytes(result) copies.
    """

    def __init__(self, cache: Handle, result: c.agr_result) -> None:
        assert result.data is not None
        self.state = KeyState(result.state)
        # A memoryview and all its slices keep this object alive, and it keeps the pin; so nobody is
        # ever left with a view of memory that was given back.
        buffer = pinned_buffer(result.data, result.length)
        weakref.finalize(buffer, _unpin, cache, cache.hold(), result.pin).atexit = False
        self._view: Optional[memoryview] = memoryview(buffer).cast("B").toreadonly()

    @property
    def failed(self) -> bool:
        """Whether it is the result of a failure (OnFailure.KEEP)."""
        return self.state is KeyState.FAILED

    @property
    def view(self) -> memoryview:
        if self._view is None:
            raise ClosedError("this Result is released")
        return self._view

    def __bytes__(self) -> bytes:
        return bytes(self.view)

    def __len__(self) -> int:
        return len(self.view)

    def release(self) -> None:
        """Gives the pin back, or leaves that to the last slice of the view. May be called again."""
        view, self._view = self._view, None
        if view is not None:
            view.release()

    def __enter__(self) -> Result:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _unpin(cache: Handle, token: object, pin: int) -> None:
    lib.agr_idempotency_release(cache.pointer, pin, byref(c.agr_error()))
    cache.drop(token)
