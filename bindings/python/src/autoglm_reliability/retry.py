# SPDX-License-Identifier: Apache-2.0
"""Which failures are repeated, how often, and how far a server's hint is followed."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Optional

from . import _generated as c
from ._convert import Duration, fill, identifier, integer, nanoseconds, seconds, unsigned
from ._ffi import Int32, Int64, Uint32, byref, check, initialised, lib
from .backoff import Backoff
from .enums import Domain, ErrorClass, Preset
from .errors import ArgumentError


@dataclass(frozen=True)
class RetryRule:
    """The codes code_min ... code_max of a domain, and what they get.

    max_retries  for this reason; None: only the backoff's max_attempts bounds them.
    first_delay  TRANSIENT: in place of base_delay; TEMPORARY: the fixed delay; None: the default.
    """

    domain: Domain
    code_min: int
    code_max: int
    error_class: ErrorClass
    max_retries: Optional[int] = None
    first_delay: Optional[float] = None

    def _write(self, rule: c.agr_retry_rule) -> None:
        rule.domain = integer(self.domain, "domain", Int32)
        rule.code_min = integer(self.code_min, "code_min", Int32)
        rule.code_max = integer(self.code_max, "code_max", Int32)
        rule.error_class = integer(self.error_class, "error_class", Int32)
        retries, delay = self.max_retries, self.first_delay
        rule.max_retries = c.AGR_RETRIES_DEFAULT if retries is None else unsigned(retries, "max_retries")
        rule.first_delay_ns = c.AGR_DELAY_DEFAULT if delay is None else nanoseconds(delay, "first_delay")

    @classmethod
    def _read(cls, rule: c.agr_retry_rule) -> RetryRule:
        return cls(
            Domain(rule.domain),
            rule.code_min,
            rule.code_max,
            ErrorClass(rule.error_class),
            None if rule.max_retries == c.AGR_RETRIES_DEFAULT else rule.max_retries,
            None if rule.first_delay_ns == c.AGR_DELAY_DEFAULT else seconds(rule.first_delay_ns),
        )


class Retry:
    """A backoff, a table of rules, and the limits of what a server may ask for. Immutable.

    rules                the first that matches decides; none: default_rules().
    temporary_delay      for TEMPORARY failures without a hint; 1 s.
    max_server_delay     a longer hint means: give up; 120 s.
    server_delay_spread  a hint t is waited for t ... t + spread; 5 s.
    retry_unknown        repeat what was sent and had no reply, without a key too; no.
    """

    def __init__(
        self,
        backoff: Optional[Backoff] = None,
        *,
        rules: Iterable[RetryRule] = (),
        temporary_delay: Optional[Duration] = None,
        max_server_delay: Optional[Duration] = None,
        server_delay_spread: Optional[Duration] = None,
        retry_unknown: Optional[bool] = None,
    ) -> None:
        self._config: c.agr_retry_config = initialised(c.agr_retry_config)
        if backoff is not None:
            self._config.backoff = backoff._config
        fill(
            self._config,
            {
                "temporary_delay": temporary_delay,
                "max_server_delay": max_server_delay,
                "server_delay_spread": server_delay_spread,
                "retry_unknown": retry_unknown,
            },
        )
        self._use(tuple(rules))

    def _use(self, rules: tuple[RetryRule, ...]) -> None:
        table: Any = (c.agr_retry_rule * max(1, len(rules)))()
        for place, rule in zip(table, rules):
            rule._write(place)
        self._table = table  # the configuration points into it
        self._config.rules = table if rules else None
        self._config.rule_count = len(rules)
        self.classify(Domain.USER, 0)
        self.decide(1, RetryRule(Domain.USER, 0, 0, ErrorClass.TRANSIENT), random=0)

    @classmethod
    def preset(cls, preset: Preset) -> Retry:
        self = cls()
        error = c.agr_error()
        number = integer(preset, "preset", Int32)
        check(lib.agr_retry_config_preset(byref(self._config), number, byref(error)), error)
        return self

    @staticmethod
    def default_rules() -> list[RetryRule]:
        count, error = Uint32(), c.agr_error()
        check(lib.agr_retry_rules_default(None, 0, byref(count), byref(error)), error)
        table: Any = (c.agr_retry_rule * count.value)()
        check(lib.agr_retry_rules_default(table, count.value, byref(count), byref(error)), error)
        return [RetryRule._read(rule) for rule in table]

    def classify(self, domain: Domain, code: int) -> RetryRule:
        """The rule which a code falls under; one for TRANSIENT when there is none."""
        rule, error = c.agr_retry_rule(), c.agr_error()
        status = lib.agr_retry_classify(
            byref(self._config),
            integer(domain, "domain", Int32),
            integer(code, "code", Int32),
            byref(rule),
            byref(error),
        )
        if check(status, error) == c.AGR_NOT_FOUND:
            return RetryRule(Domain(domain), code, code, ErrorClass.TRANSIENT)
        return RetryRule._read(rule)

    def decide(
        self,
        attempt: int,
        rule: RetryRule,
        *,
        reason_retries: int = 0,
        has_key: bool = False,
        previous: Duration = 0,
        server_delay: Optional[Duration] = None,
        random: Optional[int] = None,
    ) -> Optional[float]:
        """Seconds to wait before the next attempt; None: do not make one.

        server_delay  what the server asked for; math.inf: never retry.
        """
        delay, error, c_rule = Int64(), c.agr_error(), c.agr_retry_rule()
        rule._write(c_rule)
        hint = -1 if server_delay is None else nanoseconds(server_delay, "server_delay", forever=True)
        status = lib.agr_retry_decide(
            byref(self._config),
            unsigned(attempt, "attempt"),
            unsigned(reason_retries, "reason_retries"),
            byref(c_rule),
            int(has_key),
            nanoseconds(previous, "previous"),
            hint,
            lib.agr_random() if random is None else identifier(random, "random"),
            byref(delay),
            byref(error),
        )
        return None if check(status, error) == c.AGR_EXHAUSTED else seconds(delay.value)


def as_retry(value: Retry | Backoff | None) -> Optional[Retry]:
    if value is None or isinstance(value, Retry):
        return value
    if isinstance(value, Backoff):
        return Retry(value)
    raise ArgumentError("retry must be a Retry or a Backoff", "retry")
