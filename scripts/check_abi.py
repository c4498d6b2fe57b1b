# SPDX-License-Identifier: Apache-2.0
"""Compares the public headers with the released ABI, abi/baseline.abi, by abidiff.

The shipped library's own debug information describes Swift. So the headers are compiled by gcc into a
library of empty functions with the same signatures, and that is what is compared: every function,
structure, callback, and every constant (as an enumeration of its own).

What may change: a function or a constant may be added, and a structure that begins with struct_size and
is part of no other may grow at its end. So such a structure is compared by as many fields as the
baseline has. Anything else is an incompatible change, and the exit status is 1.

    check_abi.py             compares
    check_abi.py --accept    makes the present headers the baseline: at a release, or with the major version
    check_abi.py --prove     also checks that it notices: breaks copies of the headers in known ways
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from header_model import is_function, parse, read_headers
from pycparser import c_ast, c_generator

ROOT = Path(__file__).resolve().parent.parent
BASELINE = ROOT / "abi/baseline.abi"


def baseline_fields() -> dict[str, int]:
    """How many fields each structure of the baseline has."""
    if not BASELINE.exists():
        return {}
    structs = ElementTree.parse(BASELINE).iter("class-decl")  # noqa: S314
    return {struct.get("name", ""): len(struct.findall("data-member")) for struct in structs}


def cut(nodes: list[c_ast.Node], known: dict[str, int]) -> None:
    """Takes from the structures that may grow the fields that the baseline does not have."""
    structs = {n.name: n.type.type for n in nodes if has_fields(n)}
    fields = [field for struct in structs.values() for field in struct.decls]
    embedded = {name for field in fields for name in by_value(field.type)}
    for name, struct in structs.items():
        if struct.decls[0].name == "struct_size" and name not in embedded:
            struct.decls = struct.decls[: known.get(name)]


def has_fields(node: c_ast.Node) -> bool:
    target = node.type.type if isinstance(node, c_ast.Typedef) else None
    return isinstance(target, c_ast.Struct) and target.decls is not None


def by_value(node: c_ast.Node) -> list[str]:
    """The names of the type that a field of this type contains."""
    while isinstance(node, c_ast.ArrayDecl):
        node = node.type
    simple = isinstance(node, c_ast.TypeDecl) and isinstance(node.type, c_ast.IdentifierType)
    return node.type.names if simple else []


def stubs(include: Path, known: dict[str, int]) -> str:
    """C source of the headers, with a body for every function and a function for every constant."""
    nodes = parse(include)
    cut(nodes, known)
    generator = c_generator.CGenerator()
    lines = []
    for node in nodes:
        lines.append(generator.visit(node) + (" { __builtin_trap(); }" if is_function(node) else ";"))
    for name, value in read_headers(include).constants:
        lines.append(f"enum abi_{name} {{ abi_{name}_value = {value} }};")
        lines.append(f"void abi_{name}_is(enum abi_{name} it) {{ }}")
    return "\n".join(lines) + "\n"


def build(include: Path, directory: Path, known: dict[str, int]) -> Path:
    source, library = directory / "stubs.c", directory / "libautoglm_reliability.so"
    source.write_text(stubs(include, known))
    # No directory in the debug information, so that a baseline is the same everywhere.
    flags = ["-std=c11", "-g", "-O0", "-shared", "-fPIC", "-w", f"-ffile-prefix-map={directory}=."]
    linking = ["-Wl,-soname,libautoglm_reliability.so.0", "-o", str(library)]
    subprocess.run(["gcc", *flags, str(source), *linking], check=True, cwd=directory)
    return library


def compare(include: Path) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as directory:
        library = build(include, Path(directory), baseline_fields())
        command = ["abidiff", "--no-added-syms", str(BASELINE), str(library)]
        return subprocess.run(command, capture_output=True, text=True)


def accept(include: Path) -> None:
    with tempfile.TemporaryDirectory() as directory:
        library = build(include, Path(directory), {})
        command = ["abidw", "--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", str(library)]
        BASELINE.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@dataclass(frozen=True)
class Change:
    """Something done to a copy of the headers, and whether it keeps the ABI."""

    what: str
    header: str
    pattern: str
    replacement: str
    compatible: bool = False

    def apply(self, include: Path) -> None:
        path = include / "autoglm_reliability" / self.header
        text, count = re.subn(self.pattern, self.replacement, path.read_text(), count=1, flags=re.MULTILINE)
        if count != 1:
            raise SystemExit(f"{self.header} has nothing like {self.pattern!r}")
        path.write_text(text)


MORE = r"  int64_t more;\n\g<0>"
RANDOM = r"^uint64_t agr_random\(void\);"
SWAPPED = r"(  int32_t strategy;.*\n)([^}]*?)(  int32_t jitter;)"
CHANGES = [
    Change("a function is gone", "common.h", RANDOM, ""),
    Change("a parameter is wider", "common.h", r"status_name\(agr_status", "status_name(int64_t"),
    Change("a result is narrower", "common.h", r"^int64_t agr_now_ns", "int32_t agr_now_ns"),
    Change("a constant has another value", "common.h", "AGR_LIMITED = 1,", "AGR_LIMITED = 21,"),
    Change("a constant is gone", "common.h", r"^  AGR_EMPTY = 9,.*$", ""),
    Change("a #define has another value", "common.h", "DIMENSIONS_MAX 4", "DIMENSIONS_MAX 8"),
    Change("two fields changed places", "backoff.h", SWAPPED, r"\3\n\1\2"),
    Change("a field is inserted", "backoff.h", r"^  int32_t strategy;", MORE),
    Change("a structure without struct_size grew", "common.h", r"^} agr_error;", MORE),
    Change("a structure within another grew", "backoff.h", r"^} agr_backoff_config;", MORE),
    Change("a structure shrank", "breaker.h", r"^.*\n} agr_breaker_config;", "} agr_breaker_config;"),
    Change("a structure with struct_size grew", "breaker.h", r"^} agr_breaker_config;", MORE, True),
    Change("a function is new", "common.h", RANDOM, r"\g<0>\nint64_t agr_more(void);", True),
    Change("a constant is new", "common.h", "AGR_NOT_FOUND = 10,", r"\g<0> AGR_MORE = 11,", True),
]


def prove() -> int:
    """The number of changes that were judged wrongly."""
    wrong = 0
    for change in CHANGES:
        with tempfile.TemporaryDirectory() as directory:
            include = Path(directory, "include")
            shutil.copytree(ROOT / "include", include)
            change.apply(include)
            compatible = compare(include).returncode == 0
        right = compatible == change.compatible
        wrong += not right
        verdict = "compatible" if compatible else "incompatible"
        print(f"{'ok  ' if right else 'FAIL'} {change.what}: {verdict}")
    return wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--accept", action="store_true")
    parser.add_argument("--prove", action="store_true")
    options = parser.parse_args()
    if options.accept:
        accept(ROOT / "include")
    result = compare(ROOT / "include")
    good = result.returncode == 0
    print(result.stdout + result.stderr, end="")
    print(f"{'ok  ' if good else 'FAIL'} the headers against the baseline")
    wrong = prove() if options.prove else 0
    count = 1 + (len(CHANGES) if options.prove else 0)
    failed = wrong + (not good)
    print(f"abi: {count - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
