# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import calendar
from datetime import datetime, timedelta, timezone

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


DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]


@given(st.datetimes(datetime(1995, 1, 1), datetime(2064, 12, 31)), st.integers(0, 10**6))
def test_dates_of_every_month_and_format(now: datetime, later: int) -> None:
    now = now.replace(microsecond=0, tzinfo=timezone.utc)
    then = now + timedelta(seconds=later)
    day, month, time = DAYS[then.weekday()], MONTHS[then.month - 1], f"{then:%H:%M:%S}"
    wall = float(calendar.timegm(now.timetuple()))
    for text in (
        f"{day[:3]}, {then.day:02} {month} {then.year} {time} GMT",
        f"{day[:3]} {month} {then.day:2} {time} {then.year}",
    ):
        assert parse_hint(Hint.RETRY_AFTER, text, wall_now=wall) == later
    # Two digits of a year are those of the nearest such year, at most 50 ahead (RFC 9110).
    text = f"{day}, {then.day:02}-{month}-{then.year % 100:02} {time} GMT"
    assert parse_hint(Hint.RETRY_AFTER, text, wall_now=wall) == later


@pytest.mark.parametrize(
    "text",
    [
        "Sun, 29 Feb 2023 00:00:00 GMT",
        "Sun, 31 Apr 2023 00:00:00 GMT",
        "Sun, 00 Nov 1994 08:49:37 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:60:00 GMT",
        "Sun, 06 Nov 1994 08:49:37 CET",
        "Sun Nov 6 08:49:37 1994",
    ],
)
def test_no_such_date(text: str) -> None:
    with pytest.raises(ParseError):
        parse_hint(Hint.RETRY_AFTER, text, wall_now=THEN)


@pytest.mark.parametrize("day", ["Xyz", "Sunday", "Mon"])
def test_the_name_of_the_day_is_not_looked_at(day: str) -> None:
    assert parse_hint(Hint.RETRY_AFTER, f"{day}, 06 Nov 1994 08:49:47 GMT", wall_now=THEN) == 10


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
    date = {"retry-after": "Sun, 06 Nov 1994 08:49:47 GMT", "Date": "Sun, 06 Nov 1994 08:49:37 GMT"}
    assert hint_from_headers(date) == 10  # by the clock of the server, whatever this machine's says
    assert hint_from_headers({**date, "Date": "today"}) == 0
    assert hint_from_headers({**date, "Date": b"Sun, 06 Nov 1994 08:49:57 GMT"}) == 0
    assert hint_from_headers({}) is None
    assert hint_from_headers(None) is None
