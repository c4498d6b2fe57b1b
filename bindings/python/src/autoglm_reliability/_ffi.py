# SPDX-License-Identifier: Apache-2.0
"""The bridge to the native library: nothing but this module and the generated one knows ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable
from ctypes import Structure, addressof, byref, cast, pointer
from ctypes import c_int32 as Int32
from ctypes import c_int64 as Int64
from ctypes import c_size_t as Size
from ctypes import c_uint32 as Uint32
from ctypes import c_uint64 as Uint64
from ctypes import c_void_p as Pointer
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import _generated as c
from .errors import (
    ArgumentError,
    CapacityError,
    LibraryError,
    MismatchError,
    NeverFits,
    OutOfMemory,
    ParseError,
    RegionError,
    ReliabilityError,
    StateError,
    StoreError,
    SystemFailure,
)

__all__ = [
    "HERE",
    "RENAMED",
    "Int32",
    "Int64",
    "Library",
    "Pointer",
    "Size",
    "StoreLibrary",
    "Structure",
    "Uint32",
    "Uint64",
    "address_of",
    "addressof",
    "byref",
    "bytes_at",
    "check",
    "encoded",
    "field_types",
    "function_address",
    "initialised",
    "integer_range",
    "lib",
    "pinned_buffer",
    "pointer",
    "python_name",
    "raise_error",
    "sized",
    "spare_error",
    "spare_errors",
    "text_buffer",
    "untyped",
]

FILE = "libautoglm_reliability.so"
ENVIRONMENT = "AUTOGLM_RELIABILITY_LIB"
HERE = Path(__file__).resolve().parent

# Fields whose Python name is not the C name without its unit.
RENAMED = {"window_ns": "window_duration"}


def candidates() -> list[str]:
    """Where the library may be, the first that exists first."""
    named = os.environ.get(ENVIRONMENT)
    if named:
        return [named]
    places = [HERE / FILE]
    if len(HERE.parents) > 3:
        checkout = HERE.parents[3]
        if (checkout / "include" / "autoglm_reliability.h").is_file():
            places.append(checkout / ".build-embedded" / "release" / FILE)
    return [str(place) for place in places if place.is_file()] + [f"{FILE}.0", FILE]


class Library:
    """The library's functions, each bound when it is first used.

    A function that returns at once keeps the interpreter's lock (PyDLL), which is faster than giving
    it up and taking it back, and makes the call atomic with respect to other Python threads. One
    that may block gives it up (CDLL).
    """

    def __init__(self) -> None:
        self._quick, self._blocking = self._load()
        self._waiting: dict[str, Callable[..., Any]] = {}
        major, minor = (int(part) for part in self.version().split(".")[:2])
        if major != c.AGR_VERSION_MAJOR or minor < c.AGR_VERSION_MINOR:
            wanted = f"{c.AGR_VERSION_MAJOR}.{c.AGR_VERSION_MINOR}"
            raise LibraryError(f"{self._quick._name} is version {self.version()}, {wanted} is needed")

    @staticmethod
    def _load() -> tuple[ctypes.PyDLL, ctypes.CDLL]:
        reasons = []
        for place in candidates():
            try:
                return ctypes.PyDLL(place), ctypes.CDLL(place)
            except OSError as error:
                reasons.append(str(error))
        detail = "; ".join(reasons)
        raise LibraryError(f"cannot load {FILE} (set {ENVIRONMENT} to its path): {detail}")

    @property
    def path(self) -> str:
        """The file, or the name that the system's loader was given."""
        return self._quick._name

    def version(self) -> str:
        text: bytes = self.agr_version()
        return text.decode("ascii")

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name not in c.FUNCTIONS:
            raise AttributeError(name)
        try:
            function = (self._blocking if name in c.BLOCKING else self._quick)[name]
        except AttributeError as error:
            raise LibraryError(f"the library has no function {name}") from error
        function.restype, function.argtypes = c.FUNCTIONS[name]
        setattr(self, name, function)
        return function

    def waiting(self, name: str) -> Callable[..., Any]:
        """A function that returns at once for an object of this process, and waits for an object in a store:
        without the interpreter's lock."""
        function = self._waiting.get(name)
        if function is None:
            function = self._blocking[name]
            function.restype, function.argtypes = c.FUNCTIONS[name]
            self._waiting[name] = function
        return function


class StoreLibrary:
    """A store's own library, libautoglm_reliability_NAME.so: beside the main one, or where the environment
    variable AUTOGLM_RELIABILITY_NAME_LIB says."""

    def __init__(self, name: str, functions: dict[str, tuple[Any, tuple[Any, ...]]]) -> None:
        file = f"libautoglm_reliability_{name}.so"
        variable = f"AUTOGLM_RELIABILITY_{name.upper()}_LIB"
        named = os.environ.get(variable)
        beside = [Path(place).resolve().parent / file for place in candidates() if os.sep in place]
        places = [named] if named else [str(p) for p in beside if p.is_file()] + [f"{file}.0", file]
        self._library = self._load(places, file, variable)
        for function, (restype, argtypes) in functions.items():
            found = getattr(self._library, function)
            found.restype, found.argtypes = restype, argtypes
            setattr(self, function, found)

    @staticmethod
    def _load(places: list[str], file: str, variable: str) -> ctypes.CDLL:
        reasons = []
        for place in places:
            try:
                return ctypes.CDLL(place)
            except OSError as error:
                reasons.append(str(error))
        raise LibraryError(f"cannot load {file} (set {variable} to its path): {'; '.join(reasons)}")

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Callable[..., Any]: ...


