"""When a cluster runs out, and which spare machine would help: pure choice over forecasts, and what the record knows.

A spare is a machine with `spare: true` that is ready: known, inspected and checked, and told how it becomes a host
(`host`, perhaps `install`), which it does when it is commissioned. A cluster with the label `rackflow.commission` =
`automatic` commissions by itself; of the others it is proposed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control import machines, tables
from control.access import Principal, require
from control.inventories import at
from core.clock import rfc3339
from core.states import UNFINISHED, MachineState, Verb

LABEL, AUTOMATIC = "rackflow.commission", "automatic"
HORIZON = timedelta(days=30)  # what runs out later is not seen to yet: the forecast tells of 30 days
RESOURCES = ("cpu", "memory_mib")


@dataclass(frozen=True)
class Spare:
    """adds: by resource, what a cluster could give away more (its overcommit included). cluster: None = any."""

    name: str
    cluster: str | None
    adds: Mapping[str, float]


@dataclass(frozen=True)
class Proposal:
    """resource: the one that runs out first. short: by resource, what is missing in 30 days, at worst (of 80 %).

    machine: None = there is no spare for it. enough: whether it makes up for all that is short.
    """

    cluster: str
    resource: str
    runs_out_at: str
    proven: bool
    short: Mapping[str, float]
    machine: str | None
    enough: bool

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        return asdict(self)


def propose(outlook: Sequence[Mapping[str, Any]], spares: Sequence[Spare], now: datetime) -> list[Proposal]:
    """Return a proposal for each cluster that may run out within the horizon, the most urgent first.

    outlook: rows of the history's view. A spare is proposed once; the smallest that is enough, else the largest.
    """
    urgent: dict[str, list[Mapping[str, Any]]] = {}
    for row in sorted(outlook, key=lambda row: row["earliest_at"] or "9"):
        if row["resource"] in RESOURCES and row["earliest_at"] and _moment(row["earliest_at"]) <= now + HORIZON:
            urgent.setdefault(row["cluster"], []).append(row)
    left, found = list(spares), []
    for cluster, rows in urgent.items():
        short = {
            row["resource"]: round(max(row["in_30_days_high"] - row["total"], 0.0), 3)
            for row in outlook if row["cluster"] == cluster and row["resource"] in RESOURCES
        }  # fmt: skip
        chosen = _choose([one for one in left if one.cluster in (None, cluster)], short)
        if chosen is not None:
            left.remove(chosen)
        found.append(Proposal(
            cluster, rows[0]["resource"], rows[0]["earliest_at"], bool(rows[0]["proven"]), short,
            chosen.name if chosen else None, chosen is not None and _is_enough(chosen, short),
        ))  # fmt: skip
    return found


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _is_enough(spare: Spare, short: Mapping[str, float]) -> bool:
    return all(spare.adds.get(resource, 0.0) >= missing for resource, missing in short.items())


def _choose(spares: Sequence[Spare], short: Mapping[str, float]) -> Spare | None:
    def size(one: Spare) -> tuple[float, float, str]:
        return (one.adds.get("cpu", 0.0), one.adds.get("memory_mib", 0.0), one.name)

    enough = [one for one in spares if _is_enough(one, short)]
    return min(enough, key=size) if enough else max(spares, key=size, default=None)


def ready(c: sa.Connection) -> list[Spare]:
    """Return the spares that could be commissioned now."""
    t, op, cluster = tables.machine, tables.operation, tables.cluster
    busy = sa.select(op.c.subject).where(op.c.state.in_(UNFINISHED), op.c.subject.like("machine/%"))
    taken = {row.subject.partition("/")[2] for row in c.execute(busy)}
    ratios = {
        row.name: (row.cpu_overcommit, row.memory_overcommit)
        for row in c.execute(sa.select(cluster.c.name, cluster.c.cpu_overcommit, cluster.c.memory_overcommit))
    }  # fmt: skip
    rows = c.execute(
        sa.select(t.c.id, t.c.name, t.c.spec, t.c.classified)
        .where(t.c.live_name.is_not(None), t.c.state == MachineState.READY).order_by(t.c.id)
    )  # fmt: skip
    return [_spare(c, row, ratios) for row in rows if row.spec.get("spare") and row.id not in taken]


def _spare(c: sa.Connection, row: Any, ratios: Mapping[str, tuple[float, float]]) -> Spare:
    seen = machines.last_inventory(c, row.id) or {}
    cluster = (row.spec.get("host") or {}).get("cluster") or row.classified.get("cluster")
    cpu, memory = ratios.get(cluster or "default", (1.0, 1.0))
    adds = {"cpu": (at(seen, "cpu.count") or 0) * cpu, "memory_mib": (seen.get("memory_mib") or 0) * memory}
    return Spare(row.name, cluster, adds)


def proposals(
    c: sa.Connection, principal: Principal, outlook: Sequence[Mapping[str, Any]], now: datetime
) -> list[dict[str, Any]]:
    """Return what should be commissioned, with whether it is done by itself. Raise Denied."""
    require(principal, Verb.ENROLL_MACHINE, None, "machines")
    alone = automatic(c)
    found = propose(outlook, ready(c), now)
    return [{**one.to_dict(), "automatic": one.cluster in alone, "asked_at": rfc3339(now)} for one in found]


def automatic(c: sa.Connection) -> set[str]:
    """Return the clusters that commission spares by themselves."""
    t = tables.cluster
    return {row.name for row in c.execute(sa.select(t.c.name, t.c.labels)) if row.labels.get(LABEL) == AUTOMATIC}


def under_way(c: sa.Connection) -> set[str]:
    """Return the clusters for which a machine is being commissioned: its room is not in the forecast yet."""
    t, op = tables.machine, tables.operation
    rows = c.execute(
        sa.select(t.c.spec, t.c.classified, op.c.parameters)
        .where(op.c.subject == sa.literal("machine/") + t.c.id, op.c.state.in_(UNFINISHED))
    )  # fmt: skip
    return {
        (row.spec.get("host") or {}).get("cluster") or row.classified.get("cluster") or "default"
        for row in rows if row.parameters.get("commission")
    }  # fmt: skip
