# SPDX-License-Identifier: Apache-2.0
"""Which of the two is in use, how that is chosen, and what only the accelerator could get wrong."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability
from autoglm_reliability import (
    AttemptOutcome,
    Backoff,
    CircuitBreaker,
    ClosedError,
    ErrorClass,
    KeyedRateLimiter,
    Permit,
    Policy,
    RateLimiter,
    Reservation,
    Retry,
    StepKind,
    _accelerate,
    _ffi,
)
from autoglm_reliability import _generated as c
from autoglm_reliability.attempt import Attempt
from autoglm_reliability.request import DEFAULTS

CHOSEN = os.environ.get(_accelerate.ENVIRONMENT)
METHODS: list[Any] = [
    RateLimiter.try_acquire,
    KeyedRateLimiter.try_acquire,
    KeyedRateLimiter.reserve,
    KeyedRateLimiter.available,
    KeyedRateLimiter._settle,
    CircuitBreaker.acquire,
    CircuitBreaker.guard,
    CircuitBreaker._run,
    Policy.execute,
    Policy._run,
    Policy._start,
]
with_accelerator = pytest.mark.skipif(not autoglm_reliability.accelerated, reason="without the accelerator")


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


TELL = "import autoglm_reliability as r; print(r.accelerated, r.RateLimiter(1, 0).try_acquire())"


@pytest.mark.skipif(CHOSEN not in ("0", "1"), reason="nothing was chosen")
def test_this_run_uses_what_was_chosen() -> None:
    assert autoglm_reliability.accelerated == (CHOSEN == "1")


def test_the_hot_paths_are_those_of_the_one_in_use() -> None:
    kind = types.MethodDescriptorType if autoglm_reliability.accelerated else types.FunctionType
    assert [type(method) for method in METHODS] == [kind] * len(METHODS)
    for base in (Permit.__base__, Attempt.__base__):
        assert base is not None
        assert base.__module__.endswith("_accelerator") == autoglm_reliability.accelerated


def test_it_can_be_switched_off() -> None:
    done = run(TELL, AUTOGLM_RELIABILITY_ACCELERATOR="0")
    assert (done.stdout, done.stderr) == ("False True\n", "")


@with_accelerator
@pytest.mark.parametrize("choice", ["", "1"])
def test_it_is_used_where_it_is(choice: str) -> None:
    done = run(TELL, AUTOGLM_RELIABILITY_ACCELERATOR=choice)
    assert (done.stdout, done.stderr) == ("True True\n", "")


@pytest.fixture
def alone(tmp_path: Path) -> Path:
    """The library in a directory of its own."""
    library = Path(_ffi.lib.path)
    if not library.is_file() or (_ffi.HERE / _accelerate.FILE).is_file():
        pytest.skip("the library or the accelerator has a fixed place")
    shutil.copyfile(library, tmp_path / _ffi.FILE)
    return tmp_path


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF is not all"])
def test_without_one_that_loads_there_is_ctypes(alone: Path, content: bytes | None) -> None:
    if content is not None:
        (alone / _accelerate.FILE).write_bytes(content)
    library = str(alone / _ffi.FILE)
    done = run(TELL, AUTOGLM_RELIABILITY_LIB=library, AUTOGLM_RELIABILITY_ACCELERATOR="")
    assert (done.stdout, done.stderr) == ("False True\n", "")
    done = run(TELL, AUTOGLM_RELIABILITY_LIB=library, AUTOGLM_RELIABILITY_ACCELERATOR="1")
    assert done.returncode != 0
    assert "LibraryError: cannot use the accelerator" in done.stderr


@with_accelerator
@pytest.mark.parametrize("constant", ["c.AGR_VERSION_MAJOR", "c.AGR_VERSION_MINOR", "a.INTERFACE"])
def test_one_of_another_version_is_not_used(constant: str) -> None:
    file = next(
        place / _accelerate.FILE
        for place in (_ffi.HERE, Path(_ffi.lib.path).resolve().parent)
        if (place / _accelerate.FILE).is_file()
    )
    program = f"""
import autoglm_reliability._generated as c
import autoglm_reliability._accelerate as a
from pathlib import Path
{constant} += 1
try:
    a._import(Path({str(file)!r}))
except ImportError as error:
    print("version" in str(error))
"""
    done = run(program)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_what_is_alive_at_the_end_makes_no_noise() -> None:
    program = """
import threading
from autoglm_reliability import CircuitBreaker, Policy, RateLimiter
breaker, policy, limiter = CircuitBreaker(), Policy(), RateLimiter(10**9, 10**6)
permit, dropped = breaker.acquire(), []
ring = [breaker.acquire()]
ring.append(ring)
def keep(attempt):
    dropped.append(attempt)
policy.execute(keep)
def busy():
    while True:
        limiter.try_acquire()
        with breaker.acquire():
            policy.execute(lambda attempt: attempt.number)
threading.Thread(target=busy, daemon=True).start()
class Late:
    def __del__(self):
        permit.success()
