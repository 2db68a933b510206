"""From tables to what a cluster's power is planned from: hosts with how long they are idle, and what is needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from blueprints.power import PowerSpec
from control import hosts, instances_on, placing_learned, sleeping, tables
from control.hosts import HostRecord
from control.power_plan import RESOURCES, Candidate, Change, plan
from core.clock import rfc3339
from core.states import UNFINISHED, HostState, InstanceState

_H, _C, _I, _OP, _R = tables.host, tables.cluster, tables.instance, tables.operation, tables.reservation
SOON = timedelta(hours=24)  # reservations that begin later are not seen to yet
_AWAKE = (HostState.READY, HostState.WAKING)


def decide(
    c: sa.Connection, cluster: str, policy: PowerSpec, outlook: Sequence[Mapping[str, Any]], now: datetime
) -> tuple[Change, dict[str, str | None]]:
    """Return what a cluster's power policy wants now, and of which hosts it is news since when they are idle, by id.

    outlook: rows of the history's view; a forecast that has not beaten its baseline is left out of account.
    """
    rows = c.execute(
        sa.select(
            _H, _C.c.name.label("cluster"), _C.c.cpu_overcommit.label("cluster_cpu_overcommit"),
            _C.c.memory_overcommit.label("cluster_memory_overcommit"),
        ).where(_H.c.cluster_id == _C.c.id, _C.c.name == cluster, _H.c.live_name.is_not(None)).order_by(_H.c.name)
    ).mappings().all()  # fmt: skip
    found = [(hosts.record_of(row), row) for row in rows]
    kept = _kept(c, [one for one, _ in found], now)
    empty = {host.id: host.id not in kept for host, _ in found}
    news = {host.id: rfc3339(now) if empty[host.id] else None for host, _ in found if _is_news(host, empty[host.id])}
    candidates = [_candidate(host, row, empty[host.id], now) for host, row in found]
    needed = _needed(c, cluster, [host.id for host, _ in found], outlook if policy.forecast else (), now)
    return plan(candidates, policy, needed, now.hour * 60 + now.minute), news


def _is_news(host: HostRecord, empty: bool) -> bool:
    return host.state is HostState.READY and empty is not bool((host.power or {}).get("idle_since"))


def _candidate(host: HostRecord, row: Mapping[Any, Any], empty: bool, now: datetime) -> Candidate:
    def since(key: str, never_s: float) -> float:
        text = (host.power or {}).get(key)
        return (now - sleeping.moment(text)).total_seconds() if text else never_s

    gives = {
        "cpu": host.cpus * placing_learned.own_or(row, "cpu_overcommit"),
        "memory_mib": host.memory_mib * placing_learned.own_or(row, "memory_overcommit"),
    }
    ready = host.state is HostState.READY and host.error is None
    return Candidate(
        host.name, host.state in _AWAKE, host.state is HostState.ASLEEP and host.error is None, gives,
        ready and empty, since("idle_since", 0.0), since("switched_at", float("inf")),
    )  # fmt: skip


def _kept(c: sa.Connection, found: Sequence[HostRecord], now: datetime) -> set[str]:
    """Return the ids of hosts that must not sleep: something is there or promised, or they cannot be woken."""
    busy = sa.select(_OP.c.subject).where(_OP.c.state.in_(UNFINISHED), _OP.c.subject.like("host/%"))
    reserved = sa.select(_R.c.host_id).where(_R.c.host_id.is_not(None), _R.c.ends_at > now)
    kept = {
        *c.scalars(sa.select(_I.c.host_id).where(_I.c.host_id.is_not(None)).distinct()),
        *c.scalars(sa.select(_I.c.other_host_id).where(_I.c.other_host_id.is_not(None)).distinct()),
        *(subject.partition("/")[2] for subject in c.scalars(busy)), *c.scalars(reserved),
    }  # fmt: skip
    can_wake = sleeping.wakeable(c, found)
    on = {host.id for host in found if host.id not in can_wake or host.labels.get(sleeping.LABEL) == "on"}
    return kept | on


def _needed(
    c: sa.Connection, cluster: str, host_ids: Sequence[str], outlook: Sequence[Mapping[str, Any]], now: datetime
) -> dict[str, float]:
    """Return by resource what is reserved and waits, or what is forecast where that is more, and what is promised."""
    held = list(instances_on.reserved(c, host_ids).values())
    used = {"cpu": sum(one.cpu for one in held), "memory_mib": float(sum(one.memory_mib for one in held))}
    for row in outlook:
        if row["cluster"] == cluster and row["proven"] and row["resource"] in used:
            used[row["resource"]] = max(used[row["resource"]], float(row.get("tomorrow_high") or 0.0))
    promised = c.execute(
        sa.select(sa.func.sum(_R.c.cpu).label("cpu"), sa.func.sum(_R.c.memory_mib).label("memory_mib"))
        .where(_R.c.cluster_id == _C.c.id, _C.c.name == cluster, _R.c.ends_at > now, _R.c.begins_at < now + SOON)
    ).mappings().one()  # fmt: skip
    return {one: used[one] + float(promised[one] or 0.0) for one in RESOURCES}


def waiting(c: sa.Connection) -> bool:
    """Say whether instances wait for room anywhere: nothing is put to sleep meanwhile."""
    return c.execute(sa.select(_I.c.id).where(_I.c.state == InstanceState.PENDING).limit(1)).first() is not None
