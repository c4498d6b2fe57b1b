"""Compiles every public header alone, as C99 and as C++17 with all warnings, and holds the layout of
every structure against abi/layout.txt, as the C and C++ compilers see it.

    check_headers.py CC CXX
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
WARNINGS = ["-Wall", "-Wextra", "-Wpadded", "-pedantic", "-Werror"]


def layout_assertions() -> list[str]:
    lines: list[str] = []
    struct = ""
    for line in (ROOT / "abi/layout.txt").read_text().splitlines():
        words = line.split()
        if line.startswith("#") or not words:
            continue
        if words[0] == "struct":
            struct = words[1]
            lines.append(f"ASSERT(sizeof({struct}) == {words[2]})")
        else:
            field, offset, size = words
            lines.append(f"ASSERT(offsetof({struct}, {field}) == {offset})")
            lines.append(f"ASSERT(sizeof((({struct} *)0)->{field}) == {size})")
    return lines


def compile_source(compiler: str, standard: str, language: str, text: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "source")
        source.write_text(text)
        command = [compiler, f"-std={standard}", *WARNINGS, "-I", str(ROOT / "include")]
        subprocess.run([*command, "-fsyntax-only", "-x", language, str(source)], check=True)


def main(cc: str, cxx: str) -> int:
    headers = sorted((ROOT / "include").rglob("*.h"))
    for header in headers:
        text = f"#include <{header.relative_to(ROOT / 'include')}>\ntypedef int used;\n"
        compile_source(cc, "c99", "c", text)
        compile_source(cxx, "c++17", "c++", text)
    assertions = layout_assertions()
    both = "#include <stddef.h>\n#include <autoglm_reliability.h>\n"
    body = "\n".join(assertions)
    compile_source(cc, "c11", "c", f"{both}#define ASSERT(c) _Static_assert(c, #c);\n{body}\n")
    compile_source(cxx, "c++17", "c++", f"{both}#define ASSERT(c) static_assert(c, #c);\n{body}\n")
    print(f"{len(headers)} headers and {len(assertions)} facts of layout, in C and C++")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
