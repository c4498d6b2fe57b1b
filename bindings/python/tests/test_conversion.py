# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import math
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_reliability import ArgumentError
from autoglm_reliability._convert import integer, nanoseconds, octets, seconds
from autoglm_reliability._ffi import Int32, Uint32, Uint64, python_name
from autoglm_reliability._generated import AGR_FOREVER, AGR_TIME_MAX_NS


@given(st.integers(0, AGR_TIME_MAX_NS // 1000))
def test_a_timedelta_is_exact(microseconds: int) -> None:
    value = timedelta(microseconds=microseconds)
    assert nanoseconds(value, "x") == microseconds * 1000


@given(st.integers(0, AGR_TIME_MAX_NS // 10**9))
def test_whole_seconds_are_exact(count: int) -> None:
    assert nanoseconds(count, "x") == count * 10**9


@given(st.floats(0, 1e6))
def test_float_seconds_are_rounded_to_the_nearest_nanosecond(value: float) -> None:
    assert abs(nanoseconds(value, "x") - value * 1e9) <= 0.5 + value * 1e-6


@given(st.integers(0, 2**53))
def test_nanoseconds_survive_the_way_there_and_back_within_a_floats_precision(count: int) -> None:
    assert abs(nanoseconds(seconds(count), "x") - count) <= max(1, count >> 51)


@pytest.mark.parametrize("value", [math.nan, -math.inf, -1e-3, -1, 1e30, 10**30, timedelta(-1)])
def test_what_is_no_duration_is_refused_by_name(value: object) -> None:
    with pytest.raises(ArgumentError, match="patience") as caught:
        nanoseconds(value, "patience", forever=True)
    assert caught.value.field == "patience"
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("value", ["1", None, True, b"1", [1]])
def test_what_is_no_number_is_a_type_error(value: object) -> None:
    with pytest.raises(TypeError, match="patience"):
        nanoseconds(value, "patience")


def test_infinity_is_for_ever_only_where_that_is_allowed() -> None:
    assert nanoseconds(math.inf, "x", forever=True) == AGR_FOREVER
    with pytest.raises(ArgumentError, match="x must be finite"):
        nanoseconds(math.inf, "x")
    assert seconds(AGR_FOREVER) == math.inf


@given(st.integers())
def test_an_integer_is_passed_on_whole_or_refused(value: int) -> None:
    for kind, low, high in ((Int32, -(2**31), 2**31 - 1), (Uint32, 0, 2**32 - 1), (Uint64, 0, 2**64 - 1)):
        if low <= value <= high:
            assert integer(value, "x", kind) == value
        else:
            with pytest.raises(ArgumentError):
                integer(value, "x", kind)


def test_text_becomes_utf8_and_bytes_stay() -> None:
    assert octets("ä", "key") == b"\xc3\xa4"
    assert octets(bytearray(b"a\0b"), "key") == b"a\0b"
    with pytest.raises(TypeError, match="key"):
        octets(7, "key")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "name"),
    [("open_ns", "open"), ("window_ns", "window_duration"), ("backoff.base_delay_ns", "backoff.base_delay")],
)
def test_fields_are_named_as_the_arguments_are(field: str, name: str) -> None:
    assert python_name(field) == name
