# SPDX-License-Identifier: Apache-2.0
"""The tables of docs/performance.md, each between its two markers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from measure import HERE, ROOT, Results, median
from verdict import Verdict, verdicts

PAGE = ROOT / "docs" / "performance.md"


def time(ns: float) -> str:
    if ns >= 2e4:
        return f"{ns / 1e6:.3f} ms"
    return f"{ns:.0f}" if ns >= 100 else f"{ns:.1f}"


def table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = list(head)
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


# ---- the goals ----


def number(seen: Verdict, value: float) -> str:
    goal = seen.goal
    if goal.ours.startswith("bytes."):
        return f"{value:.1f} B"
    if goal.ours.startswith("error."):
        return f"{100 * value:.2f} %"
    if goal.kind == "value":
        return time(value) + ("" if value >= 2e4 else " ns")
    if goal.kind == "above":
        return f"{value:+.1f} ns"
    return f"{value:.3f}" if value < 0.2 else f"{value:.2f}"


def limit(seen: Verdict) -> str:
    if seen.goal.ours.startswith("bytes."):
        return "≤ 24 B"
    return ("≥ " if seen.goal.kind == "speed" else "≤ ") + number(seen, seen.goal.limit)


def goal_row(seen: Verdict) -> list[str]:
    is_time = not seen.goal.ours.startswith(("bytes.", "error."))
    value = seen.goal.kind == "value" and is_time
    ours = time(seen.ours) if is_time else ""
    spread = "" if seen.low == seen.high else f" ({number(seen, seen.low)} … {number(seen, seen.high)})"
    against = f"`{seen.goal.against}`" if seen.goal.against else ""
    figure = number(seen, seen.figure) + (" at best" if value else "") + spread
    other = time(seen.other) if seen.other else ""
    return [seen.goal.what, against, other, ours, figure, limit(seen), seen.word]


def goals(results: Results) -> str:
    head = ("operation", "beside", "its ns", "ours, ns", "figure (half of the rounds)", "goal", "reached")
    return table(head, map(goal_row, verdicts(results)))


def misses(results: Results) -> str:
    lines = []
    for goal in (seen.goal for seen in verdicts(results)):
        if goal.known is not None:
            sign = "≥" if goal.kind == "speed" else "≤"
            unit = " ns" if goal.kind in ("above", "value") else ""
            bounds = f"goal {sign} {goal.limit:g}{unit}, held at {sign} {goal.known:g}{unit}"
            lines.append(f"- **{goal.what}**, {bounds}: {goal.why}")
    return "\n".join(lines)


# ---- everything that was measured ----


def figures(results: Results, names: Iterable[str]) -> str:
    rows = []
    for name in names:
        ns = results["rounds"][name]
        rows.append([f"`{name}`", time(min(ns)), time(median(ns)), time(max(ns))])
    return table(("", "least", "median", "most"), rows)


def redis(results: Results) -> str:
    rows = []
    for name, ns in results["rounds"].items():
        if not name.startswith("error."):
            rows.append([f"`{name}`", *(f"{value / 1000:.2f}" for value in (min(ns), median(ns), max(ns)))])
    return table(("us an operation", "least", "median", "most"), rows)


def native(results: Results) -> str:
    names = [name for name in results["rounds"] if not name.startswith("python.")]
    return figures(results, [name for name in names if not name.endswith(".2")])


def python(results: Results) -> str:
    return figures(results, sorted(name for name in results["rounds"] if name.startswith("python.")))


def threads(results: Results) -> str:
    rounds = results["rounds"]
    rows = []
    for name, ns in rounds.items():
        if not name.endswith(".2"):
            continue
        alone = rounds[name[:-2]]
        one, two = 1000 / median(alone), 2000 / median(ns)
        rows.append([f"`{name[:-2]}`", f"{one:.1f}", f"{two:.1f}", f"{two / one:.2f}"])
    return table(("", "1 thread, million/s", "2 threads, million/s", "ratio"), rows)


def memory(results: Results) -> str:
    rows = []
    for name, seen in results["bytes"].items():
        rows.append([f"`{name}`", f"{seen['bytes_per_key']:.1f}"])
    return table(("", "bytes a key"), rows)


# ---- growth ----

SIZES = [10**power for power in range(3, 8)]
THREADS = (1, 2, 4, 8)
BUCKETS = (1, 2, 3, 4)


def growth_keys(results: Results) -> str:
    rounds, sizes = results["rounds"], results["bytes"]
    rows = []
    for size in SIZES:
        if f"growth.keyed.{size}" not in rounds:
            continue
        row = [f"{size:,}"]
        for kind in ("floor", "keyed", "idempotency"):
            ns = rounds[f"growth.{kind}.{size}"]
            row.append(f"{time(min(ns))} / {time(median(ns))}")
        for kind in ("keyed", "idempotency"):
            row.append(f"{sizes[f'growth.{kind}.{size}']['bytes_per_key']:.0f}")
        row.append(str(sizes[f"growth.keyed.{size}"]["without_place"]))
        rows.append(row)
    times = ["keys", "one exchange, ns", "keyed, ns", "replay, ns"]
    return table([*times, "keyed, B a key", "results, B a key", "keyed, no place"], rows)


KINDS = ("floor", "limiter", "breaker", "keyed", "idempotency")


def growth_threads(results: Results) -> str:
    rows = []
    for count in THREADS:
        row = [str(count)]
        for kind in KINDS:
            ns = results["rounds"].get(f"growth.threads.{kind}.{count}")
            row.append(f"{1000 * count / median(ns):.1f}" if ns else "")
        rows.append(row)
    return table(
        ("threads", "plain C bucket", "limiter", "breaker", "keyed, 100,000", "replay, 100,000"), rows
    )


def growth_buckets(results: Results) -> str:
    rounds = results["rounds"]
    rows = []
    for count in BUCKETS:
        ours, floor = rounds[f"growth.joint.{count}"], rounds[f"growth.floor.joint.{count}"]
        rows.append([str(count), time(median(floor)), time(median(ours)), time(median(ours) / count)])
    return table(("buckets", "as many exchanges, ns", "joint permit, ns", "a bucket, ns"), rows)


# ---- the rest ----


def instructions(_: Results) -> str:
    known = json.loads((HERE / "instructions.json").read_text())
    rows = [[f"`{name}`", f"{count:.0f}"] for name, count in known["an_operation"].items()]
    return table(("", f"instructions ({known['compiler']})"), rows)


def clock(seen: Results) -> str:
    return (
        f"Over {seen['seconds']} s and {seen['readings']:,} readings of the {seen['source']}: typically "
        f"{seen['typical_ns']} ns behind `CLOCK_MONOTONIC`, in 99 of 100 at most {seen['p99_ns']:,} ns, "
        f"at the most {seen['behind_ns']:,} ns ({seen['promised_ns']:,} ns are promised); ahead of it by "
        f"{seen['ahead_ns']} ns at the most; stepped back {seen['back']} times."
    )


def long_row(seen: Results) -> list[str]:
    ns = seen["pair_ns"]
    begin, end = sum(ns[:5]) / 5, sum(ns[-5:]) / 5
    quick_begin, quick_end = min(seen["quick_ns"][:5]), min(seen["quick_ns"][-5:])
    resident = " → ".join(f"{kib / 1024:.0f}" for kib in seen["resident_kib"])
    return [
        str(seen["threads"]),
        f"{seen['pairs']:,}",
        f"{begin:.0f} / {quick_begin:.0f}",
        f"{end:.0f} / {quick_end:.0f}",
        f"{begin / end:.2f} / {quick_begin / quick_end:.2f}",
        f"{seen['longest_cpu_ns'] / 1e6:.2f}",
        f"{seen['control_longest_cpu_ns'] / 1e6:.2f}",
        f"{seen['longest_ns'] / 1e6:.0f} ({seen['control_longest_ns'] / 1e6:.0f})",
        f"{resident} MiB",
    ]


def long(seen: Results) -> str:
    head = ["threads", "pairs", "first quarter, ns a pair", "last quarter", "throughput, last / first"]
    head += ["longest call, ms of CPU", "(counting only)", "by the wall (counting only)", "resident"]
    return table(head, (long_row(seen[threads]) for threads in sorted(seen)))


def machine(seen: Results) -> str:
    return "; ".join(f"{what}: {value}" for what, value in seen.items()) + "."


PARTS = {
    "goals": ("main", goals),
    "misses": ("main", misses),
    "native": ("main", native),
    "python": ("main", python),
    "threads": ("main", threads),
    "memory": ("main", memory),
    "redis-goals": ("redis", goals),
    "redis-misses": ("redis", misses),
    "redis": ("redis", redis),
    "growth-keys": ("growth", growth_keys),
    "growth-threads": ("growth", growth_threads),
    "growth-buckets": ("growth", growth_buckets),
    "instructions": ("main", instructions),
    "clock": ("clock", clock),
    "long": ("long", long),
    "machine": ("machine", machine),
}


def write(results: Results) -> None:
    """Fills what was measured; the rest stays as it is."""
    page = PAGE.read_text()
    for name, (part, make) in PARTS.items():
        if part not in results:
            continue
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
        place = pattern.search(page)
        if not place:
            raise SystemExit(f"docs/performance.md has no place for {name}")
        page = f"{page[: place.start()]}{place[1]}{make(results[part])}\n{place[2]}{page[place.end() :]}"
    PAGE.write_text(page)
