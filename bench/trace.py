"""How densely policies pack a public trace (bench/data/README.md); of `scripts/bench placement`.

Lifetimes are drawn inside their bins by a stated seed; instances that still ran at the end of the trace stay for ever.
`python -m bench.trace [SEED]` prints the arrivals as the CSV that `rackflow simulate` reads.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import math
import random
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from control.placement.weights import DEFAULT
from control.simulation.answers import Question, answer, peak
from control.simulation.arrivals import Arrival
from control.simulation.fleet import Fleet, Group

TRACE = Path(__file__).with_name("data") / "azure_v1_dev_q4.csv.gz"
SEED = 1
BEGIN_S = 1_800_000  # of the trace's clock
CPU_M, MEMORY_MIB = 64_000, 192 * 1024  # of a host
ROOMY = 1.25  # hosts, times what the volume needs, at which empty ones are counted
POLICIES = (DEFAULT, "best-fit", "first-fit", "striping")


def arrivals(seed: int = SEED) -> list[Arrival]:
    """Return the trace, its time from 0."""
    dice = random.Random(seed)
    return [
        Arrival(
            f"t{number}", float(int(row["arrive_s"]) - BEGIN_S), _lifetime_s(row, dice), int(row["cpu"]) * 1000,
            int(float(row["mem_gb"]) * 1024),
        )
        for number, row in enumerate(_rows())
    ]  # fmt: skip


def _rows() -> Iterator[dict[str, str]]:
    with gzip.open(TRACE, "rt") as lines:
        yield from csv.DictReader(lines)


def _lifetime_s(row: dict[str, str], dice: random.Random) -> float:
    drawn = dice.uniform(int(row["dur_lo_s"]), int(row["dur_hi_s"]) + 300)
    return math.inf if row["censored"] == "1" else drawn


def bound(come: list[Arrival]) -> float:
    """Return how many hosts the volume would fill at its peak if it could be cut into pieces."""
    cpu_m, memory_mib = peak(come)
    return max(cpu_m / CPU_M, memory_mib / MEMORY_MIB)


def figures(say: Callable[[str], None]) -> dict[str, float]:
    """Return trace_hosts and trace_empty_percent of the default policy, and of the others under longer names."""
    come = arrivals()
    least = bound(come)
    roomy = Fleet((Group(math.ceil(ROOMY * least), CPU_M, MEMORY_MIB),))
    say(f"{len(come)} arrivals (seed {SEED}); the volume fills {least:.2f} hosts at its peak")
    say(f"{'policy':24} {'hosts':>6} {'empty % at ' + str(len(roomy)):>16} {'cpu s':>8}")
    found: dict[str, float] = {"trace_bound_hosts": round(least, 2)}
    for policy in POLICIES:
        told: dict[str, Any] = answer(Question(come, roomy, policy, find_min_hosts=True))
        hosts, empty = told["min_hosts"], told["empty_hosts_mean_percent"]
        say(f"{policy:24} {hosts:6} {empty:16.2f} {told['cpu_s']:8.1f}")
        name = "" if policy == DEFAULT else f"_{policy.replace('-', '_')}"
        found |= {f"trace{name}_hosts": hosts, f"trace{name}_empty_percent": empty}
    return found


def main() -> None:
    """Print the arrivals as CSV."""
    parser = argparse.ArgumentParser(prog="python -m bench.trace", description="Print the trace as CSV.")
    parser.add_argument("seed", nargs="?", type=int, default=SEED, help="by which lifetimes are drawn in their bins")
    seed = parser.parse_args().seed
    out = csv.writer(sys.stdout, lineterminator="\n")
    out.writerow(("name", "arrival_s", "lifetime_s", "cpu", "memory_mib"))
    for one in arrivals(seed):
        lifetime = "" if math.isinf(one.lifetime_s) else round(one.lifetime_s, 3)
        out.writerow((one.name, one.arrival_s, lifetime, one.cpu_m / 1000, one.memory_mib))


if __name__ == "__main__":
    main()
