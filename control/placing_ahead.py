"""What is promised for later, as placement looks at it: when each host's maintenance begins, and room that is held."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import sqlalchemy as sa

from control import tables
from control.placement.model import Floats, Hold, Ints, millis

_T, _I = tables.reservation, tables.instance


@dataclass(frozen=True)
class Room:
    """What is left of all hosts, thousandths of cores and MiB; usable: those that may take anything."""

    cpu_m: Ints
    memory_mib: Ints
    usable: Sequence[bool]


def ahead(
    c: sa.Connection, rows: Sequence[Mapping[Any, Any]], left: Room, at: datetime
) -> tuple[Floats | None, tuple[Hold, ...]]:
    """Return seconds to each host's next maintenance (None: there is none), and what is held. rows: of hosts."""
    promised = c.execute(sa.select(_T).where(_T.c.ends_at > at).order_by(_T.c.begins_at, _T.c.id)).mappings().all()
    if not promised:
        return None, ()
    windows = np.full(len(rows), np.inf)
    holds: list[Hold] = []
    free = Room(left.cpu_m.copy(), left.memory_mib.copy(), left.usable)
    for one in promised:
        begins_s = max(0.0, (one["begins_at"] - at).total_seconds())
        mine = (one["host_id"], one["cluster_id"])
        where = [h for h, row in enumerate(rows) if row["id"] == mine[0] or row["cluster_id"] == mine[1]]
        if one["kind"] == "maintenance":
            windows[where] = np.minimum(windows[where], begins_s)
        else:
            cpu_m, memory_mib = _owed(c, one)
            holds += _spread(one["name"], begins_s, cpu_m, memory_mib, where, free)
    return (windows if np.isfinite(windows).any() else None), tuple(holds)


def _owed(c: sa.Connection, one: Mapping[Any, Any]) -> tuple[int, int]:
    """Return what a hold still keeps: less what was placed into it already."""
    inside = _I.c.spec["requirements"]["reservation"].as_string() == one["name"]
    row = c.execute(
        sa.select(sa.func.sum(_I.c.cpu), sa.func.sum(_I.c.memory_mib)).where(inside, _I.c.host_id.is_not(None))
    ).one()
    return millis(max(0.0, one["cpu"] - float(row[0] or 0))), max(0, one["memory_mib"] - int(row[1] or 0))


def _spread(name: str, begins_s: float, cpu_m: int, memory_mib: int, where: Sequence[int], free: Room) -> list[Hold]:
    """Take a hold out of what is free of its hosts, from as few as it can; what does not fit is not held.

    Cores and memory are taken in the proportion that is asked for, so that they stand together. A host's own hold
    stays with it, however much that is.
    """
    if len(where) == 1:
        return [Hold(where[0], begins_s, cpu_m, memory_mib, name)]
    found: list[Hold] = []
    usable = [h for h in where if free.usable[h]]
    for h in sorted(usable, key=lambda h: -_share(free, h, cpu_m, memory_mib)):
        share = min(1.0, _share(free, h, cpu_m, memory_mib))
        taken = Hold(h, begins_s, int(np.ceil(cpu_m * share)), int(np.ceil(memory_mib * share)), name)
        if share <= 0 or not (taken.cpu_m or taken.memory_mib):
            break
        found.append(taken)
        free.cpu_m[h] -= taken.cpu_m
        free.memory_mib[h] -= taken.memory_mib
        cpu_m, memory_mib = max(0, cpu_m - taken.cpu_m), max(0, memory_mib - taken.memory_mib)
    return found


def _share(free: Room, h: int, cpu_m: int, memory_mib: int) -> float:
    """Return how often what is wanted fits on a host."""
    shares = [left / need for left, need in ((free.cpu_m[h], cpu_m), (free.memory_mib[h], memory_mib)) if need]
    return float(min(shares, default=0.0))
