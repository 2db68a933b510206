"""How many hosts a rule of overcommit needs, and how often they are over capacity then; of `scripts/bench history`.

Learned from a day of planted use, judged by the 12 hours after it. Instances come in one order and go to the first host
of 32 cores where the rule lets them.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from analytics import overcommit
from analytics.database import Database, Limits, rows_of
from analytics.learn import learn
from bench import planted

CORES = 32.0
HOURS = 12
Floats = npt.NDArray[np.float64]
# Of instances together: cores allocated, p95, use (instances, ticks) -> cores.
Demand = Callable[[Floats, Floats, Floats], float]
SHARES = {"calm": 0.11, "busy": 0.2}  # of its cores, used by the median instance

RULES: dict[str, Demand] = {
    "allocation": lambda cpus, p95, use: float(cpus.sum()),
    "2x": lambda cpus, p95, use: float(cpus.sum()) / 2,
    "4x": lambda cpus, p95, use: float(cpus.sum()) / 4,
    "learned": lambda cpus, p95, use: max(float(p95.sum()), float(use.sum(axis=0).mean() + 5 * use.sum(axis=0).std())),
}  # fmt: skip


def _series(database: Database, since_h: int, until_h: int) -> tuple[list[str], Floats]:
    """Return ids and the use of every instance by sample, between two times in hours before the end."""
    bounds = [planted.AT - timedelta(hours=since_h), planted.AT - timedelta(hours=until_h)]
    sql = """SELECT instance_id, list(cpu_used ORDER BY sampled_at) AS used FROM usage
             WHERE sampled_at > ? AND sampled_at <= ? GROUP BY instance_id ORDER BY instance_id"""
    with database.read() as cursor:
        rows = rows_of(cursor, sql, bounds)
    return [row["instance_id"] for row in rows], np.array([row["used"] for row in rows], np.float64)


def _pack(demand: Demand, cpus: Floats, p95: Floats, use: Floats) -> list[list[int]]:
    hosts: list[list[int]] = []
    for one in range(len(cpus)):
        for held in hosts:
            both = [*held, one]
            if demand(cpus[both], p95[both], use[both]) <= CORES:
                held.append(one)
                break
        else:
            hosts.append([one])
    return hosts


def compare(folder: Path, seed: int, load: str) -> dict[str, Any]:
    """Return {rule: {"hosts", "over_percent": 5-minute means above capacity, "hosts_over_percent"}}."""
    database = Database(folder / f"{load}.duckdb", Limits())
    planted.usage(database, seed, hosts=50, days=2, share=SHARES[load])
    learn(database, planted.AT - timedelta(hours=HOURS), overcommit.USE)
    ids, before = _series(database, 24 + HOURS, HOURS)
    later_ids, after = _series(database, HOURS, 0)
    with database.read() as cursor:
        learned = {row["instance_id"]: row for row in rows_of(cursor, "FROM learned_instance_use")}
    database.close()
    if ids != later_ids or set(ids) != set(learned) or not all(row["proven"] for row in learned.values()):
        raise RuntimeError("not every instance was there all the time")
    cpus = np.array([learned[one]["cpus"] for one in ids])
    p95 = np.array([learned[one]["counted_cpus"] for one in ids])
    found = {}
    for name, demand in RULES.items():
        hosts = _pack(demand, cpus, p95, before)
        over = np.array([after[held].sum(axis=0) > CORES for held in hosts])
        found[name] = {
            "hosts": len(hosts), "over_percent": round(100 * float(over.mean()), 3),
            "hosts_over_percent": round(100 * float(over.any(axis=1).mean()), 1),
        }  # fmt: skip
    return found
