# SPDX-License-Identifier: Apache-2.0
"""Puts the native library into the package: the file that AUTOGLM_RELIABILITY_LIB names, else one
that is built from the sources of this checkout. And the accelerator, if it can be built."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Optional

from setuptools import Distribution, Extension, setup
from setuptools.command.build_py import build_py
from setuptools.errors import SetupError
from wheel.bdist_wheel import bdist_wheel

FILE = "libautoglm_reliability.so"
STORES = ("sqlite", "redis")
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
    subprocess.run(build_command(swift, "autoglm_reliability"), cwd=ROOT, check=True)
    return SCRATCH / "release" / FILE


def build_command(swift: str, product: str) -> list[str]:
    command = [swift, "build", "-c", "release", "--traits", "Embedded", "--disable-local-rpath"]
    return [*command, "--scratch-path", str(SCRATCH), "--product", product]


def store(name: str) -> Optional[Path]:
    """A store's library, which is left out where it is not there and cannot be built."""
    file = f"libautoglm_reliability_{name}.so"
    named = os.environ.get(f"AUTOGLM_RELIABILITY_{name.upper()}_LIB")
    if named:
        return Path(named)
    main = os.environ.get("AUTOGLM_RELIABILITY_LIB")
    place = Path(main).parent if main else SCRATCH / "release"
    swift = shutil.which("swift")
    if not main and swift is not None:
        built = subprocess.run(build_command(swift, f"autoglm_reliability_{name}"), cwd=ROOT, check=False)
        if built.returncode != 0:
            return None
    return place / file if (place / file).is_file() else None


def install(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    strip = shutil.which("strip")
    if strip is not None and not os.environ.get("AUTOGLM_RELIABILITY_LIB"):
        # What is built here carries its debugging information, ten times the size of the rest.
        subprocess.run([strip, "--strip-unneeded", str(target)], check=True)


def accelerator() -> list[Extension]:
    """Of the stable ABI: one file serves every CPython from 3.10 on, but those without a global lock;
    every other Python overlooks it and uses ctypes, as it does where there is no compiler."""
    include = ROOT / "include"
    possible = sys.implementation.name == "cpython" and sys.version_info >= (3, 10)
    if sysconfig.get_config_var("Py_GIL_DISABLED") or not possible:
        return []
    if not (include / "autoglm_reliability.h").is_file():
        return []
    source = Path("src", "autoglm_reliability", "_accelerator.c")
    return [
        Extension(
            "autoglm_reliability._accelerator",
            [str(source)],
            include_dirs=[str(include)],
            extra_compile_args=["-fvisibility=hidden"],
            py_limited_api=True,
            optional=True,
        )
    ]


class Build(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            package = Path(self.build_lib, "autoglm_reliability")
            install(library(), package / FILE)
            for name in STORES:
                plug_in = store(name)
                if plug_in is not None:
                    install(plug_in, package / f"libautoglm_reliability_{name}.so")


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


setup(
    cmdclass={"build_py": Build, "bdist_wheel": PlatformWheel},
    distclass=BinaryDistribution,
    ext_modules=accelerator(),
)
