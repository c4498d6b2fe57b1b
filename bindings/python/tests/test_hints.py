# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_reliability import ArgumentError, Hint, ParseError, hint_from_headers, parse_hint

# 1994-11-06 08:49:37 UTC
THEN = 784111777.0


@pytest.mark.parametrize(
    ("kind", "text", "wanted"),
    [
        (Hint.RETRY_AFTER, "120", 120),
        (Hint.RETRY_AFTER, " 1.5 ", 1.5),
        (Hint.RETRY_AFTER, "Sun, 06 Nov 1994 08:49:47 GMT", 10),
        (Hint.RETRY_AFTER, "Sunday, 06-Nov-94 08:49:47 GMT", 10),
        (Hint.RETRY_AFTER, "Sun Nov  6 08:49:47 1994", 10),
        (Hint.RETRY_AFTER, "Sun, 06 Nov 1994 08:49:27 GMT", 0),
        (Hint.RETRY_AFTER_MS, "250", 0.25),
        (Hint.RETRY_AFTER_MS, "0.5", 0.0005),
        (Hint.DURATION, "6m0s", 360),
        (Hint.DURATION, "20ms", 0.02),
        (Hint.DURATION, "1h2m3.5s", 3723.5),
    ],
)
def test_a_hint_is_read(kind: Hint, text: str, wanted: float) -> None:
    assert parse_hint(kind, text, wall_now=THEN) == wanted
    assert parse_hint(kind, text.encode(), wall_now=THEN) == wanted


@pytest.mark.parametrize("text", ["", "soon", "-1", "1e9", "6m0", "Mon, 99 Foo 1994", "1" * 200])
def test_what_is_no_hint_is_refused(text: str) -> None:
    with pytest.raises((ParseError, ArgumentError)):
        parse_hint(Hint.RETRY_AFTER, text, wall_now=THEN)


@given(st.binary(max_size=140), st.sampled_from(list(Hint)))
def test_any_bytes_give_a_delay_or_an_error(text: bytes, kind: Hint) -> None:
    try:
        assert parse_hint(kind, text, wall_now=THEN) >= 0
    except (ParseError, ArgumentError) as error:
        assert str(error)


def test_headers_are_looked_through_in_the_order_of_their_precision() -> None:
    assert hint_from_headers({"retry-after-ms": "250", "Retry-After": "9"}) == 0.25
    assert hint_from_headers({"retry-after": "9"}) == 9
    assert hint_from_headers({"retry-after-ms": "soon", "Retry-After": "9"}) == 9
    assert hint_from_headers({"Retry-After": "soon"}) is None
    assert hint_from_headers({}) is None
    assert hint_from_headers(None) is None
