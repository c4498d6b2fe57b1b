# SPDX-License-Identifier: Apache-2.0
"""A thousand processes that share one budget of tokens through a store, in virtual time: what it is asked,
how far they are off the budget, how it is shared, and what happens while the store is down.

    cluster_simulation.py                 the tables
    cluster_simulation.py --write         also into docs/cluster.md, with docs/cluster.png
    cluster_simulation.py --trace FILE    of a trace: TIMESTAMP, ContextTokens, GeneratedTokens"""

from __future__ import annotations

import argparse
import csv
import math
import random
import re
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Callable, Optional, Union

from cluster_model import Cluster, Seen, Settings
from measure import ROOT
from report import table

PAGE = ROOT / "docs" / "cluster.md"
SEED = 1
MEAN, SIGMA = 1366.0, 0.8  # of a request's tokens, log-normal: as in a public trace of a chat service
BASE = Settings(processes=1000, rate=1e6, capacity=6e6, lease=0)
LEASES = (0, 1000, 3000, 10000, 30000)
WARM, END = 240.0, 480.0
QUIET, BURST = 0.1, 4.0  # of the budget
OUTAGE = (270.0, 300.0)
HOW = ("refuse", "admit", "local")


# ---- traffic ----


class Synthetic:
    """Poisson arrivals of log-normal sizes; the load, as a share of the budget, may change once."""

    variation = math.exp(SIGMA * SIGMA) - 1

    def __init__(self, load: float, settings: Settings, change: float = math.inf, then: float = 0.0) -> None:
        each = settings.rate / settings.processes / MEAN
        self.rates, self.change = (load * each, then * each), change

    def __call__(self, source: random.Random, number: int, now: float) -> tuple[float, float]:
        when = now + source.expovariate(self.rates[now >= self.change])
        if now < self.change <= when:
            when = self.change + source.expovariate(self.rates[1])
        return when, max(1.0, round(source.lognormvariate(math.log(MEAN) - SIGMA * SIGMA / 2, SIGMA)))


class Trace:
    """Each process replays the trace from another place on, as much slower as its share is."""

    def __init__(
        self, path: Path, load: float, settings: Settings, change: float = math.inf, then: float = 0.0
    ) -> None:
        with path.open() as file:
            rows = list(csv.DictReader(file))
        times = [datetime.fromisoformat(row["TIMESTAMP"][:26]).timestamp() for row in rows]
        self.sizes = [float(row["ContextTokens"]) + float(row["GeneratedTokens"]) for row in rows]
        self.gaps = [later - earlier for earlier, later in zip(times, times[1:])]
        mean = sum(self.sizes) / len(self.sizes)
        self.variation = sum((size - mean) ** 2 for size in self.sizes) / len(self.sizes) / mean**2
        once = settings.processes * mean / settings.rate / (sum(self.gaps) / len(self.gaps))
        self.stretch, self.change = (once / load, once / then if then else 0.0), change
        self.at = [number * 7919 % len(self.gaps) for number in range(settings.processes)]

    def __call__(self, source: random.Random, number: int, now: float) -> tuple[float, float]:
        place = self.at[number] = (self.at[number] + 1) % len(self.gaps)
        # A process's first request comes somewhere within a gap.
        share = source.random() if now == 0 else 1.0
        when = now + self.gaps[place] * self.stretch[now >= self.change] * share
        if now < self.change < when:
            when = self.change + (when - self.change) * self.stretch[1] / self.stretch[0]
        return when, self.sizes[place]


MakeTraffic = Callable[..., Union[Synthetic, Trace]]


def traffic_of(trace: Optional[Path]) -> MakeTraffic:
    return partial(Trace, trace) if trace else Synthetic


# ---- on paper ----


def requests_a_trip(lease: float, mean: float, variation: float) -> float:
    """How many requests a lease serves with the one that asks: the first whose sum exceeds the lease. Renewal
    theory; exact without a lease, and for one of many requests."""
    return max(1.0, lease / mean + (1 + variation) / 2) if lease else 1.0


# ---- what is run ----


@dataclass
class Outcome:
    seen: Seen
    seconds: float
    shares: list[float]  # of what each process asked for, sorted
    trips_on_paper: float


def simulate(
    settings: Settings,
    traffic: MakeTraffic,
    load: float,
    change: float = math.inf,
    then: float = 0.0,
    begin: float = WARM,
    end: float = END,
) -> Outcome:
    requests = traffic(load, settings, change, then)
    cluster = Cluster(settings, SEED)
    seen = cluster.run(requests, begin, end)
    shares = sorted(one.admitted / one.offered for one in cluster.processes if one.offered)
    mean = seen.offered / seen.requests
    paper = seen.requests / (end - begin) / requests_a_trip(settings.lease, mean, requests.variation)
    return Outcome(seen, end - begin, shares, paper)


