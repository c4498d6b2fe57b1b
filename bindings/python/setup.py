# SPDX-License-Identifier: Apache-2.0
"""Puts the native library into the package: the file that AUTOGLM_RELIABILITY_LIB names, else one
that is built from the sources of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py
from setuptools.errors import SetupError
from wheel.bdist_wheel import bdist_wheel

FILE = "libautoglm_reliability.so"
ROOT = Path(__file__).resolve().parents[2]
SCRATCH = ROOT / ".build-embedded"


def library() -> Path:
    named = os.environ.get("AUTOGLM_RELIABILITY_LIB")
    if named:
        if not Path(named).is_file():
            raise SetupError(f"AUTOGLM_RELIABILITY_LIB is {named}, which is no file")
        return Path(named)
    swift = shutil.which("swift")
    if swift is None or not (ROOT / "Package.swift").is_file():
        raise SetupError(
            "autoglm_reliability needs its native library. Either install Swift 6.1 or later and build "
            f"from a checkout, or set AUTOGLM_RELIABILITY_LIB to a prebuilt {FILE}."
        )
    command = [swift, "build", "-c", "release", "--traits", "Embedded", "--disable-local-rpath"]
    command += ["--scratch-path", str(SCRATCH)]
    subprocess.run(command, cwd=ROOT, check=True)
    return SCRATCH / "release" / FILE


def install(target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(library(), target)
    strip = shutil.which("strip")
    if strip is not None and not os.environ.get("AUTOGLM_RELIABILITY_LIB"):
        # What is built here carries its debugging information, ten times the size of the rest.
        subprocess.run([strip, "--strip-unneeded", str(target)], check=True)


class Build(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            install(Path(self.build_lib, "autoglm_reliability", FILE))


class PlatformWheel(bdist_wheel):
    """For one platform, because of the native library, and for every Python, because of ctypes."""

    def finalize_options(self) -> None:
        super().finalize_options()
        self.root_is_pure = False

    def get_tag(self) -> tuple[str, str, str]:
        return "py3", "none", super().get_tag()[2]


class BinaryDistribution(Distribution):
    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": Build, "bdist_wheel": PlatformWheel}, distclass=BinaryDistribution)
