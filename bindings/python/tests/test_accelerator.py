# SPDX-License-Identifier: Apache-2.0
"""Which of the two is in use, how that is chosen, and what only the accelerator could get wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import autoglm_reliability
from autoglm_reliability import (
    CircuitBreaker,
    KeyedRateLimiter,
    Permit,
    Policy,
    RateLimiter,
    _accelerate,
    _ffi,
)
from autoglm_reliability.attempt import Attempt

CHOSEN = os.environ.get(_accelerate.ENVIRONMENT)
METHODS: list[Any] = [
    RateLimiter.try_acquire,
    KeyedRateLimiter.try_acquire,
    CircuitBreaker.acquire,
    CircuitBreaker.guard,
    CircuitBreaker._run,
    Policy.execute,
    Policy._run,
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
