# SPDX-License-Identifier: Apache-2.0
"""docs/performance.png: what each operation takes, its floor, its peers. docs/growth.png: how that grows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
from measure import ROOT, Results, median
from report import BUCKETS, SIZES, THREADS
from verdict import spread

matplotlib.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OURS, PEER, CTYPES, FLOOR = "#27476e", "#e0a458", "#8fb0d3", "#c8553d"

# An operation: ours, its floor, its peers.
NATIVE = [
    ("limiter, time passed in", "limiter.at", "floor.bucket.at", {"Go": "peer.go.limiter.at"}),
    ("limiter, own clock", "limiter.clock", "floor.bucket.counter",
     {"Go": "peer.go.limiter.clock", "Guava": "peer.guava.limiter.clock"}),
    ("refused, own clock", "limiter.refused.clock", "clock",
     {"Go": "peer.go.limiter.refused.clock", "Guava": "peer.guava.limiter.refused.clock"}),
    ("breaker pair, count window", "breaker.count.at", "floor.breaker", {}),
    ("breaker pair, time window", "breaker.time.at", "floor.breaker", {}),
    ("keyed, 100,000", "keyed.100k", "floor.miss", {"abseil": "peer.absl.keyed.100k"}),
    ("keyed, 1,000,000", "keyed.1m", "floor.miss", {"abseil": "peer.absl.keyed.1m"}),
    ("replay, one hot key", "idempotency.hot", "", {"abseil": "peer.absl.cache.hot"}),
    ("replay, 100,000", "idempotency.100k", "floor.miss", {"abseil": "peer.absl.cache.100k"}),
    ("backoff delay", "backoff", "", {}),
    ("policy, begin to end", "policy", "policy.parts", {}),
]  # fmt: skip
PYTHON = [
    ("try_acquire", "limiter", ("by_hand", "token_bucket", "limits", "throttled")),
    ("breaker around a call", "breaker.decorator", ("circuitbreaker", "purgatory", "pybreaker")),
    ("with breaker", "breaker.with", ("purgatory", "pybreaker")),
    ("decorated retry", "retry", ("backoff", "opnieuw", "stamina", "tenacity")),
    ("keyed", "keyed", ("by_hand", "token_bucket", "limits", "throttled")),
]


def bar(axes: Axes, at: float, height: float, ns: list[float], colour: str, text: str) -> None:
    low, high = spread(ns)
    middle = median(ns)
    axes.barh(at, middle, height * 0.9, color=colour)
    axes.plot([low, high], [at, at], color="#333333", linewidth=0.8)
    axes.text(max(high, middle) * 1.06, at, text, va="center", fontsize=7, color="#333333")


Bars = list[tuple[str, str, list[float]]]  # colour, text, rounds


def rows(axes: Axes, groups: list[tuple[str, Bars, list[float] | None]]) -> None:
    ticks, at = [], 0.0
    for _name, bars, floor in groups:
        top = at
        for colour, text, ns in bars:
            bar(axes, at, 1, ns, colour, text)
            at += 1
        ticks.append((top + at - 1) / 2)
        if floor:
            axes.plot([median(floor)] * 2, [top - 0.5, at - 0.5], color=FLOOR, linewidth=2.2)
        at += 0.7
    axes.set_yticks(ticks, [name for name, _, _ in groups], fontsize=8)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("ns an operation: median, and a line over the middle half of the rounds")
    axes.spines[["top", "right"]].set_visible(False)


def native_rows(rounds: dict[str, list[float]]) -> list[tuple[str, Bars, list[float] | None]]:
    rows = []
    for name, ours, floor, peers in NATIVE:
        bars = [(OURS, f"{median(rounds[ours]):.0f}", rounds[ours])]
        for who, peer in peers.items():
            if ns := rounds.get(peer):
                bars.append((PEER, f"{median(ns):.0f} {who}", ns))
        rows.append((name, bars, rounds.get(floor)))
    return rows


def python_rows(rounds: dict[str, list[float]]) -> list[tuple[str, Bars, list[float] | None]]:
    rows = []
    for name, case, peers in PYTHON:
        kinds = [(OURS, "accelerated", ""), (CTYPES, "ctypes", " ctypes")]
        kinds += [(PEER, peer, f" {peer}") for peer in peers]
        bars = []
        for colour, who, text in kinds:
            if ns := rounds.get(f"python.{case}.{who}"):
                bars.append((colour, f"{median(ns):.0f}{text}", ns))
        if bars:
            rows.append((name, bars, rounds.get("python.call")))
    return rows


def performance(results: Results) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(13, 7.5), layout="constrained")
    rows(left, native_rows(results["rounds"]))
    rows(right, python_rows(results["rounds"]))
    for axes, title in (
        (left, "C: blue ours, yellow peers; red the floor (for the policy its parts)"),
        (right, "Python: red an empty call in the same loop"),
    ):
        axes.set_title(title, loc="left", fontsize=10)
    figure.savefig(ROOT / "docs" / "performance.png", dpi=110)


def growth(results: Results) -> None:
    rounds, bytes_of = results["rounds"], results["bytes"]
    figure, axes = plt.subplots(1, 4, figsize=(15, 4.2), layout="constrained")
    sizes = [size for size in SIZES if f"growth.keyed.{size}" in rounds]
    kinds = {
        "floor": ("one exchange", FLOOR),
        "keyed": ("keyed limiter", OURS),
        "idempotency": ("replay", PEER),
    }
    for kind, (label, colour) in kinds.items():
        values = [median(rounds[f"growth.{kind}.{n}"]) for n in sizes]
        axes[0].plot(sizes, values, "o-", color=colour, label=label)
        if kind != "floor":
            values = [bytes_of[f"growth.{kind}.{n}"]["bytes_per_key"] for n in sizes]
            axes[1].plot(sizes, values, "o-", color=colour, label=label)
    threads = {
        "floor": ("plain C bucket", FLOOR),
        "limiter": ("limiter", OURS),
        "breaker": ("breaker", "#4c9f70"),
        "keyed": ("keyed, 100,000", CTYPES),
        "idempotency": ("replay, 100,000", PEER),
    }
    for kind, (label, colour) in threads.items():
        if f"growth.threads.{kind}.1" in rounds:
            rate = [1000 * n / median(rounds[f"growth.threads.{kind}.{n}"]) for n in THREADS]
            axes[2].plot(THREADS, rate, "o-", color=colour, label=label)
    joint = [("floor.joint", "as many exchanges", FLOOR), ("joint", "joint permit", OURS)]
    for name, label, colour in joint:
        values = [median(rounds[f"growth.{name}.{n}"]) for n in BUCKETS]
        axes[3].plot(BUCKETS, values, "o-", color=colour, label=label)
    titles = (
        ("keys", "ns", "time, random keys"), ("keys", "bytes", "memory a key"),
        ("threads", "million/s", "threads on one object, 2 CPUs"), ("buckets", "ns", "buckets in a permit"),
    )  # fmt: skip
    for one, (x, y, title) in zip(axes, titles):
        one.set_xlabel(x)
        one.set_ylabel(y)
        one.set_title(title, loc="left", fontsize=10)
        one.legend(fontsize=7)
        one.spines[["top", "right"]].set_visible(False)
    for one in axes[:3]:
        one.set_xscale("log")
        one.set_yscale("log")
    axes[2].set_xscale("log", base=2)
    axes[2].set_xticks(THREADS, map(str, THREADS))
    axes[3].set_xticks(BUCKETS)
    axes[3].set_ylim(0)
    figure.savefig(ROOT / "docs" / "growth.png", dpi=110)
