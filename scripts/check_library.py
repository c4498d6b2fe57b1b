"""Checks what the shipped library promises as a file: its name, what it needs, what it exports, its
size, how fast it loads, how it is hardened, and that it never uses the Swift runtime's heap, which
ends the process when memory runs out.

    check_library.py LIBRARY EXPORTS        LIBRARY.full, beside the file itself, has its symbols
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

SONAME = "libautoglm_reliability.so.0"
NEEDED = {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
# All that it may import to get memory: each answers with a failure that the library checks.
ALLOCATORS = {"posix_memalign", "free", "mmap", "munmap"}
# The shims of platform.h that give the kernel or libc the address of a local.
C_SHIMS = {"platform_allocate", "platform_sleep_until_ns"}
OTHER_ALLOCATORS = r"(?:m|c|re|v|pv|aligned_)alloc|reallocarray|memalign|strn?dup|s?brk|swift_.*"
# The oldest glibc that it runs with: what a wheel for manylinux_2_28 may need.
OLDEST_GLIBC = (2, 28)
SIZE_LIMIT = 400_000
LOAD_LIMIT_NS = 1_000_000

# Bounds and conversions of which the compiler did not see that they hold: 138 of them, some
# several times because of inlining. Arithmetic that neither wraps nor saturates adds to them, and would
# end the host process.
TRAP_LIMIT = 150

Check = Callable[[str, object, object], None]

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


def hardening(library: str, dynamic: str, check: Check) -> None:
    segments = output("readelf", "-lW", library)
    flags = " ".join(re.findall(r"\((?:FLAGS|FLAGS_1)\)\s*(?:Flags: )?(.*)", dynamic))
    check("full RELRO", "GNU_RELRO" in segments and "BIND_NOW" in flags, flags)
    stack = re.findall(r"GNU_STACK .* (R[W ]*E?) +\w+$", segments, re.MULTILINE)
    check("the stack is not executable", stack and "E" not in stack[0], stack)
    loaded = re.findall(r"LOAD .* 0x\w+ (R[W ]*E?) +0x", segments)
    check("nothing is writable and executable", loaded and "RWE" not in loaded, loaded)
    unwanted = re.findall(r"TEXTREL|RPATH|RUNPATH.*", dynamic)
    check("no TEXTREL, no RPATH, no RUNPATH", not unwanted, unwanted)
    # Both compilers protect the frames that hand out the address of a local, and only those.
    protected = callers(library + ".full", "__stack_chk_fail")
    shims = sorted(protected & C_SHIMS)
    check("stack protector in C", shims == sorted(C_SHIMS), shims)
    swift = [name for name in protected if "ReliabilityABI" in name]
    check("stack protector in Swift", bool(swift), f"{len(swift)} functions of the ABI")


def traps(file: str, check: Check) -> None:
    code = output("objdump", "-d", "--no-show-raw-insn", file)
    count = len(re.findall(r"\t(?:ud2|brk)\b", code))
    check(f"at most {TRAP_LIMIT} trap instructions", count <= TRAP_LIMIT, count)


def callers(file: str, callee: str) -> set[str]:
    """The functions that call one, by the names of the unstripped file."""
    found, name = set(), ""
    for line in output("objdump", "-d", "--no-show-raw-insn", file).splitlines():
        if start := re.match(r"[0-9a-f]+ <(.*)>:", line):
            name = start[1]
        elif re.search(rf"\b(?:call|bl)\b.*<{callee}", line):
            found.add(name)
    return found


def heap(library: str, check: Check) -> None:
    imported = {line.split()[-1].split("@")[0] for line in output("nm", "-D", "-u", library).splitlines()}
    others = sorted(name for name in imported if re.fullmatch(OTHER_ALLOCATORS, name))
    check("gets memory where a failure is seen", not others, others or sorted(imported & ALLOCATORS))
    symbols = {line.split()[-1] for line in output("nm", library + ".full").splitlines()}
    runtime = {name for name in symbols if re.fullmatch(r"_?swift_\w+", name)}
    check("nothing of the Swift heap", runtime <= {"_swift_exceptionPersonality"}, sorted(runtime))


def main(library: str, exports: str) -> int:
    failed = 0

    def check(what: str, good: object, seen: object) -> None:
        nonlocal failed
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {what}: {seen}")

    dynamic = output("readelf", "-dW", library)
    soname = re.findall(r"\(SONAME\).*\[(.*)\]", dynamic)
    check("SONAME", soname == [SONAME], soname)
    needed = set(re.findall(r"\(NEEDED\).*\[(.*)\]", dynamic))
    check("needs libc and libm only", needed <= NEEDED, sorted(needed))
    versions = re.findall(r"GLIBC_(\d+)\.(\d+)", output("objdump", "-T", library))
    newest = max((int(major), int(minor)) for major, minor in versions)
    check("runs with glibc {}.{}".format(*OLDEST_GLIBC), newest <= OLDEST_GLIBC, newest)
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
    real = str(Path(library).resolve())
    hardening(real, dynamic, check)
    heap(real, check)
    traps(real, check)
    time = load_time(real)
    check(f"loads in under {LOAD_LIMIT_NS} ns", time < LOAD_LIMIT_NS, time)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