late = Late()
"""
    done = run(program)
    assert (done.returncode, done.stderr) == (0, "")


@with_accelerator
def test_other_interpreters_of_the_process_use_ctypes() -> None:
    if sys.version_info >= (3, 12):
        pytest.skip("interpreters with locks of their own do not load ctypes everywhere")
    program = f"""
import autoglm_reliability
import _xxsubinterpreters as interpreters
other = interpreters.create()
interpreters.run_string(other, {TELL + "; import sys; sys.stdout.flush()"!r})
interpreters.destroy(other)
print(autoglm_reliability.accelerated, autoglm_reliability.RateLimiter(1, 0).try_acquire())
"""
    done = run(program, AUTOGLM_RELIABILITY_ACCELERATOR="")
    assert (done.stdout, done.stderr) == ("False True\nTrue True\n", "")


@with_accelerator
def test_bad_arguments_of_what_is_internal_are_errors() -> None:
    breaker: Any = CircuitBreaker()
    permit: Any = breaker.acquire()
    kind: Any = Permit
    attempt: Any = Attempt
    policy: Any = Policy()
    for wrong in (
        (),
        (1, 2, 3, 4),
        (object(), 1, 1, None),
        (breaker, "1", 1, None),
        (breaker, 1, 1, None, 5),
    ):
        with pytest.raises(TypeError):
            kind(*wrong)
    for value in ("x", None):
        with pytest.raises(TypeError):
            permit._put_back(value)
    with pytest.raises(OverflowError):
        permit._put_back(2**64)
    for arguments in ((), (None,), (None,) * 4):
        with pytest.raises(TypeError):
            permit.__exit__(*arguments)
    for arguments in ((), (object(), True), (b"cell", True), (1,)):
        with pytest.raises(TypeError):
            breaker._attach(*arguments)
    for arguments in ((), (1,), (lambda: 1, None, None), (lambda: 1, [], {}, 1)):
        for thing in (breaker, policy):
            with pytest.raises(TypeError):
                thing._run(*arguments)
    for arguments in ((), (5,), (5, 6)):
        with pytest.raises((TypeError, AttributeError)):
            attempt(*arguments)
    assert permit.success()


@with_accelerator
def test_a_handle_of_another_kind_is_refused_by_the_library() -> None:
    method: Any = RateLimiter.try_acquire
    with pytest.raises(autoglm_reliability.ArgumentError):
        method(CircuitBreaker())


@with_accelerator
def test_errors_from_the_library_say_the_same_by_either_way() -> None:
    accelerated, plain = RateLimiter(10, 1), RateLimiter(10, 1)
    plain._attach(plain._handle.cell, False)
    for tokens in (-1, 11, 2**50 + 1, 2**64):
        caught = []
        for limiter in (accelerated, plain):
            with pytest.raises(Exception, match="tokens") as error:
                limiter.try_acquire(tokens)
            caught.append((type(error.value), str(error.value), vars(error.value)))
        assert caught[0] == caught[1]


class History:
    """Each step's outcome, whatever it is: a value, a reservation, a refusal or an error."""

    def __init__(self, limiter: KeyedRateLimiter) -> None:
        self.limiter: Any = limiter
        self.seen: list[Any] = []

    def ask(self, work: Callable[..., Any], *arguments: Any, **names: Any) -> Any:
        try:
            found = work(*arguments, **names)
        except Exception as error:
            # How long it takes is a matter of the moment.
            known = {name: value for name, value in vars(error).items() if name != "retry_after"}
            self.seen.append((type(error), str(error).split(";")[0], known))
            return None
        told = isinstance(found, Reservation)
        self.seen.append((found.tokens, found.wait, found.ended) if told else found)
        return found

    def reserve(self, *arguments: Any, **names: Any) -> Any:
        return self.ask(self.limiter.reserve, *arguments, **names)

    def available(self, key: Any) -> None:
        self.ask(self.limiter.available, key)

    def settlements(self) -> None:
        self.available("a")
        first = self.reserve("a", 6, 0)
        self.available("a")
        self.available(b"a")
        self.reserve("a", 6, 0)
        self.reserve("a", 6, 0.0)
        self.reserve("a", 6, max_wait=0)
        for actual in (-1, "2", 2**64, 2, 3):
            self.ask(first.settle, actual)
        self.available("a")
        second = self.reserve(bytearray(b"a"), 8, 0)
        self.ask(second.settle)
        self.ask(second.cancel)
        for permit in (0, 1, 2**64 - 1):
            self.ask(self.limiter._settle, permit, 1)

    def arguments(self) -> None:
        for key in ("", "\ud800", "k" * 2000, 5, None):
            self.reserve(key, 1, 0)
            self.available(key)
        for tokens in (-1, 0, 11, True, 1.5, 2**64):
            self.reserve("b", tokens, 0)
        for longest in (-1, float("nan"), -0.0, False, None):
            self.reserve("c", 1, longest)
        self.reserve("d")
        self.reserve("d", tokens=2)
        self.reserve("e", 1, 0, 0)

    def end(self) -> None:
        last = self.reserve("f", 1, 0)
        self.limiter.close()
        self.reserve("f", 1, 0)
        self.available("f")
        self.ask(last.settle, 1)


