# SPDX-License-Identifier: Apache-2.0
"""Stores: where the state of objects lies when processes share it, or when it is to outlive them."""

from __future__ import annotations

import asyncio
import os
import weakref
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Optional, Union

from . import _generated as c
from . import _generated_sqlite as sqlite
from ._convert import Duration, fill, nanoseconds, record
from ._ffi import Pointer, StoreLibrary, byref, check, initialised, lib, raise_error, sized
from ._handle import Handle
from .enums import BreakerState, OnStoreError, Synchronous
from .errors import ArgumentError, ClosedError


@dataclass(frozen=True)
class StoreSnapshot:
    """calls: of the store; failures: of these; refused: calls that failed at once, because those before them
    had failed; fallbacks: what objects admitted or did locally instead."""

    state: BreakerState = field(metadata={"as": BreakerState})
    calls: int
    failures: int
    refused: int
    fallbacks: int
    retry_after: float


class Store:
    """What all stores have in common. It is given to a constructor as `scope`, with a name for the object:
    IdempotencyCache(..., scope=store, name="jobs"). Objects that were made with it keep it open.

    on_error      what objects do when the store fails: OnStoreError.REFUSE (raise StoreError), ADMIT, LOCAL.
    timeout       seconds that a call of the store may take; 1.
    max_failures  in a row, after which calls fail at once; 5; 0: never.
    max_calls     of the store at a time; 4096.
    open          seconds that they then fail at once, the first time; 0.1.  open_max: at the most; 5.
    """

    _suffix = "in_store"
    _handle: Handle

    def _own(
        self,
        driver: Any,
        on_error: Optional[OnStoreError],
        timeout: Optional[Duration],
        max_failures: Optional[int],
        max_calls: Optional[int],
        open: Optional[Duration],
        open_max: Optional[Duration],
    ) -> None:
        config = initialised(c.agr_store_config)
        pointer, error = Pointer(), c.agr_error()
        try:
            values = {"on_error": on_error, "timeout": timeout, "max_failures": max_failures}
            fill(config, {**values, "max_calls": max_calls, "open": open, "open_max": open_max})
            made = lib.agr_store_create(byref(driver), byref(config), byref(pointer), byref(error))
            check(made, error)
        except BaseException:
            driver.api.contents.destroy(driver.self)  # it is the store's only once there is one
            raise
        assert pointer.value is not None
        self._handle = Handle(pointer.value, lib.waiting("agr_store_destroy"))
        weakref.finalize(self, self._handle.close).atexit = False

    def _call(self, name: str, *arguments: Any) -> int:
        token = self._handle.hold()
        try:
            error = c.agr_error()
            status: int = getattr(lib, name)(self._handle.cell, *arguments, byref(error))
            if status < 0:
                raise_error(status, error)
            return status
        finally:
            self._handle.drop(token)

    @property
    def name(self) -> str:
        """What the store calls itself, such as "sqlite"."""
        text: bytes = lib.agr_store_name(self._handle.cell)
        return text.decode("ascii")

    def ping(self, timeout: Duration = 0) -> None:
        """Asks for a sign of life; raises StoreError. An answer ends the time in which calls fail at once.
        timeout  seconds; 0: as configured."""
        self._call("agr_store_ping", nanoseconds(timeout, "timeout"))

    async def ping_async(self, timeout: Duration = 0) -> None:
        """As ping; does not block the event loop."""
        await asyncio.to_thread(self.ping, timeout)

    def snapshot(self) -> StoreSnapshot:
        snapshot = sized(c.agr_store_snapshot)
        self._call("agr_store_snapshot_read", byref(snapshot))
        return record(StoreSnapshot, snapshot)

    @property
    def closed(self) -> bool:
        return self._handle.closed

    def close(self) -> None:
        """Closes it here. May be called again. Objects that were made with it stay usable."""
        self._handle.close()

    def __enter__(self) -> Store:
        if self.closed:
            raise ClosedError(f"this {type(self).__name__} is closed")
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        raise TypeError(f"a {type(self).__name__} belongs to one process: open it in each")


@cache
def _sqlite() -> StoreLibrary:
    return StoreLibrary("sqlite", sqlite.FUNCTIONS)


class SQLiteStore(Store):
    """A store in a file, shared by the processes of this host, and durable.

    path              of the database, which is made, for its owner alone, if it is not there.
    synchronous       Synchronous.FULL: what was acknowledged survives a loss of power; NORMAL: the end of the
                      process.
    max_result_bytes  of a result; 16 MiB.
    max_bytes         that the file may grow to; by default as the disk allows.
    max_batch         calls in one transaction; 64.

    It offers idempotency and leases. After a fork both processes may go on with it.
    """

    def __init__(
        self,
        path: Union[str, bytes, os.PathLike[str]],
        *,
        synchronous: Optional[Synchronous] = None,
        max_result_bytes: Optional[int] = None,
        max_bytes: Optional[int] = None,
        max_batch: Optional[int] = None,
        on_error: Optional[OnStoreError] = None,
        timeout: Optional[Duration] = None,
        max_failures: Optional[int] = None,
        max_calls: Optional[int] = None,
        open: Optional[Duration] = None,
        open_max: Optional[Duration] = None,
    ) -> None:
        library = _sqlite()
        config = sized(sqlite.agr_sqlite_config)
        library.agr_sqlite_config_init(byref(config), config.struct_size)
        sizes = {"max_result_bytes": max_result_bytes, "max_bytes": max_bytes, "max_batch": max_batch}
        fill(config, {"synchronous": synchronous, **sizes})
        # A NUL would end the path early; no path has one.
        config.path = os.fsencode(path).replace(b"\0", b"/\xff/")
        driver, error = c.agr_store_driver(), c.agr_error()
        check(library.agr_sqlite_open(byref(config), byref(driver), byref(error)), error)
        self._own(driver, on_error, timeout, max_failures, max_calls, open, open_max)


def options(scope: object, **values: object) -> Any:
    """How an object lies in a store; None for one that lies elsewhere."""
    how = initialised(c.agr_store_options)
    fill(how, values)
    if isinstance(scope, Store):
        return how
    for name, given in values.items():
        if given is not None:
            raise ArgumentError(f"{name} is for an object in a store", name)
    return None
