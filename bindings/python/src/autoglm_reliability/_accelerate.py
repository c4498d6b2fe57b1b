# SPDX-License-Identifier: Apache-2.0
"""The optional accelerator: the hot paths in C, where it was built, and its absence everywhere else."""

from __future__ import annotations

import importlib.util
import os
from importlib.machinery import EXTENSION_SUFFIXES, ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, TypeVar

from . import _generated as c
from ._ffi import HERE, addressof, function_address, lib, raise_error
from .errors import LibraryError

FILE = "_accelerator.abi3.so"
# As in _accelerator.c.
INTERFACE = 3
# 0: do without it. 1: fail if it cannot be used. Otherwise it is used if it is there.
ENVIRONMENT = "AUTOGLM_RELIABILITY_ACCELERATOR"

T = TypeVar("T")


def _load() -> Any:
    wanted = os.environ.get(ENVIRONMENT, "")
    if wanted == "0":
        return None
    reason = f"this Python loads no {FILE}"
    # An interpreter without the stable ABI, or without a global lock, does not load such files.
    if ".abi3.so" in EXTENSION_SUFFIXES:
        reason = f"there is no {FILE} in the package or beside the library"
        for place in (HERE, Path(lib.path).resolve().parent):
            if (place / FILE).is_file():
                try:
                    return _import(place / FILE)
                except ImportError as error:
                    reason = str(error)
    if wanted == "1":
        raise LibraryError(f"cannot use the accelerator: {reason}")
    return None


def _import(file: Path) -> Any:
    name = f"{__package__}._accelerator"
    loader = ExtensionFileLoader(name, str(file))
    spec = importlib.util.spec_from_file_location(name, file, loader=loader)
    assert spec is not None
    module: Any = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    found = getattr(module, "INTERFACE", 0), module.MAJOR, module.MINOR
    if found != (INTERFACE, c.AGR_VERSION_MAJOR, c.AGR_VERSION_MINOR):
        raise ImportError(f"{file} is of another version: build it again")
    module.connect(function_address)
    return module


_accelerator = _load()

if TYPE_CHECKING or _accelerator is None:
    from ._plain import AttemptBase, NativeBase, PermitBase
else:
    AttemptBase, NativeBase = _accelerator.Attempt, _accelerator.Native
    PermitBase = _accelerator.Permit

__all__ = ["AttemptBase", "NativeBase", "PermitBase", "accelerated", "in_use", "register"]


def in_use() -> bool:
    return _accelerator is not None


def accelerated(name: str) -> Callable[[T], T]:
    """Puts the accelerator's method, which does the plain case itself, in the place of a Python method,
    which remains what it means."""

    def replace(method: T) -> T:
        return method if _accelerator is None else _accelerator.method(name, method)

    return replace


def register(name: str) -> Callable[[T], T]:
    """Tells the accelerator what it needs of Python's."""

    def tell(thing: T) -> T:
        if _accelerator is not None:
            _accelerator.register(name, thing)
        return thing

    return tell


@register("raise_error")
def _raise(status: int, error: bytes) -> None:
    raise_error(status, c.agr_error.from_buffer_copy(error))


register("address")(addressof)
