# SPDX-License-Identifier: Apache-2.0
"""docs/cluster.png: what the store is asked, how far a window goes beyond the budget, what an outage does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib
from measure import ROOT
from picture import FLOOR, OURS, PEER

matplotlib.use("Agg")
import cluster_simulation as simulation
from matplotlib import pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLOURS = {"refuse": OURS, "admit": FLOOR, "local": PEER}


def trips(axes: Axes, low: dict[int, simulation.Outcome], high: dict[int, simulation.Outcome]) -> None:
    places = range(len(low))
    for outcomes, colour, label in ((low, OURS, "80 % of the budget is asked for"), (high, PEER, "125 %")):
        calls = [one.seen.calls / one.seconds for one in outcomes.values()]
        axes.plot(places, calls, "o", color=colour, label=label)
    paper = [one.trips_on_paper for one in low.values()]
    axes.plot(places, paper, color=OURS, linewidth=0.8, label="80 %, on paper")
    axes.set_ylim(0)
    axes.set_ylabel("a second")
    axes.set_title("Round trips of 1,000 processes", loc="left", fontsize=10)


def windows(axes: Axes, burst: dict[int, simulation.Outcome]) -> None:
    places = range(len(burst))
    seen = [max(0.0, one.seen.most_over) / 1e6 for one in burst.values()]
    bound = [simulation.BASE.processes * lease / 1e6 for lease in burst]
    axes.bar(places, bound, color="none", edgecolor=FLOOR, label="bound: processes x lease_tokens")
    axes.bar(places, seen, color=OURS, label="seen")
    axes.set_ylabel("million tokens")
    axes.set_title("Beyond capacity + rate x t, in a burst after a lull", loc="left", fontsize=10)


def outage(axes: Axes, stops: dict[tuple[int, str], simulation.Outcome], lease: int) -> None:
    start, stop = simulation.OUTAGE
    axes.axvspan(0, stop - start, color="#eeeeee")
    axes.axhline(1, color="#999999", linewidth=0.8)
    for how in simulation.HOW:
        seen = stops[lease, how].seen.by_second
        seconds = range(int(start) - 15, int(stop) + 45)
        flow = [seen.get(second, 0.0) / simulation.BASE.rate for second in seconds]
        axes.plot([second - start for second in seconds], flow, color=COLOURS[how], linewidth=1.2, label=how)
    axes.set_ylim(0, 1.9)
    axes.set_xlabel("seconds since the store stopped (grey: it is down)")
    axes.set_ylabel("admitted, of the budget")
    axes.set_title(f"125 % is asked for, lease_tokens {lease:,}", loc="left", fontsize=10)


def draw(
    low: dict[int, simulation.Outcome],
    high: dict[int, simulation.Outcome],
    burst: dict[int, simulation.Outcome],
    stops: dict[tuple[int, str], simulation.Outcome],
) -> None:
    figure, ((first, second), (third, fourth)) = plt.subplots(2, 2, figsize=(12, 7.5), layout="constrained")
    trips(first, low, high)
    windows(second, burst)
    for axes in (first, second):
        axes.set_xticks(range(len(low)), [f"{lease:,}" for lease in low])
        axes.set_xlabel("lease_tokens")
    outage(third, stops, 0)
    outage(fourth, stops, 10000)
    for axes in (first, second, third, fourth):
        axes.legend(fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(ROOT / "docs" / "cluster.png", dpi=110)
