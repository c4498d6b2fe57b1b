# SPDX-License-Identifier: Apache-2.0
"""How a transport does its work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Callable, Optional, Union

from ..backoff import Backoff
from ..breaker import CircuitBreaker
from ..budget import RetryBudget
from ..enums import Jitter, Strategy
from ..errors import ArgumentError
from ..policy import Policy
from ..retry import Retry

PolicyOption = Union[Policy, Callable[[str], Policy], None]
IDEMPOTENCY_KEY = "Idempotency-Key"


def default_policy(origin: str) -> Policy:
    """What a transport uses for an origin when it is told nothing else; made for calls to a language model:
    three attempts with full jitter from 0.5 s, at most a fifth of the requests repeated, a breaker that opens
    at half of the last 20 or more failed, ten minutes in all."""
    del origin
    return Policy(
        retry=Retry(
            Backoff(
                strategy=Strategy.EXPONENTIAL, jitter=Jitter.FULL, base_delay=0.5, max_delay=8, max_attempts=3
            )
        ),
        budget=RetryBudget(),
        breaker=CircuitBreaker(failure_rate=0.5, minimum_calls=20),
        max_calls=4096,  # as many as the breaker tells apart
        total_timeout=600,
        connect_timeout=5,
        first_byte_timeout=300,
        idle_timeout=60,
    )


@dataclass(frozen=True)
class Options:
    """
    policy                 a function of the origin ("https://api.example") that makes its Policy; a Policy,
                           for all origins together; None: default_policy, one an origin.
    costs                  a function of the request that estimates its cost, one number a limiter of the
                           policy; chat_costs is one. The last is then settled by the usage in the answer.
                           None: 1.
    idempotency_header     sent with POST and PATCH, the same for every attempt, unless the request has it;
                           "": none is sent, and what may have been executed is then not repeated.
    propagate              whether the attempt and the time left are sent in headers; yes.
    nested_retries         retry also for a request whose own caller retries; no.
    retry_after_first_byte when a stream breaks, make the request again and go on where it broke, if what was
                           passed on comes again byte by byte; no.
    hold_json              an answer in JSON of at most so many bytes is passed on once it is whole, so that
                           one which breaks can be asked for again; 1 MiB; 0: it is passed on as it comes.
    buffer_body            a request body that can be sent only once is kept for repetition if its
                           Content-Length is at most so many bytes; 1 MiB.
    max_pause              the longest that a new request waits because the server has told an earlier one
                           when to come back; a longer one is refused as RateLimited; 30 s.
    max_hosts              origins whose state is kept, the latest used; 256.
    """

    policy: PolicyOption = None
    costs: Optional[Callable[[Any], Sequence[int]]] = None
    idempotency_header: str = IDEMPOTENCY_KEY
    propagate: bool = True
    nested_retries: bool = False
    retry_after_first_byte: bool = False
    hold_json: int = 1 << 20
    buffer_body: int = 1 << 20
    max_pause: float = 30.0
    max_hosts: int = 256

    def __post_init__(self) -> None:
        if not (self.policy is None or isinstance(self.policy, Policy) or callable(self.policy)):
            raise TypeError("policy: a Policy or a function that makes one is needed")
        if self.costs is not None and not callable(self.costs):
            raise TypeError("costs: a function is needed")
        if not isinstance(self.idempotency_header, str):
            raise TypeError("idempotency_header: a str is needed")
        if not self.idempotency_header.isascii():
            raise ArgumentError("idempotency_header: the name of a header is ASCII", "idempotency_header")
        for name in ("hold_json", "buffer_body", "max_pause"):
            if not getattr(self, name) >= 0:
                raise ArgumentError(f"{name} must not be negative", name)
        if not self.max_hosts >= 1:
            raise ArgumentError("max_hosts must be at least 1", "max_hosts")
