"""Checks what the shipped library promises as a file: its name, what it needs, what it exports, its
size, and how fast it loads.

    check_library.py LIBRARY EXPORTS
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path

SONAME = "libautoglm_reliability.so.0"
NEEDED = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
SIZE_LIMIT = 400_000
LOAD_LIMIT_NS = 1_000_000

LOADER = """
#include <dlfcn.h>
#include <stdio.h>
#include <time.h>
int main(int count, char **arguments) {
  struct timespec a, b;
  clock_gettime(CLOCK_MONOTONIC, &a);
  void *library = dlopen(arguments[count - 1], RTLD_NOW | RTLD_LOCAL);
  clock_gettime(CLOCK_MONOTONIC, &b);
  if (!library) { fprintf(stderr, "%s\\n", dlerror()); return 1; }
  printf("%lld\\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
}
"""


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def load_time(library: str) -> int:
    """The quickest of several loads, each in a process of its own."""
    with tempfile.TemporaryDirectory() as directory:
        source = Path(directory, "load.c")
        source.write_text(LOADER)
        program = str(Path(directory, "load"))
        subprocess.run(["cc", "-O2", str(source), "-o", program, "-ldl"], check=True)
        return min(int(output(program, library)) for _ in range(20))


def main(library: str, exports: str) -> int:
    failed = 0

    def check(what: str, good: bool, seen: object) -> None:
        nonlocal failed
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what}: {seen}")

    dynamic = output("readelf", "-dW", library)
    soname = re.findall(r"\(SONAME\).*\[(.*)\]", dynamic)
    check("SONAME", soname == [SONAME], soname)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    check("needs libc and libm only", needed <= NEEDED, sorted(needed))
    symbols = output("nm", "-D", "--defined-only", library).splitlines()
    names = sorted(line.split()[-1].split("@")[0] for line in symbols if " A " not in line)
    wanted = Path(exports).read_text().split()
    difference = sorted(set(names) ^ set(wanted))
    check("exports the reviewed list only", not difference, difference or f"{len(names)} functions")
    with tempfile.TemporaryDirectory() as directory:
        stripped = Path(directory, "stripped.so")
        subprocess.run(["strip", "-o", str(stripped), library], check=True)
        size = stripped.stat().st_size
    check(f"under {SIZE_LIMIT} bytes stripped", size < SIZE_LIMIT, size)
    time = load_time(str(Path(library).resolve()))
    check(f"loads in under {LOAD_LIMIT_NS} ns", time < LOAD_LIMIT_NS, time)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
