# SPDX-License-Identifier: Apache-2.0
"""The wheel carries the library, and says for which platform it is."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from autoglm_reliability import _ffi

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

pytest.importorskip("wheel")


@pytest.fixture
def sources(repository: Path, tmp_path: Path) -> Path:
    """A copy, so that building leaves nothing behind in the checkout."""
    skipped = shutil.ignore_patterns("build", "*.egg-info", "*.so", "__pycache__", ".*")
    copy = tmp_path / "bindings" / "python"
    shutil.copytree(repository / "bindings" / "python", copy, ignore=skipped)
    shutil.copytree(repository / "include", tmp_path / "include")
    return copy


def build(sources: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", "wheels"]
    return subprocess.run(
        command, cwd=sources, env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_a_prebuilt_library_is_put_into_a_wheel_for_this_platform(sources: Path) -> None:
    library = _ffi.lib.path
    if not Path(library).is_file():
        pytest.skip("the library was found by the system's loader, which does not say where")
    done = build(sources, AUTOGLM_RELIABILITY_LIB=library)
    assert done.returncode == 0, done.stderr
    (wheel,) = (sources / "wheels").iterdir()
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert wheel.name.endswith(f"-py3-none-{platform}.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        packed = archive.read("autoglm_reliability/libautoglm_reliability.so")
    assert packed == Path(library).read_bytes()
    assert "autoglm_reliability/py.typed" in names
    assert not [name for name in names if "tests" in name or name.endswith(".c")]
    compiler, headers = shutil.which("cc") or shutil.which("gcc"), sysconfig.get_paths()["include"]
    buildable = compiler is not None and Path(headers, "Python.h").is_file()
    assert ("autoglm_reliability/_accelerator.abi3.so" in names) == buildable


def test_without_a_compiler_the_wheel_is_made_without_the_accelerator(sources: Path) -> None:
    library = Path(_ffi.lib.path)
    if not library.is_file():
        pytest.skip("the library was found by the system's loader, which does not say where")
    done = build(sources, AUTOGLM_RELIABILITY_LIB=str(library), CC="/no/such/compiler")
    assert done.returncode == 0, done.stderr
    (wheel,) = (sources / "wheels").iterdir()
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "autoglm_reliability/libautoglm_reliability.so" in names
    assert not [name for name in names if "_accelerator." in name]


def test_without_swift_and_a_library_the_error_says_what_to_do(sources: Path) -> None:
    environment = {"AUTOGLM_RELIABILITY_LIB": "", "PATH": str(sources)}
    done = build(sources, **environment)
    assert done.returncode != 0
    assert "AUTOGLM_RELIABILITY_LIB" in done.stderr
    assert "Swift" in done.stderr


def test_a_library_that_is_not_there_is_no_library(sources: Path) -> None:
    done = build(sources, AUTOGLM_RELIABILITY_LIB=str(sources / "missing.so"))
    assert done.returncode != 0
    assert "missing.so" in done.stderr
