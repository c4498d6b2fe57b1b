# SPDX-License-Identifier: Apache-2.0
"""The generated declarations against the headers and the library."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_reliability import LibraryError, _ffi, _generated, library_version


def test_the_generated_files_are_what_the_headers_say(repository: Path) -> None:
    pytest.importorskip("pycparser")
    if shutil.which("cc") is None:
        pytest.skip("no C preprocessor")
    script = repository / "scripts" / "generate_bindings.py"
    run = subprocess.run(
        [sys.executable, str(script), "--check"], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_changed_file_is_noticed(repository: Path, tmp_path: Path) -> None:
    pytest.importorskip("pycparser")
    for part in ("scripts", "include", "abi"):
        shutil.copytree(repository / part, tmp_path / part)
    package = Path("bindings/python/src/autoglm_reliability/_generated.py")
    (tmp_path / package).parent.mkdir(parents=True)
    shutil.copy(repository / package, tmp_path / package)
    exports = tmp_path / "abi" / "exports.txt"
    exports.write_text(exports.read_text().replace("agr_version\n", ""))
    command = [sys.executable, str(tmp_path / "scripts" / "generate_bindings.py"), "--check"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    assert "+agr_version" in run.stdout


@pytest.mark.parametrize("name", sorted(_generated.FUNCTIONS))
def test_the_library_has_every_function(name: str) -> None:
    assert getattr(_ffi.lib, name) is not None


def test_every_status_has_its_name() -> None:
    names = [n for n in vars(_generated) if n.startswith("AGR_ERR_")]
    names += ["AGR_OK", "AGR_LIMITED", "AGR_OPEN", "AGR_IN_PROGRESS", "AGR_REPLAY", "AGR_STALE"]
    names += ["AGR_MISMATCH", "AGR_EXHAUSTED", "AGR_TIMED_OUT", "AGR_EMPTY", "AGR_NOT_FOUND"]
    for name in names:
        assert _ffi.lib.agr_status_name(getattr(_generated, name)) == name.encode()
    for number in (11, -11, 2**31 - 1, -(2**31)):
        assert _ffi.lib.agr_status_name(number) == b"AGR_UNKNOWN"


def test_the_version_is_that_of_the_headers() -> None:
    wanted = f"{_generated.AGR_VERSION_MAJOR}.{_generated.AGR_VERSION_MINOR}."
    assert library_version().startswith(wanted)


def test_functions_that_block_are_called_without_the_interpreters_lock() -> None:
    assert {
        "agr_limiter_acquire",
        "agr_keyed_limiter_acquire",
        "agr_idempotency_wait",
        "agr_policy_execute",
        "agr_store_ping",
    } == _generated.BLOCKING
    assert _ffi.lib.agr_limiter_acquire._flags_ != _ffi.lib.agr_limiter_try_acquire._flags_


def test_a_library_that_is_not_there_is_said_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(_ffi.ENVIRONMENT, "/nowhere/libautoglm_reliability.so")
    with pytest.raises(LibraryError, match="/nowhere/"):
        _ffi.Library()


def test_a_function_that_is_not_there_is_said_when_it_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(_generated.FUNCTIONS, "agr_from_the_future", (None, ()))  # type: ignore[arg-type]
    with pytest.raises(LibraryError, match="agr_from_the_future"):
        _ffi.lib.agr_from_the_future()


def test_names_that_are_no_function_are_no_attribute() -> None:
    with pytest.raises(AttributeError):
        _ffi.lib.agr_no_such_thing()
