# SPDX-License-Identifier: Apache-2.0
"""The life of a native object: made once, closed once, never used afterwards."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Callable, Optional, TypeVar, Union

from . import _generated as c
from ._accelerate import NativeBase
from ._ffi import Pointer, byref, check, encoded, lib, raise_error, spare_error, spare_errors
from .errors import ClosedError

if TYPE_CHECKING:
    from .region import Region
    from .store import Store

Clock = Callable[[], int]
#: What objects take that are made without a clock of their own; None: the system's. See testing.virtual_time.
default_clock: Optional[Clock] = None
Self = TypeVar("Self", bound="Native")


class Handle:
    """A pointer that ctypes can be given, and that is NULL from the moment it is closed.

    It is always the same `cell`, which ctypes reads at each call, so that a hot path may keep it among
    its arguments: whoever calls with it after it was closed passes NULL, which the library refuses.

    Closing waits for nobody: while somebody holds the handle (a blocked call, a pinned result), the
    native object lives on and goes with the last of them. All of it rests on operations of built-in
    containers that are atomic, so there is no lock that a fork or a finalizer could find taken.
    """

    __slots__ = ("__weakref__", "_as_parameter_", "_destroy", "_holders", "_pointers", "cell")

    def __init__(self, pointer: int, destroy: Callable[[int], None]) -> None:
        self.cell = self._as_parameter_ = Pointer(pointer)
        self._pointers = [pointer]
        self._holders: set[object] = set()
        self._destroy = destroy

    @property
    def closed(self) -> bool:
        return self.cell.value is None

    def close(self) -> None:
        self.cell.value = None
        self._destroy_if_unused()

    def hold(self) -> object:
        """Keeps the native object alive until the token that this returns is dropped."""
        token = object()
        self._holders.add(token)
        if self.closed:
            self.drop(token)
            raise ClosedError("the object is closed")
        return token

    def drop(self, token: object) -> None:
        self._holders.discard(token)
        if self.closed:
            self._destroy_if_unused()

    def _destroy_if_unused(self) -> None:
        if self._holders:
            return
        try:
            pointer = self._pointers.pop()
        except IndexError:
            return
        try:
            self._destroy(pointer)
        except RecursionError:
            self._pointers.append(pointer)  # there was no stack left to call it; whoever comes next will
            raise

    @property
    def pointer(self) -> Optional[int]:
        """The address, for as long as the native object lives, also after close()."""
        return self._pointers[0] if self._pointers else None


class Native(NativeBase):
    """The base of every class that owns a native object."""

    _handle: Handle
    _clock: Optional[Clock]
    #: Whether calls may wait for a store: they do so without the interpreter's lock.
    _waits = False

    def _own(
        self,
        create: str,
        config: Any,
        clock: Optional[Clock],
        scope: Optional[Union[Region, Store]] = None,
        name: Optional[str] = None,
        options: Any = None,
        waits: bool = False,
    ) -> None:
        """Creates the native object: create is the C function, whose prefix names the others. With a scope
        the object is found there by its name, or created. waits: one of its parts is in a store."""
        if clock is None and scope is None:
            clock = default_clock
        if clock is not None and not callable(clock):
            raise TypeError("clock must be a function that returns nanoseconds")
        if (scope is None) != (name is None):
            raise TypeError("scope and name go together")
        suffix = getattr(scope, "_suffix", "")
        if scope is not None and f"{create}_{suffix}" not in c.FUNCTIONS:
            raise TypeError(f"scope: a {type(self).__name__} cannot lie in a {type(scope).__name__}")
        pointer, error = Pointer(), c.agr_error()
        where: tuple[Any, ...] = ()
        function = create
        if scope is not None:
            where, function = (scope._handle.cell, encoded(name)), f"{create}_{suffix}"
            if scope.closed:
                raise ClosedError("the scope is closed")
        how: tuple[Any, ...] = () if suffix != "in_store" else (options and byref(options),)
        twin = f"{function}_at"
        if clock is not None and twin in c.FUNCTIONS:
            status = getattr(lib, twin)(*where, byref(config), clock(), byref(pointer), byref(error))
        else:
            status = getattr(lib, function)(*where, byref(config), *how, byref(pointer), byref(error))
        check(status, error)
        assert pointer.value is not None
        destroy = create[: -len("create")] + "destroy"
        self._waits = waits or suffix == "in_store"
        self._clock = clock
        self._handle = Handle(pointer.value, lib.waiting(destroy) if self._waits else getattr(lib, destroy))
        self._attach(self._handle.cell, self._is_plain())
        # At the interpreter's end the process goes anyway, and daemon threads may still be inside.
        weakref.finalize(self, self._handle.close).atexit = False

    def _is_plain(self) -> bool:
        """Whether the accelerator may do anything for it at all."""
        return self._clock is None and not self._waits

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Releases the native object. May be called again; any other use raises ClosedError."""
        self._handle.close()

    def __enter__(self: Self) -> Self:
        self._require_open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__} belongs to one process: make one in each")

    def _require_open(self) -> None:
        if self._handle.closed:
            raise ClosedError(f"this {type(self).__name__} is closed")

    def _now(self) -> int:
        now: int = lib.agr_now_ns() if self._clock is None else self._clock()
        return now

    def _timed(self, name: str, inputs: tuple[Any, ...] = (), outputs: tuple[Any, ...] = ()) -> int:
        """Calls a function which reads the clock, or its twin which is told the time."""
        if self._clock is None:
            return self._call(name, *inputs, *outputs)
        return self._call(f"{name}_at", *inputs, self._clock(), *outputs)

    def _call(self, name: str, *arguments: Any) -> int:
        if self._waits:
            return self._call_waiting(name, *arguments)
        spare = spare_error()
        status: int = getattr(lib, name)(self._handle.cell, *arguments, spare[1])
        if status < 0:
            # Closed before, or by another thread since: the library was given NULL.
            self._require_open()
            raise_error(status, spare[0])
        spare_errors.append(spare)
        return status

    def _call_waiting(self, name: str, *arguments: Any) -> int:
        error = c.agr_error()
        with self._held():
            status: int = lib.waiting(name)(self._handle.cell, *arguments, byref(error))
        if status < 0:
            self._require_open()
            raise_error(status, error)
        return status

    @contextmanager
    def _held(self) -> Iterator[None]:
        """Around a call during which another thread may close the object."""
        token = self._handle.hold()
        try:
            yield
        finally:
            self._handle.drop(token)
