"""Learned overcommit: how many cores count as taken on hosts that give away by what is used, not by what is allocated.

An instance counts with the 95th percentile of its use where that is known of it, as it is now and where it is now; all
others with their whole allocation, so what was placed since the figures were worked out is not forgotten.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from control import sql, tables
from control.instances_on import Reserved
from control.placement.model import Ints, Mask, millis

_T = tables.instance
FRESH_S = 7200  # figures that are older count for nothing
Features = Mapping[str, Any]


@dataclass(frozen=True)
class Cores:
    """Cores of all hosts in thousandths. learned: on which hosts it is the use that limits what is left."""

    limit_m: Ints
    left_m: Ints
    learned: Mask


def cores(
    c: sa.Connection, rows: Sequence[Mapping[Any, Any]], used: Sequence[Reserved], features: Features, at: datetime
) -> Cores:
    """Return what may be given away and what is left of it. rows: of hosts; used: what is reserved there, alike.

    A host gives away cpu_overcommit times its cores; where cpu_learned_max is set, its cores less what is demanded, and
    never more than so many times its cores.
    """
    limit = np.array([int(row["cpus"] * _ratio(row) * 1000 + 1e-6) for row in rows], np.int64)
    reserved = np.array([millis(one.cpu) for one in used], np.int64)
    most = [own_or(row, "cpu_learned_max") for row in rows]
    learned = np.array([one > 0 for one in most], np.bool_)
    if not learned.any():
        return Cores(limit, limit - reserved, learned)
    demands = _demands(c, rows, used, most, _fresh(features, at))
    for h in np.flatnonzero(learned).tolist():
        whole, cap = int(rows[h]["cpus"] * 1000), int(rows[h]["cpus"] * most[h] * 1000 + 1e-6)
        learned[h] = whole - demands[h] <= cap - reserved[h]
        limit[h], reserved[h] = (whole, demands[h]) if learned[h] else (cap, reserved[h])
    return Cores(limit, limit - reserved, learned)


def _ratio(row: Mapping[Any, Any]) -> float:
    return own_or(row, "cpu_overcommit")


def own_or(row: Mapping[Any, Any], column: str) -> float:
    """Return a column of a host, or its cluster's where it has none of its own."""
    own = row[column]
    return float(row[f"cluster_{column}"] if own is None else own)


def _fresh(features: Features, at: datetime) -> Mapping[str, Any]:
    """Return the figures of hosts, unless they are too old."""
    learned_at = float(features.get("use_at") or 0.0)
    return (features.get("hosts") or {}) if abs(at.timestamp() - learned_at) <= FRESH_S else {}


def _demands(
    c: sa.Connection, rows: Sequence[Mapping[Any, Any]], used: Sequence[Reserved], most: Sequence[float],
    hosts: Mapping[str, Any],
) -> list[int]:  # fmt: skip
    """Return what counts as taken on each host, in thousandths of cores: never more than what is reserved there."""
    uses = {row["id"]: hosts.get(row["name"]) or {} for row, cap in zip(rows, most, strict=True) if cap > 0}
    uses = {host_id: seen for host_id, seen in uses.items() if seen.get("uses")}
    spared = dict.fromkeys(uses, 0.0)
    for row in sql.fetch_in(
        c, sorted(uses), lambda part: sa.select(_T.c.id, _T.c.host_id, _T.c.cpu)
        .where(_T.c.host_id.in_(part), _T.c.granted.is_(None)),  # what is an instance's alone is nobody else's
    ):
        spared[row["host_id"]] += _spared(float(row["cpu"]), uses[row["host_id"]]["uses"].get(row["id"]))
    swing = {host_id: _number(seen.get("swing_cpus")) for host_id, seen in uses.items()}
    return [
        millis(min(one.cpu, one.cpu - spared.get(row["id"], 0.0) + swing.get(row["id"], 0.0)))
        for row, one in zip(rows, used, strict=True)
    ]


def _spared(cpu: float, seen: Sequence[float] | None) -> float:
    """Return the cores that an instance has and does not use; none when it had another size while it was watched."""
    if not seen or abs(float(seen[1]) - cpu) > 1e-6:
        return 0.0
    return max(0.0, cpu - _number(seen[0], cpu))


def _number(value: Any, otherwise: float = 0.0) -> float:
    """Return a figure, or otherwise where it is none that could be true."""
    known = value is not None and math.isfinite(value) and value >= 0
    return float(value) if known else otherwise
