# SPDX-License-Identifier: Apache-2.0
"""Counts the instructions of the hot paths, by valgrind's callgrind, and compares them with what is known.

    instructions.py [--update]

They are the same on every machine, whatever else runs there, as long as the compiler is the same; so a few
more of them are noticed where a time would drown in noise. What an operation takes is the difference of two
runs, one twice as long as the other. --update writes instructions.json; the diff is what to review."""

from __future__ import annotations

import argparse
import json
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
KNOWN = ROOT / "benchmarks" / "instructions.json"
PROGRAM = ROOT / "build" / "bench" / "instructions"
OPERATIONS = 2048  # a multiple of the number of keys


def build() -> None:
    PROGRAM.parent.mkdir(parents=True, exist_ok=True)
    command = ["cc", "-O2", "-std=c11", "-Wall", "-Wextra", f"-I{ROOT / 'include'}"]
    command += [str(ROOT / "benchmarks" / "native" / "instructions.c"), "-o", str(PROGRAM)]
    command += [f"-L{ROOT / 'build'}", "-lautoglm_reliability", f"-Wl,-rpath,{ROOT / 'build'}"]
    subprocess.run(command, check=True)


def executed(name: str, operations: int) -> int:
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null"]
    result = subprocess.run([*command, str(PROGRAM), name, str(operations)], capture_output=True, text=True)
    found = re.search(r"Collected : (\d+)", result.stderr)
    if result.returncode or not found:
        raise SystemExit(f"{name}: {result.stdout}{result.stderr}")
    return int(found[1])


def count(name: str) -> float:
    return round((executed(name, 2 * OPERATIONS) - executed(name, OPERATIONS)) / OPERATIONS, 1)


def compiler() -> str:
    version = subprocess.run(["swift", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"Swift version [\d.]+", version)
    return found[0] if found else version.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description="Compares instruction counts with the known ones.")
    parser.add_argument("--update", action="store_true", help="write instructions.json")
    options = parser.parse_args()
    build()
    names = subprocess.run([str(PROGRAM)], capture_output=True, text=True, check=True).stdout.split()
    with ThreadPoolExecutor(2) as pool:
        counts = dict(zip(names, pool.map(count, names)))
    known = json.loads(KNOWN.read_text()) if KNOWN.exists() else {"tolerance": 0.03, "an_operation": {}}
    if options.update:
        known |= {"compiler": compiler(), "an_operation": counts}
        KNOWN.write_text(json.dumps(known, indent=2) + "\n")
    elif known["compiler"] != compiler():
        print(f"counted with {compiler()}, known for {known['compiler']}")
    failed = 0
    for name in sorted(counts.keys() | known["an_operation"].keys()):
        now, before = counts.get(name), known["an_operation"].get(name)
        if now is None or before is None:
            failed += 1
            print(f"FAIL {name:20} {before} -> {now}: of one side only")
            continue
        more = now / before - 1
        failed += more > known["tolerance"]
        verdict = "FAIL" if more > known["tolerance"] else "less" if more < -known["tolerance"] else "ok  "
        print(f"{verdict} {name:20} {before:7.1f} -> {now:7.1f} ({more:+.1%})")
    print(f"{len(counts) - failed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
