# SPDX-License-Identifier: Apache-2.0
"""What one layer tells the next about a request."""

from __future__ import annotations

import asyncio
import math
import time

import pytest

from autoglm_reliability.propagation import (
    ATTEMPT_HEADER,
    LONGEST_MS,
    TIMEOUT_HEADER,
    Inbound,
    current_inbound,
    outbound_headers,
    read_inbound,
    serving,
)


def test_what_is_sent_is_read():
    headers = outbound_headers(12.5, 3)
    before = time.monotonic()
    inbound = read_inbound(headers[TIMEOUT_HEADER], headers[ATTEMPT_HEADER])
    assert before + 12.5 <= inbound.deadline <= time.monotonic() + 12.5
    assert (inbound.attempt, inbound.retried_outside) == (3, True)
    assert 0 < inbound.remaining <= 12.5


def test_no_deadline_is_not_told():
    assert outbound_headers(math.inf, 1) == {ATTEMPT_HEADER: "1"}


def test_a_deadline_that_has_passed_is_zero_milliseconds():
    headers = outbound_headers(-3, 1)
    assert headers[TIMEOUT_HEADER] == "0"
    assert read_inbound("0", None).remaining == 0


UNREADABLE = [None, "", " 5", "5 ", "+5", "-5", "5.0", "1_0", "0x5", "\u0665", "nan", "9" * 5000]


@pytest.mark.parametrize("text", UNREADABLE)
def test_what_cannot_be_read_was_not_sent(text):
    assert read_inbound(text, text) == Inbound()
    assert not read_inbound(text, text).retried_outside


def test_the_longest_is_the_longest():
    assert read_inbound(str(9 * LONGEST_MS), None).remaining <= LONGEST_MS / 1e3


def test_it_is_known_where_the_request_is_served_and_in_its_tasks():
    async def inner() -> int:
        return current_inbound().attempt

    async def outer() -> int:
        with serving(Inbound(attempt=2)):
            task = asyncio.create_task(inner())
        assert current_inbound() == Inbound()
        return await task

    assert asyncio.run(outer()) == 2
