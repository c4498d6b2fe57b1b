"""Breaks the library on purpose, one defect at a time, and sees whether the suites notice.

    mutate.py [--only TEXT] [--work DIRECTORY]

The defects are in Tests/mutation/mutations.txt. Each is put into a copy of the sources, which is built and
tested by the Swift suites; what they do not notice meets the models and the programs with threads. Ends
with a line of counts; exit status 1 if fewer than 95 % were noticed. A report of each is written to
WORK/report.txt, from which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 300


@dataclass
class Mutation:
    file: str
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{Path(self.file).name}: {' / '.join(self.old)}"

    def applied(self, text: str) -> str:
        """Only the parts of lines are given: each old part is replaced in its line, the lines adjoining."""
        lines = text.splitlines(keepends=True)
        places = [
            index
            for index in range(len(lines))
            if all(old in "".join(lines[index + n : index + n + 1]) for n, old in enumerate(self.old))
        ]
        if len(places) != 1:
            raise SystemExit(f"{self.name}: stands there {len(places)} times")
        for offset, (old, new) in enumerate(zip(self.old, self.new)):
            lines[places[0] + offset] = lines[places[0] + offset].replace(old, new)
        return "".join(lines)


def read() -> list[Mutation]:
    mutations: list[Mutation] = []
    for line in (ROOT / "Tests/mutation/mutations.txt").read_text().splitlines():
        if line.startswith("file "):
            mutations.append(Mutation(line[5:]))
        elif line.startswith("- "):
            mutations[-1].old.append(line[2:])
        elif line.startswith("+ "):
            mutations[-1].new.append(line[2:])
    return mutations


def run(command: list[str], work: Path, environment: dict[str, str] | None = None) -> bool:
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command, cwd=work, env=environment, stdout=quiet, stderr=quiet, start_new_session=True
    )
    try:
        return process.wait(LIMIT) == 0
    except subprocess.TimeoutExpired:
        # What it has started hangs as well.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        return False


# What a defect meets that the Swift suites have not noticed: programs of build/Tests, against the library as
# it ships.
PROGRAMS = [
    ["test_models", "--cases", "Tests/model/cases"],
    ["test_linear", "20000"],
    ["test_threads"],
    ["test_clock"],
    ["test_signals"],
    ["test_time_source"],
    ["test_slewed_clock"],
    ["test_clock_held_up"],
    ["test_forks"],
    ["test_region_objects"],
    ["test_store_limiter"],
    ["test_store_policy"],
    ["test_store_renewal"],
]


def passes(work: Path) -> bool:
    """Whether every suite is content with the copy."""
    if not run(["swift", "build", "--build-tests", "--scratch-path", ".build-mutation"], work):
        raise SystemExit("it does not compile")
    if not run(["swift", "test", "--skip-build", "--scratch-path", ".build-mutation"], work):
        return False
    scratch = work / ".build-mutation-embedded"
    build = ["swift", "build", "-c", "release", "--traits", "Embedded", "--scratch-path", str(scratch)]
    if not run(build, work):
        raise SystemExit("it does not compile as Embedded Swift")
    library = scratch / "release/libautoglm_reliability.so.0"
    library.unlink(missing_ok=True)
    library.symlink_to("libautoglm_reliability.so")
    environment = {**os.environ, "LD_LIBRARY_PATH": str(library.parent)}
    return all(run([str(ROOT / "build/Tests" / p[0]), *p[1:]], work, environment) for p in PROGRAMS)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--work", default=str(ROOT / "build/mutation"))
    options = parser.parse_args()
    work = Path(options.work)
    work.mkdir(parents=True, exist_ok=True)
    for name in ("Package.swift", "Sources", "Tests", "include", "abi"):
        source = ROOT / name
        if source.is_dir():
            shutil.rmtree(work / name, ignore_errors=True)
            shutil.copytree(source, work / name)
        else:
            shutil.copy(source, work / name)
    # A defect may leave a variable unused, which is no reason not to build it.
    package = work / "Package.swift"
    package.write_text(package.read_text().replace('"-warnings-as-errors"', ""))
    if not passes(work):
        raise SystemExit("the suites fail without any defect")
    report = work / "report.txt"
    lines = report.read_text().splitlines() if report.exists() else []
    known = dict(line.split("\t")[::-1] for line in lines)
    survivors: list[str] = []
    mutations = [mutation for mutation in read() if options.only in mutation.name]
    for number, mutation in enumerate(mutations, 1):
        verdict = known.get(mutation.name)
        if verdict is None:
            path = work / mutation.file
            original = path.read_text()
            path.write_text(mutation.applied(original))
            verdict = "survived" if passes(work) else "noticed"
            path.write_text(original)
            with report.open("a") as file:
                file.write(f"{verdict}\t{mutation.name}\n")
        print(f"{number:3}/{len(mutations)} {verdict:8} {mutation.name}", flush=True)
        if verdict == "survived":
            survivors.append(mutation.name)
    noticed = len(mutations) - len(survivors)
    print(f"{noticed} of {len(mutations)} defects were noticed ({100 * noticed / len(mutations):.1f} %)")
    return 0 if noticed >= 0.95 * len(mutations) else 1


if __name__ == "__main__":
    sys.exit(main())
