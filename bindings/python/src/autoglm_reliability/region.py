# SPDX-License-Identifier: Apache-2.0
"""Shared memory in which the processes of a host find one limiter, breaker or retry budget by name."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Optional

from . import _generated as c
from ._convert import fill, integer, record
from ._ffi import Int32, Pointer, Uint64, byref, check, encoded, initialised, lib, raise_error, sized
from ._handle import Handle
from .enums import ObjectKind
from .errors import ClosedError


@dataclass(frozen=True)
class RegionSnapshot:
    objects: int
    max_objects: int
    used_objects: int
    bytes: int
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class RegionObject:
    name: str
    kind: ObjectKind = field(metadata={"as": ObjectKind})
    state_bytes: int


class Region:
    """A region of /dev/shm by its name, or without a name one for this process and its children.

    name         1 ... 63 of A-Z a-z 0-9 . _ -; None: a new region without a name.
    bytes        its size; by default whatever an existing one has, and 1 MiB for a new one.
    mode         permissions of the file that is created, and the most that an existing one may have; 0o600.
    owner        whose file it must be, a user id; the process's effective user.
    max_objects  that a new one has room for; 64.
    create       True: it must not be there yet; False: it must be there; by default either.

    It is given to a constructor as `scope`, with a name for the object:
    RateLimiter(..., scope=region, name="tokens").
    """

    _suffix = "in_region"

    def __init__(
        self,
        name: Optional[str] = None,
        bytes: int = 0,
        *,
        mode: Optional[int] = None,
        owner: Optional[int] = None,
        max_objects: Optional[int] = None,
        create: Optional[bool] = None,
    ) -> None:
        config = initialised(c.agr_region_config)
        fill(config, {"mode": mode, "owner": owner, "max_objects": max_objects})
        if create is not None:
            config.disposition = c.AGR_REGION_CREATE if create else c.AGR_REGION_OPEN
        pointer, error = Pointer(), c.agr_error()
        size = integer(bytes, "bytes", Uint64)
        status = lib.agr_region_open(encoded(name), size, byref(config), byref(pointer), byref(error))
        self._own(pointer, status, error)

    @classmethod
    def from_fd(cls, fd: int, *, mode: Optional[int] = None, owner: Optional[int] = None) -> Region:
        """The region that a descriptor refers to, which stays the caller's."""
        config = initialised(c.agr_region_config)
        fill(config, {"mode": mode, "owner": owner})
        region = cls.__new__(cls)
        pointer, error = Pointer(), c.agr_error()
        number = integer(fd, "fd", Int32)
        status = lib.agr_region_open_fd(number, byref(config), byref(pointer), byref(error))
        region._own(pointer, status, error)
        return region

    @staticmethod
    def unlink(name: str) -> bool:
        """Takes a region's name away; False when there is none. Those who have it open go on with it."""
        error = c.agr_error()
        return check(lib.agr_region_unlink(encoded(name), byref(error)), error) == c.AGR_OK

    def _own(self, pointer: Any, status: int, error: c.agr_error) -> None:
        check(status, error)
        assert pointer.value is not None
        self._handle = Handle(pointer.value, lib.agr_region_close)
        weakref.finalize(self, self._handle.close).atexit = False

    def _call(self, name: str, *arguments: Any) -> int:
        error = c.agr_error()
        status: int = getattr(lib, name)(self._handle.cell, *arguments, byref(error))
        if status < 0:
            if self.closed:
                raise ClosedError("this Region is closed")
            raise_error(status, error)
        return status

    def fileno(self) -> int:
        """Its descriptor, which is closed with the region."""
        number = Int32()
        self._call("agr_region_fd", byref(number))
        return number.value

    def remove(self, name: str) -> bool:
        """Takes an object's name away; False when there is none. Those who have the object keep it."""
        return self._call("agr_region_remove", encoded(name)) == c.AGR_OK

    def __iter__(self) -> Iterator[RegionObject]:
        """The objects, in the order in which they were created."""
        cursor, found = Uint64(0), sized(c.agr_region_object)
        while self._call("agr_region_next_object", byref(cursor), byref(found)) == c.AGR_OK:
            yield record(RegionObject, found, name=found.name.decode("ascii", "replace"))

    def snapshot(self) -> RegionSnapshot:
        snapshot = sized(c.agr_region_snapshot)
        self._call("agr_region_snapshot_read", byref(snapshot))
        return record(RegionSnapshot, snapshot)

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Closes it here. May be called again. Objects that were made with it stay usable."""
        self._handle.close()

    def __enter__(self) -> Region:
        if self.closed:
            raise ClosedError("this Region is closed")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError("a Region belongs to one process: open it by its name in each")
