# SPDX-License-Identifier: Apache-2.0
"""Builds the programs that measure, runs them in turn, and keeps what they say in build/bench."""

from __future__ import annotations

import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OUT = ROOT / "build" / "bench"
RESULTS = OUT / "results.json"
LIBRARY = ROOT / "build" / "libautoglm_reliability.so"
GUAVA = "/usr/share/java/guava.jar"
GO = {"GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": str(OUT / "go-cache")}

Results = dict[str, Any]


def run(*command: str, **options: Any) -> str:
    environment = {**os.environ, **options.pop("env", {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=True, **options)
    return str(done.stdout)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


# ---- building ----


def build_native(name: str) -> Path:
    OUT.mkdir(parents=True, exist_ok=True)
    program = OUT / name
    link = [f"-L{LIBRARY.parent}", "-lautoglm_reliability", f"-Wl,-rpath,{LIBRARY.parent}"]
    flags = ["-O2", "-std=c11", "-D_GNU_SOURCE", "-Wall", "-Wextra", f"-I{ROOT / 'include'}"]
    run("cc", *flags, str(HERE / "native" / f"{name}.c"), "-o", str(program), *link, "-pthread", "-ldl")
    return program


def build_store(name: str, source: str, *libraries: str) -> list[str]:
    """Empty where the store was not built."""
    store = f"autoglm_reliability_{name}"
    if not (LIBRARY.parent / f"lib{store}.so").is_file():
        say(f"without the {name} store")
        return []
    OUT.mkdir(parents=True, exist_ok=True)
    program = str(OUT / source)
    link = [f"-L{LIBRARY.parent}", f"-l{store}", *libraries, f"-Wl,-rpath,{LIBRARY.parent}", "-pthread"]
    flags = ["-O2", "-std=c11", "-Wall", "-Wextra", f"-I{ROOT / 'include'}"]
    run("cc", *flags, str(HERE / "native" / f"{source}.c"), "-o", program, *link)
    return [program]


def build_abseil() -> list[str]:
    run(str(ROOT / "scripts" / "install-deps"), "libabsl-dev")
    modules = ["absl_flat_hash_map", "absl_synchronization"]
    absl = run("pkg-config", "--cflags", "--libs", *modules).split()
    program = str(OUT / "peers")
    source = str(HERE / "native" / "peers.cpp")
    run("g++", "-O2", "-std=c++17", "-Wall", "-Wextra", source, "-o", program, *absl, "-pthread")
    return [program]


def build_go() -> list[str]:
    run(str(ROOT / "scripts" / "install-deps"), "golang-go", "golang-golang-x-time-dev")
    program = str(OUT / "go-peers")
    run("go", "build", "-o", program, str(HERE / "go" / "main.go"), env=GO)
    return [program]


def build_jvm() -> list[str]:
    # Any JDK will do; the package is asked for where there is none.
    java = [] if shutil.which("javac") else ["default-jdk-headless"]
    run(str(ROOT / "scripts" / "install-deps"), "libguava-java", *java)
    classes = str(OUT / "jvm")
    run("javac", "-d", classes, "-cp", GUAVA, str(HERE / "jvm" / "Peers.java"))
    return ["java", "-cp", f"{classes}:{GUAVA}", "Peers"]


PEERS = {"abseil": build_abseil, "Go, x/time/rate": build_go, "JVM, Guava": build_jvm}


def build_peers() -> tuple[dict[str, list[str]], list[str]]:
    """The commands that run them, and what there is not."""
    commands, missing = {}, []
    for name, build in PEERS.items():
        try:
            commands[name] = build()
        except (OSError, subprocess.CalledProcessError) as error:
            say(f"without {name}: {error}")
            missing.append(name)
    return commands, missing


# ---- measuring ----


def hurry() -> None:
    """Before other programs of the machine, where that is allowed."""
    try:
        os.setpriority(os.PRIO_PROCESS, 0, -10)
    except OSError:
        say("no right to a higher priority: other programs will be seen in the spread")


def add(results: Results, output: str) -> None:
    for line in output.splitlines():
        one = json.loads(line)
        if "ns" in one:
            results["rounds"].setdefault(one["name"], []).extend(one["ns"])
        elif "shares" in one:
            results["rounds"].setdefault(one["name"], []).extend(one["shares"])
        elif "bytes_per_key" in one:
            results["bytes"][one["name"]] = one
        else:
            results[one["name"]] = one


def load_times(processes: int) -> dict[str, list[int]]:
    program = str(build_native("load"))
    empty = OUT / "empty.so"
    run("cc", "-shared", "-fPIC", "-xc", "/dev/null", "-o", str(empty))
    times: dict[str, list[int]] = {"load.open": [], "load": [], "floor.load": []}
    for _ in range(processes):
        opened, created = map(int, run(program, str(LIBRARY)).split())
        times["load.open"].append(opened)
        times["load"].append(created)
        times["floor.load"].append(int(run(program, str(empty)).split()[1]))
    return times


def measure(passes: int, rounds: int, all_peers: bool) -> Results:
    library = str(build_native("library"))
    peers, missing = build_peers() if all_peers else ({"abseil": build_abseil()}, [])
    stores = build_store("sqlite", "stores", "-lsqlite3")
    results: Results = {"rounds": {}, "bytes": {}, "missing": missing, "passes": passes, "each": rounds}
    hurry()
    for number in range(passes):
        say(f"pass {number + 1} of {passes}")
        add(results, run(library, str(rounds)))
        for command in peers.values():
            add(results, run(*command, str(rounds)))
        if stores:
            add(results, run(*stores, str(rounds), str(OUT)))
        add(results, run(str(HERE / "python" / "run"), "--rounds", str(rounds)))
        for name, times in load_times(max(5, 50 // passes)).items():
            results["rounds"].setdefault(name, []).extend(times)
    return results


def redis(rounds: int) -> Results:
    """Empty where the store was not built."""
    results: Results = {"rounds": {}, "bytes": {}}
    if program := build_store("redis", "redis", "-lautoglm_reliability", "-lhiredis"):
        hurry()
        add(results, run(*program, str(rounds)))
    return results


def growth(rounds: int, most: int) -> Results:
    results: Results = {"rounds": {}, "bytes": {}, "most": most}
    program = str(build_native("growth"))
    hurry()
    add(results, run(program, str(rounds), str(most)))
    return results


def long_run(pairs: int) -> Results:
    program = str(build_native("long_run"))
    hurry()
    return {str(threads): json.loads(run(program, str(pairs), str(threads))) for threads in (1, 2)}


def clock_error(seconds: int) -> Results:
    return dict(json.loads(run(str(build_native("clock_error")), str(seconds))))


def machine() -> dict[str, str]:
    model = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": (model[0].split(":")[1].strip() if model else "unknown") + f", {os.cpu_count()} CPUs",
        "memory": f"{memory:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "C compiler": run("cc", "--version").splitlines()[0],
        "Python": platform.python_version(),
    }


# ---- keeping ----


def load() -> Results:
    return dict(json.loads(RESULTS.read_text())) if RESULTS.exists() else {}


def keep(**parts: Results) -> Results:
    OUT.mkdir(parents=True, exist_ok=True)
    results = load() | parts | {"machine": machine()}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    return results


# ---- figures ----


def median(values: list[float]) -> float:
    return statistics.median(values)


def ratio(ours: list[float], other: list[float]) -> float:
    """Of what was measured in the same round where there is such a one."""
    if len(ours) == len(other):
        return median([one / two for one, two in zip(ours, other)])
    return median(ours) / median(other)


def ratios(ours: list[float], other: list[float]) -> tuple[float, float]:
    """Half of the rounds were between these two."""
    count = min(len(ours), len(other))
    each = sorted(one / two for one, two in zip(ours[:count], other[:count]))
    return each[count // 4], each[(3 * count) // 4 if count > 1 else 0]
