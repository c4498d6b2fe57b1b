# SPDX-License-Identifier: Apache-2.0
"""The picture of the demonstration: outcomes a second, what reached the server, the breaker, the tokens."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from run import Run

COLOURS = {"answered": "#4c9f70", "failed": "#c8553d", "refused": "#e0a458"}
BREAKER = {"CLOSED": "#cfe8d5", "HALF_OPEN": "#f3dfae", "OPEN": "#eab8ad"}
STEP = 0.5


def kind(call: dict[str, object]) -> str:
    return "answered" if call["ok"] else "refused" if "refused" in call else "failed"


def outcomes(axes: Axes, run: Run, end: float, top: float) -> None:
    edges = [index * STEP for index in range(int(end / STEP) + 1)]
    counts = {name: Counter(int(c["end"] / STEP) for c in run.calls if kind(c) == name) for name in COLOURS}
    bottom = [0.0] * len(edges)
    for name, colour in COLOURS.items():
        heights = [counts[name][index] / STEP for index in range(len(edges))]
        axes.bar(edges, heights, STEP * 0.92, bottom, align="edge", color=colour, label=name)
        bottom = [low + height for low, height in zip(bottom, heights)]
    sent = {int(tenth): count for tenth, count in run.server["requests"].items()}
    rate = [sum(sent.get(int(edge * 10) + tenth, 0) for tenth in range(5)) / STEP for edge in edges]
    axes.step(edges, rate, where="post", color="#333333", linewidth=1.2, label="reached the server")
    axes.set_ylabel("per second")
    axes.set_ylim(0, top)
    axes.set_title(f"{run.mode}: {100 * len(run.good) / len(run.calls):.1f} % answered, "
                   f"{run.server['duplicates']} executed twice", loc="left", fontsize=11)  # fmt: skip


def draw(runs: list[Run], phases: list[tuple[int, str]], seconds: float, path: Path) -> None:
    end = max(call["end"] for run in runs for call in run.calls) + STEP
    top = 1.08 * max(
        sum(count for tenth, count in run.server["requests"].items() if int(tenth) // 5 == half) / STEP
        for run in runs for half in range(int(end / STEP) + 1)
    )  # fmt: skip
    figure, (naive, guarded, state) = plt.subplots(
        3, 1, figsize=(10, 8), sharex=True, height_ratios=[3, 3, 1.6], layout="constrained"
    )
    for axes, run in zip((naive, guarded), runs):
        outcomes(axes, run, end, top)
        for begin, name in phases:
            axes.axvline(begin, color="#888888", linewidth=0.6, linestyle=":")
            axes.text(begin + 0.1, top * 0.94, name, fontsize=8, color="#555555", va="top")
    naive.legend(loc="upper right", fontsize=8)

    samples = runs[1].samples
    for one, following in zip(samples, [*samples[1:], {"sample": end}]):
        state.axvspan(one["sample"], following["sample"], color=BREAKER[one["breaker"]], linewidth=0)
    state.plot([s["sample"] for s in samples], [s["tokens"] for s in samples], color="#27476e")
    state.set_title("guarded C client: tokens in its bucket (line), breaker (green closed, yellow half-open, "
                    "red open)", loc="left", fontsize=9)  # fmt: skip
    state.set_ylabel("tokens")
    state.set_xlabel("seconds")
    state.set_xlim(0, max(end, seconds))
    figure.savefig(path, dpi=110)