lib = Library()


def untyped(name: str) -> Callable[..., int]:
    """A function that returns a status at once and converts nothing: every argument is an object of
    ctypes, None or, for a pointer, bytes. What a hot path calls, which has its arguments ready."""
    function: Callable[..., int] = lib._quick[name]
    return function


# Errors for hot paths, each with the reference to it that C is given. Popping and appending are atomic:
# nobody shares one.
spare_errors: list[tuple[c.agr_error, Any]] = []


def spare_error() -> tuple[c.agr_error, Any]:
    """To be appended to spare_errors again after the call, unless it was written to."""
    try:
        return spare_errors.pop()
    except IndexError:
        error = c.agr_error()
        return error, byref(error)


def encoded(name: str | None) -> bytes | None:
    """A name as C has it; what is not ASCII, or ends before its end, the library refuses."""
    if name is None:
        return None
    if not isinstance(name, str):
        raise TypeError(f"name: str is needed, not {type(name).__name__}")
    return name.encode("utf-8", "replace").replace(b"\0", b"/")


@cache
def field_types(structure: type[Structure]) -> dict[str, Any]:
    return {entry[0]: entry[1] for entry in structure._fields_}


@cache
def integer_range(kind: Any) -> tuple[int, int] | None:
    """The least and the greatest value of an integer type; None for any other type."""
    if not issubclass(kind, ctypes._SimpleCData) or kind in (ctypes.c_double, Pointer):
        return None
    bits = 8 * ctypes.sizeof(kind)
    signed = bool(kind(-1).value < 0)
    return (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)


def python_name(field: str) -> str:
    """The Python argument that a field of a C structure comes from."""
    last = field.rpartition(".")[2]
    renamed = RENAMED.get(last, last[:-3] if last.endswith("_ns") else last)
    return field[: len(field) - len(last)] + renamed


def function_address(name: str) -> int:
    return cast(getattr(lib, name), Pointer).value or 0


def address_of(data: bytes) -> Any:
    """A pointer to data, which the caller keeps alive for as long as it is used."""
    return cast(ctypes.c_char_p(data), Pointer)


def bytes_at(address: int, length: int) -> bytes:
    return ctypes.string_at(address, length)


def text_buffer(size: int) -> Any:
    return ctypes.create_string_buffer(size)


def pinned_buffer(address: int, length: int) -> Any:
    """An object which exports the memory at address; a memoryview of it keeps the object alive."""
    return (ctypes.c_char * length).from_address(address)


def sized(structure: type[Any]) -> Any:
    """A structure whose struct_size is set, for the library to fill in."""
    return structure(struct_size=ctypes.sizeof(structure))


def initialised(structure: type[Any]) -> Any:
    """A structure with the library's defaults."""
    value = structure()
    getattr(lib, f"{structure.__name__}_init")(byref(value), ctypes.sizeof(structure))
    return value


# Those that have nothing but a message.
PLAIN_ERRORS: dict[int, type[ReliabilityError]] = {
    c.AGR_ERR_NO_MEMORY: OutOfMemory,
    c.AGR_ERR_PARSE: ParseError,
    c.AGR_ERR_REGION: RegionError,
    c.AGR_ERR_STATE: StateError,
    c.AGR_ERR_STORE: StoreError,
}


def raise_error(status: int, error: c.agr_error) -> None:
    """Turns a negative status into an exception."""
    field = python_name(error.field.decode("utf-8", "replace"))
    text = error.message.decode("utf-8", "replace") or lib.agr_status_name(status).decode("ascii")
    message = f"{field}: {text}" if field and field not in text else text
    if status == c.AGR_ERR_ARGUMENT:
        raise ArgumentError(message, field)
    if status == c.AGR_ERR_CAPACITY:
        raise CapacityError(message, field=field)
    if status == c.AGR_ERR_NEVER_FITS:
        raise NeverFits(message, retry_after=float("inf"), field=field)
    if status == c.AGR_ERR_MISMATCH:
        raise MismatchError(message, field)
    if status == c.AGR_ERR_SYSTEM:
        raise SystemFailure(error.system_errno, message)
    raise PLAIN_ERRORS.get(status, ReliabilityError)(message)


def check(status: int, error: c.agr_error) -> int:
    """The status itself, when it is an answer."""
    if status < 0:
        raise_error(status, error)
    return status


if sys.platform != "linux":
    raise LibraryError(f"autoglm_reliability runs on Linux, not on {sys.platform}")