def all_leases(traffic: MakeTraffic, **of: float) -> dict[int, Outcome]:
    return {lease: simulate(replace(BASE, lease=lease), traffic, **of) for lease in LEASES}


def outages(traffic: MakeTraffic) -> dict[tuple[int, str], Outcome]:
    return {
        (lease, how): simulate(
            replace(BASE, lease=lease, on_error=how, local_share=1 / BASE.processes, outage=OUTAGE),
            traffic,
            1.25,
        )
        for lease in (0, 10000)
        for how in HOW
    }


# ---- tables ----


def percent(share: float, sign: str = "") -> str:
    return f"{100 * share:{sign}.1f} %"


def rates(low: dict[int, Outcome], high: dict[int, Outcome]) -> str:
    rows = []
    for lease in LEASES:
        row = [f"{lease:,}"]
        quiet, busy = low[lease], high[lease]
        row += [f"{quiet.seen.calls / quiet.seconds:.0f}", f"{quiet.trips_on_paper:.0f}"]
        row += [percent(quiet.seen.admitted / quiet.seen.offered)]
        row += [f"{busy.seen.calls / busy.seconds:.0f}"]
        row += [percent(busy.seen.admitted / (BASE.rate * busy.seconds) - 1, "+")]
        count = len(busy.shares)
        middle = [busy.shares[int(count * part)] for part in (0.05, 0.5, 0.95)]
        row += [" … ".join(percent(share) for share in middle)]
        rows.append(row)
    head = ("lease_tokens", "80 %: trips/s", "on paper", "admitted", "125 %: trips/s")
    return table([*head, "off the budget", "each process got (5th, 50th, 95th of 100)"], rows)


def bounds(burst: dict[int, Outcome]) -> str:
    rows = []
    for lease, outcome in burst.items():
        bound = BASE.processes * lease
        over = max(0.0, outcome.seen.most_over)
        rows.append([f"{lease:,}", f"{bound:,}", f"{over:,.0f}", percent(over / bound) if bound else ""])
    head = ("lease_tokens", "bound: processes x lease_tokens", "seen beyond capacity + rate x t", "of it")
    return table(head, rows)


def down(runs: dict[tuple[int, str], Outcome]) -> str:
    rows = []
    start, stop = map(int, OUTAGE)
    for (lease, how), outcome in runs.items():
        seen = outcome.seen

        def flow(begin: int, end: int, seen: Seen = seen) -> float:
            admitted = sum(seen.by_second.get(second, 0.0) for second in range(begin, end))
            return admitted / (end - begin) / BASE.rate

        off = [second for second in range(stop, stop + 90) if abs(flow(second, second + 3) - 1) > 0.1]
        back = max(off, default=stop - 1) + 1 - stop
        rows.append(
            [
                how,
                f"{lease:,}",
                percent(flow(start, start + 5)),
                percent(flow(start + 5, stop)),
                percent(flow(stop, stop + 10)),
                f"{back} s",
                f"{seen.errors:,}",
            ]
        )
    head = ("when the store fails", "lease_tokens", "first 5 s", "the other 25 s", "10 s after")
    return table([*head, "within 10 % again after", "requests that failed"], rows)


def main() -> int:
    parser = argparse.ArgumentParser(description="Simulates a thousand processes that share a budget.")
    parser.add_argument("--write", action="store_true", help="write docs/cluster.md and its picture")
    parser.add_argument("--trace", type=Path, metavar="FILE", help="arrivals and sizes of a trace")
    options = parser.parse_args()
    traffic = traffic_of(options.trace)
    low, high = all_leases(traffic, load=0.8), all_leases(traffic, load=1.25)
    burst = all_leases(traffic, load=QUIET, change=WARM, then=BURST)
    stops = outages(traffic)
    parts = {"rates": rates(low, high), "bounds": bounds(burst), "down": down(stops)}
    for name, text in parts.items():
        print(f"{name}\n{text}\n")
    if options.write:
        from cluster_picture import draw

        page = PAGE.read_text()
        for name, text in parts.items():
            place = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
            page = place.sub(lambda found, text=text: f"{found[1]}{text}\n{found[2]}", page)
        PAGE.write_text(page)
        draw(low, high, burst, stops)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
