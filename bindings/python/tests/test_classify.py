# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import asyncio
import errno
import http.client
import io
import socket
import urllib.error
from datetime import timedelta
from email.message import Message
from typing import Any

import pytest

from autoglm_reliability import (
    AttemptOutcome,
    CircuitOpen,
    DeadlineExceeded,
    Domain,
    ErrorClass,
    Outcome,
    RateLimited,
    Refused,
    default_classify,
)
from autoglm_reliability.classify import as_outcome, breaker_outcome, class_of


class ReadTimeout(Exception):
    pass


class ConnectTimeout(ReadTimeout):
    pass


class Reply:
    def __init__(self, status_code: int, headers: dict[str, str]) -> None:
        self.status_code = status_code
        self.headers = headers


class StatusError(Exception):
    def __init__(self, **attributes: Any) -> None:
        super().__init__("status")
        vars(self).update(attributes)


def http_error(code: int, **headers: str) -> urllib.error.HTTPError:
    message = Message()
    for name, value in headers.items():
        message[name.replace("_", "-")] = value
    return urllib.error.HTTPError("http://127.0.0.1", code, "said no", message, io.BytesIO())


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (asyncio.CancelledError(), ErrorClass.CANCELLED),
        (KeyboardInterrupt(), ErrorClass.CANCELLED),
        (GeneratorExit(), ErrorClass.CANCELLED),
        (TimeoutError(), ErrorClass.UNKNOWN),
        (asyncio.TimeoutError(), ErrorClass.UNKNOWN),
        (socket.timeout(), ErrorClass.UNKNOWN),
        (ReadTimeout(), ErrorClass.UNKNOWN),
        (ConnectTimeout(), ErrorClass.TRANSIENT),
        (EOFError(), ErrorClass.UNKNOWN),
        (ConnectionRefusedError(errno.ECONNREFUSED, "no"), ErrorClass.TRANSIENT),
        (ConnectionResetError(errno.ECONNRESET, "no"), ErrorClass.UNKNOWN),
        (http.client.RemoteDisconnected("no"), ErrorClass.UNKNOWN),
        (urllib.error.URLError(ConnectionResetError(errno.ECONNRESET, "no")), ErrorClass.UNKNOWN),
        (urllib.error.URLError(ConnectionRefusedError(errno.ECONNREFUSED, "no")), ErrorClass.TRANSIENT),
        (urllib.error.URLError(socket.gaierror(-2, "unknown name")), ErrorClass.TRANSIENT),
        (BrokenPipeError(errno.EPIPE, "no"), ErrorClass.UNKNOWN),
        (StatusError(status=503), ErrorClass.TEMPORARY),
        (StatusError(status_code=400), ErrorClass.PERMANENT),
        (StatusError(response=Reply(429, {})), ErrorClass.TEMPORARY),
        (StatusError(status="503"), ErrorClass.TRANSIENT),
        (http_error(502), ErrorClass.TRANSIENT),
        (RateLimited(retry_after=2), ErrorClass.TEMPORARY),
        (CircuitOpen(retry_after=2), ErrorClass.TEMPORARY),
        (DeadlineExceeded(), ErrorClass.PERMANENT),
        (Refused(), ErrorClass.PERMANENT),
        (KeyError("k"), ErrorClass.TRANSIENT),
    ],
    ids=repr,
)
def test_an_exception_is_read_as_it_should_be(error: BaseException, wanted: ErrorClass) -> None:
    assert class_of(default_classify(error)) is wanted


@pytest.mark.parametrize(
    ("error", "hint"),
    [
        (StatusError(status=503, retry_after=1.5), 1.5),
        (StatusError(retry_after=timedelta(seconds=3)), 3.0),
        (StatusError(retry_after=float("inf")), float("inf")),
        (StatusError(retry_after=1e30), float("inf")),
        (StatusError(retry_after=-1), None),
        (StatusError(retry_after=float("nan")), None),
        (StatusError(retry_after=True), None),
        (StatusError(response=Reply(429, {"Retry-After": "7"})), 7.0),
        (StatusError(response=Reply(429, {"retry-after-ms": "7"})), 0.007),
        (http_error(503, Retry_After="4"), 4.0),
        (http_error(503, Retry_After="soon"), None),
        (KeyError(), None),
    ],
    ids=repr,
)
def test_a_servers_hint_is_found(error: BaseException, hint: object) -> None:
    assert default_classify(error).server_delay == hint


def test_a_code_is_passed_on_for_the_policys_own_rules() -> None:
    outcome = default_classify(StatusError(status=418))
    assert (outcome.error_class, outcome.domain, outcome.code) == (None, Domain.HTTP, 418)


@pytest.mark.parametrize(
    ("verdict", "wanted"),
    [
        (ErrorClass.SUCCESS, Outcome.SUCCESS),
        (ErrorClass.TRANSIENT, Outcome.FAILURE),
        (ErrorClass.TEMPORARY, Outcome.BACKPRESSURE),
        (ErrorClass.PERMANENT, Outcome.NEUTRAL),
        (ErrorClass.CANCELLED, Outcome.NEUTRAL),
        (ErrorClass.UNKNOWN, Outcome.FAILURE),
        (AttemptOutcome.http(200), Outcome.SUCCESS),
        (AttemptOutcome.http(429), Outcome.BACKPRESSURE),
        (AttemptOutcome(domain=Domain.USER, code=5), Outcome.FAILURE),
    ],
)
def test_a_breaker_sees_a_verdict_in_its_own_terms(verdict: Any, wanted: Outcome) -> None:
    assert breaker_outcome(verdict) is wanted


def test_a_class_alone_is_a_verdict_too() -> None:
    assert as_outcome(ErrorClass.PERMANENT).error_class is ErrorClass.PERMANENT
    with pytest.raises(ValueError, match="99"):
        as_outcome(99)  # type: ignore[arg-type]
