# SPDX-License-Identifier: Apache-2.0
"""Between Python's values and C's. Nothing is cut, wrapped or replaced on the way: what does not fit
is refused by name."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Optional, TypeVar, Union

from . import _generated as c
from ._ffi import RENAMED, Int64, Structure, Uint32, Uint64, field_types, integer_range
from .errors import ArgumentError

Duration = Union[int, float, timedelta]
Bytes = Union[str, bytes, bytearray, memoryview]
T = TypeVar("T")

NANOSECOND = 1_000_000_000


def nanoseconds(value: object, name: str, *, forever: bool = False) -> int:
    """Seconds, or a timedelta, as whole nanoseconds. math.inf is AGR_FOREVER where that is allowed."""
    if isinstance(value, timedelta):
        count = (value.days * 86_400 + value.seconds) * NANOSECOND + value.microseconds * 1000
    elif isinstance(value, int) and not isinstance(value, bool):
        count = value * NANOSECOND
    elif isinstance(value, float):
        if math.isnan(value):
            raise ArgumentError(f"{name} is not a number", name)
        if math.isinf(value):
            if value > 0 and forever:
                return c.AGR_FOREVER
            raise ArgumentError(f"{name} must be finite", name)
        count = round(value * NANOSECOND) if abs(value) < 1e12 else int(value) * NANOSECOND
    else:
        raise TypeError(f"{name}: seconds or a timedelta are needed, not {type(value).__name__}")
    if count < 0:
        raise ArgumentError(f"{name} must not be negative", name)
    if count > c.AGR_TIME_MAX_NS:
        raise ArgumentError(f"{name} is longer than {c.AGR_TIME_MAX_NS // NANOSECOND} s", name)
    return count


def seconds(count: int) -> float:
    return math.inf if count == c.AGR_FOREVER else count / NANOSECOND


def retry_after(count: int) -> Optional[float]:
    """A time until something clears, where 0 means that it is not known."""
    return None if count == 0 else seconds(count)


def integer(value: object, name: str, kind: Any = Int64) -> int:
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name}: an integer is needed, not {type(value).__name__}") from None
    low, high = integer_range(kind) or (0, 0)
    if not low <= number <= high:
        raise ArgumentError(f"{name} must be {low} ... {high}, not {number}", name)
    return number


def unsigned(value: object, name: str) -> int:
    return integer(value, name, Uint32)


def identifier(value: object, name: str) -> int:
    return integer(value, name, Uint64)


def octets(value: Bytes, name: str) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode("utf-8")
    if isinstance(value, (bytearray, memoryview)):
        return bytes(value)
    raise TypeError(f"{name}: str or bytes are needed, not {type(value).__name__}")


def fill(config: Any, values: Mapping[str, object], forever: frozenset[str] = frozenset()) -> None:
    """Writes the values which are not None into the fields of their names."""
    structure: Any = type(config)
    types = field_types(structure)
    c_names = {python: field for field, python in RENAMED.items()}
    for name, value in values.items():
        if value is None:
            continue
        field = c_names.get(name, name if name in types else f"{name}_ns")
        kind = types[field]
        if field.endswith("_ns"):
            setattr(config, field, nanoseconds(value, name, forever=name in forever))
        elif integer_range(kind) is not None:
            setattr(config, field, integer(value, name, kind))
        else:
            setattr(config, field, real(value, name))


def real(value: object, name: str) -> float:
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        number = float(value)
        if math.isnan(number):
            raise ArgumentError(f"{name} is not a number", name)
        return number
    raise TypeError(f"{name}: a number is needed, not {type(value).__name__}")


def record(kind: type[T], structure: Structure, **given: object) -> T:
    """A dataclass from a structure which has its fields: durations in seconds, enums as enums."""
    types = field_types(type(structure))
    values: dict[str, Any] = dict(given)
    for field in dataclasses.fields(kind):  # type: ignore[arg-type]
        if field.name in given:
            continue
        if f"{field.name}_ns" in types:
            values[field.name] = seconds(getattr(structure, f"{field.name}_ns"))
        else:
            values[field.name] = getattr(structure, field.name)
        convert = field.metadata.get("as")
        if convert is not None:
            values[field.name] = convert(values[field.name])
    return kind(**values)
