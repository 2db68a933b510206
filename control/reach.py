"""Which networks and datastores are there on which host, as observed, and what addresses a host's bridge gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import addresses, marks, sql, tables
from core.clock import rfc3339
from core.ids import new_id

_NET, _NET_HOST, _RANGE = tables.network, tables.network_host, tables.address_range
_DS, _DS_HOST = tables.datastore, tables.datastore_host
_NETWORKS = sa.select(_NET.c.id, _NET.c.bridge, _NET.c.addressing).where(
    sa.or_(_NET.c.cluster_id.is_(None), _NET.c.cluster_id == sa.bindparam("cluster"))
)
_BRIDGES = sa.select(_NET_HOST.c.host_id, _NET_HOST.c.network_id, _NET_HOST.c.cidr).where(
    sql.among(_NET_HOST.c.host_id)
)
_DATASTORES = sa.select(_DS_HOST.c.host_id, _DS_HOST.c.datastore_id).where(sql.among(_DS_HOST.c.host_id))


@dataclass(frozen=True)
class Reach:
    """What a look found on a host: datastores (id, total, free MiB), bridges (name -> "address/prefix" or "")."""

    host_id: str
    cluster_id: str
    datastores: Sequence[tuple[str, int, int]]
    bridges: Mapping[str, str]


def record(c: sa.Connection, seen: Sequence[Reach], at: datetime) -> bool:
    """Write what was seen on some hosts; return whether something reaches one of them that did not before.

    The caller updates the hosts' own rows, which gives them new marks (marks.py).
    """
    grown = _datastores(c, seen, at)
    nets = {one: c.execute(_NETWORKS, {"cluster": one}).all() for one in sorted({look.cluster_id for look in seen})}
    before: dict[str, dict[str, str]] = {look.host_id: {} for look in seen}
    for row in sql.fetch_among(c, list(before), _BRIDGES):
        before[row["host_id"]][row["network_id"]] = row["cidr"]
    rows, changed = [], []
    for look in seen:
        known = before[look.host_id]
        there = {net.id: look.bridges[net.bridge] for net in nets[look.cluster_id] if net.bridge in look.bridges}
        if lost := sorted(known.keys() - there.keys()):
            c.execute(
                sa.delete(_NET_HOST).where(_NET_HOST.c.host_id == look.host_id, _NET_HOST.c.network_id.in_(lost))
            )
        by_host = {net.id for net in nets[look.cluster_id] if net.addressing == "host"}
        rows += [
            {"network_id": net, "host_id": look.host_id, "cidr": cidr, "seen_at": at}
            for net, cidr in sorted(there.items())
        ]
        changed += [(n, look.host_id, cidr) for n, cidr in there.items() if n in by_host and known.get(n) != cidr]
        grown = grown or bool(there.keys() - known.keys())
    sql.upsert(c, _NET_HOST, rows)
    set_ranges(c, changed)
    return grown or bool(changed)


def _datastores(c: sa.Connection, seen: Sequence[Reach], at: datetime) -> bool:
    before: dict[str, set[str]] = {look.host_id: set() for look in seen}
    for row in sql.fetch_among(c, list(before), _DATASTORES):
        before[row["host_id"]].add(row["datastore_id"])
    grown = False
    for look in seen:
        there = {row_id for row_id, _, _ in look.datastores}
        if lost := before[look.host_id] - there:
            c.execute(
                sa.delete(_DS_HOST).where(_DS_HOST.c.host_id == look.host_id, _DS_HOST.c.datastore_id.in_(lost))
            )
        grown = grown or bool(there - before[look.host_id])
    sql.upsert(
        c, _DS_HOST,
        [{"datastore_id": row_id, "host_id": look.host_id, "total_mib": total, "free_mib": free, "seen_at": at}
         for look in seen for row_id, total, free in sorted(look.datastores)],
    )  # fmt: skip
    return grown


def set_ranges(c: sa.Connection, bridges: Iterable[tuple[str, str, str]]) -> None:
    """Give networks addressed by host the addresses of these bridges: (network id, host id, cidr or "")."""
    rows: list[dict[str, Any]] = []
    for network_id, host_id, cidr in bridges:
        c.execute(sa.delete(_RANGE).where(_RANGE.c.network_id == network_id, _RANGE.c.host_id == host_id))
        rows.extend(
            range_row(network_id, item) for item in (addresses.of_bridge(cidr, host_id) if cidr else [])
        )
    sql.insert(c, _RANGE, rows)


def range_row(network_id: str, item: addresses.Range) -> dict[str, Any]:
    """Return the row of address_range for a range."""
    return {
        "id": new_id(), "network_id": network_id, "host_id": item.host_id, "first": addresses.text(item.first),
        "last": addresses.text(item.last), "prefix_length": item.prefix_length, "gateway": item.gateway,
    }  # fmt: skip


def spread_network(c: sa.Connection, network_id: str, at: datetime) -> None:
    """Let a new or changed network reach the hosts on which its bridge was seen at the last look."""
    net = c.execute(sa.select(_NET).where(_NET.c.id == network_id)).one()
    host = tables.host
    statement = sa.select(host.c.id, host.c.facts).where(host.c.live_name.is_not(None))
    if net.cluster_id is not None:
        statement = statement.where(host.c.cluster_id == net.cluster_id)
    seen = {row.id: (row.facts.get("bridges") or {}).get(net.bridge) for row in c.execute(statement)}
    there = {host_id: cidr for host_id, cidr in seen.items() if cidr is not None}
    marks.touch_all(c)
    c.execute(sa.delete(_NET_HOST).where(_NET_HOST.c.network_id == network_id))
    sql.insert(
        c, _NET_HOST,
        [{"network_id": network_id, "host_id": h, "cidr": cidr, "seen_at": at} for h, cidr in there.items()],
    )  # fmt: skip
    if net.addressing == "host":
        set_ranges(c, [(network_id, h, cidr) for h, cidr in there.items()])


def forget(c: sa.Connection, host_id: str) -> None:
    """Take away all that was seen on a host that is retired."""
    marks.touch(c, [host_id])
    for table in (_DS_HOST, _NET_HOST, _RANGE, tables.image_copy):
        c.execute(sa.delete(table).where(table.c.host_id == host_id))


def of_host(c: sa.Connection, host_id: str) -> dict[str, Any]:
    """Return a host's datastores and networks for people to see."""
    stores = c.execute(
        sa.select(_DS.c.name, _DS.c.path, _DS_HOST.c.total_mib, _DS_HOST.c.free_mib, _DS_HOST.c.seen_at)
        .where(_DS.c.id == _DS_HOST.c.datastore_id, _DS_HOST.c.host_id == host_id).order_by(_DS.c.name)
    ).mappings()  # fmt: skip
    nets = c.execute(
        sa.select(_NET.c.name, _NET.c.bridge, _NET_HOST.c.cidr)
        .where(_NET.c.id == _NET_HOST.c.network_id, _NET_HOST.c.host_id == host_id).order_by(_NET.c.name)
    ).mappings()  # fmt: skip
    return {
        "datastores": [{**row, "seen_at": rfc3339(row["seen_at"])} for row in stores],
        "networks": [{**row, "cidr": row["cidr"] or None} for row in nets],
    }
