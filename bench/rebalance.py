"""Benchmark: plans to rebalance and to consolidate 1,000 instances on 100 hosts, CPU time of one thread; no database.

Hosts of 64 cores and 192 GiB, sizes as in the trace of bench/data, most of them on the first third of the hosts.
Every arrangement is checked; `scripts/bench placement` shows these figures beside the others.
"""

from __future__ import annotations

import csv
import gzip
import time
from collections import Counter
from pathlib import Path

import numpy as np

from control.placement.model import Net, Shape, Store, View
from control.rebalance.model import Goal, Item, Kind, Outcome, Scene
from control.rebalance.order import first_refused
from control.rebalance.planner import plan

GIB, SEED = 1024, 20261126
CORES, HOST_GIB = 64, 192
TRACE = Path(__file__).parent / "data" / "azure_v1_dev_q4.csv.gz"
_NO_STORE = np.int64(2**30)


def sizes(count: int, seed: int = SEED) -> list[tuple[int, int]]:
    """Return (thousandths of cores, MiB) of instances as they stand in the trace: drawn by the hours that they run."""
    hours: Counter[tuple[int, int]] = Counter()
    with gzip.open(TRACE, "rt") as rows:
        for row in csv.DictReader(rows):
            middle_s = (int(row["dur_lo_s"]) + int(row["dur_hi_s"]) + 300) // 2
            hours[int(row["cpu"]) * 1000, int(float(row["mem_gb"]) * GIB)] += middle_s
    kinds = sorted(hours)
    weight = np.array([hours[kind] for kind in kinds], np.float64)
    picks = np.random.default_rng(seed).choice(len(kinds), count, p=weight / weight.sum())
    return [kinds[n] for n in picks.tolist()]


def scene(instances: int = 1000, hosts: int = 100, seed: int = SEED) -> Scene:
    """Return instances on hosts, first come first served: most of them on the first ones."""
    rng = np.random.default_rng(seed + 1)
    cpu, memory = np.full(hosts, CORES * 1000), np.full(hosts, HOST_GIB * GIB)
    items = []
    for n, (cpu_m, mib) in enumerate(sizes(instances, seed)):
        order = np.argsort(rng.random(hosts) * (1 + 2 * (np.arange(hosts) > hosts // 3)))
        h = int(next(h for h in order if cpu[h] >= cpu_m and memory[h] >= mib))
        cpu[h], memory[h] = cpu[h] - cpu_m, memory[h] - mib
        shape = Shape("vm", cpu_m, mib, 0, driver="kvm", nics=(("lan", 0),))
        items.append(Item(f"i{n:05}", f"i{n:05}", h, shape, "local", mib, 2 + mib / GIB / 2, cpu_m, mib, True))
    full, none = np.full(hosts, CORES * 1000), np.zeros(hosts, np.int64)
    store = np.full(hosts, _NO_STORE)
    view = View(
        names=tuple(f"h{n:04}" for n in range(hosts)), states=("ready",) * hosts, unknown=none.astype(np.bool_),
        clusters=("default",) * hosts, labels=({},) * hosts, kinds=(("vm",),) * hosts, drivers=("kvm",) * hosts,
        cpus_m=full, cpu_limit_m=full, cpu_left_m=cpu, memory_limit_mib=np.full(hosts, HOST_GIB * GIB),
        memory_left_mib=memory, physical_mib=np.full(hosts, HOST_GIB * GIB),
        instances=np.bincount([item.host for item in items], minlength=hosts),
        stores={"local": Store(np.arange(hosts), store, store, store, none.astype(np.bool_))},
        nets={"lan": Net(~none.astype(np.bool_), True, none, none[:1], none[:1])}, images={},
    )  # fmt: skip
    return Scene(view, tuple(range(hosts)), tuple(items), full)


def measured(kind: Kind, repeats: int = 3) -> tuple[float, Outcome]:
    """Return the CPU seconds of a plan for a fresh scene, the best of some, and what came of it, checked."""
    best = float("inf")
    for _ in range(repeats):
        one = scene()
        before = time.process_time()
        outcome = plan(one, Goal(kind))
        best = min(best, time.process_time() - before)
    assert first_refused(one.view, outcome.moves) is None
    return best, outcome


def figures() -> dict[str, float]:
    """Return the figures of `scripts/bench placement` and print what each plan comes to."""
    found: dict[str, float] = {}
    for kind, key in ((Kind.REBALANCE, "rebalance_s"), (Kind.CONSOLIDATE, "consolidate_s")):
        seconds, outcome = measured(kind)
        found[key] = round(seconds, 3)
        before, after = outcome.before, outcome.after
        proven = "optimal" if outcome.optimal else "not proven"
        print(
            f"{kind:12} {seconds:6.3f} s  {len(outcome.moves):4} moves, {proven};"
            f" hosts {before.used} → {after.used}, greatest share {before.greatest:.3f} → {after.greatest:.3f}"
        )
        if kind is Kind.CONSOLIDATE:
            found["consolidated_hosts"] = after.used
    return found


if __name__ == "__main__":
    import json

    print(json.dumps(figures()))