@with_accelerator
def test_reservations_of_a_key_are_the_same_by_either_way() -> None:
    seen = []
    for quick in (True, False):
        history = History(KeyedRateLimiter(10, 1, 10**6))
        history.limiter._attach(history.limiter._handle.cell, quick)
        history.settlements()
        history.arguments()
        history.end()
        seen.append(history.seen)
    accelerated, plain = seen
    assert accelerated[:3] == [10, (6, 0.0, False), 4]
    for place, (one, two) in enumerate(zip(accelerated, plain)):
        assert one == two, place
    assert len(accelerated) == len(plain)


@with_accelerator
def test_a_permit_that_is_none_is_an_error() -> None:
    limiter: Any = KeyedRateLimiter(10, 1)
    for permit in ("1", None, 1.5):
        with pytest.raises(TypeError):
            limiter._settle(permit, 1)
    for permit in (-1, 2**64):
        with pytest.raises(OverflowError):
            limiter._settle(permit, 1)


def guarded(quick: bool, **fields: Any) -> tuple[Policy, CircuitBreaker]:
    breaker = CircuitBreaker(minimum_calls=3, failure_rate=0.5)
    backoff = Backoff(max_attempts=2, base_delay=0)
    policy = Policy(breaker=breaker, retry=Retry(backoff), total_timeout=math.inf, idle_timeout=7, **fields)
    policy._attach(policy._handle.cell, quick)
    return policy, breaker


def counts(policy: Policy, breaker: CircuitBreaker) -> tuple[int, ...]:
    seen, calls = breaker.snapshot(), policy.snapshot()
    return seen.window_total, seen.window_failures, calls.calls_alive, calls.calls


ways = pytest.mark.parametrize("quick", [True, False] if autoglm_reliability.accelerated else [False])


@ways
def test_a_call_that_has_begun_succeeds_once(quick: bool) -> None:
    policy, breaker = guarded(quick)
    begun = policy._start(DEFAULTS, None)
    assert isinstance(begun, Attempt) == quick
    kind, number, left, attempt, connect, first_byte, idle = begun._told()
    assert (kind, number) == (StepKind.ATTEMPT, 1)
    assert left == attempt == c.AGR_FOREVER
    assert (connect, first_byte, idle) == (3 * 10**9, 30 * 10**9, 7 * 10**9)
    assert counts(policy, breaker)[2] == 1
    begun._succeed()
    assert begun._closed
    assert counts(policy, breaker) == (1, 0, 0, 1)
    with pytest.raises(ClosedError):
        begun._succeed()
    begun._close()
    assert counts(policy, breaker) == (1, 0, 0, 1)


@ways
def test_a_call_that_has_begun_becomes_one_that_can_fail(quick: bool) -> None:
    policy, breaker = guarded(quick)
    begun = policy._start(DEFAULTS, None)
    call = begun._owned()
    assert begun._owned() is call
    call.advance(AttemptOutcome(ErrorClass.TRANSIENT))
    if call.step.kind is StepKind.WAIT:
        call.advance()
    assert call._told()[:2] == (StepKind.ATTEMPT, 2)
    assert not begun._closed
    begun._succeed()
    assert (begun._closed, call.closed) == (True, True)
    assert counts(policy, breaker) == (2, 1, 0, 1)


@ways
@pytest.mark.parametrize("owned", [False, True])
def test_a_call_that_has_begun_and_is_closed_or_forgotten_counts_nowhere(quick: bool, owned: bool) -> None:
    policy, breaker = guarded(quick)
    begun = policy._start(DEFAULTS, None)
    if owned:
        begun._owned()
    begun._close()
    begun._close()
    assert begun._closed
    forgotten = policy._start(DEFAULTS, None)
    assert counts(policy, breaker)[2] == 1
    del forgotten
    assert counts(policy, breaker) == (0, 0, 0, 2)


@ways
def test_what_stands_in_the_way_of_a_call_is_told(quick: bool) -> None:
    policy, breaker = guarded(quick, max_calls=1)
    first = policy._start(DEFAULTS, None)
    with pytest.raises(autoglm_reliability.CapacityError):
        policy._start(DEFAULTS, None)
    first._close()
    for _ in range(3):
        breaker.acquire().failure()
    refused = policy._start(DEFAULTS, None)
    assert refused._told()[0] == StepKind.DONE
    assert refused._owned().step.component is autoglm_reliability.Component.BREAKER
    refused._close()
    policy.close()
    with pytest.raises(ClosedError):
        policy._start(DEFAULTS, None)


@with_accelerator
def test_a_request_in_another_form_is_left_to_python() -> None:
    policy, _ = guarded(True)
    start: Any = policy._start
    for data in (b"", b"x" * 7, bytearray(8), 5):
        begun = start(DEFAULTS, data)
        assert not isinstance(begun, Attempt)
        begun._close()
    for arguments in ((), (DEFAULTS,), (DEFAULTS, None, None)):
        with pytest.raises(TypeError):
            start(*arguments)
