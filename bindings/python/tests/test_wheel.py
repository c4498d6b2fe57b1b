# SPDX-License-Identifier: Apache-2.0
"""The wheel that scripts/wheel makes, installed by pip in an environment that has nothing else, where there
is no Swift and no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

#: What it is about is the same with and without the accelerator.
pytestmark = pytest.mark.once

PROGRAM = """
import pathlib, shutil, sys
import autoglm_reliability as agr
import autoglm_reliability.asgi, autoglm_reliability.wsgi

assert shutil.which("swift") is None
home = pathlib.Path(sys.prefix)
assert home in pathlib.Path(agr.__file__).parents
assert agr._lib.path == str(pathlib.Path(agr.__file__).parent / "libautoglm_reliability.so")
assert agr.accelerated
limiter = agr.RateLimiter(2, 1, 3600)
assert [limiter.try_acquire() for _ in range(3)] == [True, True, False]
with agr.SQLiteStore("keys.db") as store:
    cache = agr.IdempotencyCache(scope=store, name="keys")
    assert cache.get_or_execute("k", lambda lease: b"once") == b"once"
    assert cache.get_or_execute("k", lambda lease: b"twice") == b"once"
with agr.RedisStore("127.0.0.1:1") as store:
    try:
        store.ping()
    except agr.StoreError as error:
        print(error)
    else:
        raise AssertionError("nobody listens there")
try:
    import autoglm_reliability.httpx
except ImportError as error:
    assert error.name == "httpx"
else:
    raise AssertionError("httpx is not installed here")
print("good")
"""


@pytest.fixture(scope="module")
def wheel() -> Path:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([root / "scripts" / "wheel"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return root / done.stdout.split()[-1]


def test_it_runs_on_many_a_linux(wheel: Path) -> None:
    platforms = wheel.stem.split("-")[-1].split(".")
    assert any(name.startswith("manylinux_2_28_") for name in platforms)
    assert not [name for name in platforms if name.startswith("linux")]


def test_it_carries_the_libraries_and_no_copy_of_the_systems(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        libraries = {Path(name).name for name in archive.namelist() if ".so" in name}
    assert libraries == {
        "libautoglm_reliability.so",
        "libautoglm_reliability_sqlite.so",
        "libautoglm_reliability_redis.so",
        "_accelerator.abi3.so",
    }


def test_it_says_what_the_integrations_need(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        metadata = archive.read(name).decode()
    for extra in ("asgi", "httpx", "redis", "requests"):
        assert f"Provides-Extra: {extra}\n" in metadata


def test_pip_installs_it_where_there_is_nothing_else(wheel: Path, tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "LANG": os.environ.get("LANG", "C.UTF-8")}

    def run(*command: object) -> str:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", wheel)
    assert run(python, "-c", PROGRAM).endswith("good\n")
