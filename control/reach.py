"""Which networks and datastores are there on which host, as observed, and what addresses a host's bridge gives."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
_BRIDGES = sa.select(_NET_HOST.c.network_id, _NET_HOST.c.cidr).where(_NET_HOST.c.host_id == sa.bindparam("host"))
_DATASTORES = sa.select(_DS_HOST.c.datastore_id).where(_DS_HOST.c.host_id == sa.bindparam("host"))


def record(
    c: sa.Connection, host_id: str, cluster_id: str, datastores: Sequence[tuple[str, int, int]],
    bridges: Mapping[str, str], at: datetime,
) -> bool:  # fmt: skip
    """Write what was seen on a host; return whether something reaches it that did not before.

    The caller updates the host's own row, which gives it a new mark (marks.py).
    """
    grown = _datastores(c, host_id, datastores, at)
    nets = c.execute(_NETWORKS, {"cluster": cluster_id}).all()
    there = {net.id: bridges[net.bridge] for net in nets if net.bridge in bridges}
    before = {row.network_id: row.cidr for row in c.execute(_BRIDGES, {"host": host_id})}
    lost = sorted(set(before) - set(there))
    if lost:
        c.execute(sa.delete(_NET_HOST).where(_NET_HOST.c.host_id == host_id, _NET_HOST.c.network_id.in_(lost)))
    sql.upsert(
        c, _NET_HOST,
        [{"network_id": net, "host_id": host_id, "cidr": cidr, "seen_at": at} for net, cidr in sorted(there.items())],
    )  # fmt: skip
    by_host = {net.id for net in nets if net.addressing == "host"}
    changed = [net for net, cidr in there.items() if before.get(net) != cidr and net in by_host]
    set_ranges(c, [(net, host_id, there[net]) for net in changed])
    return grown or bool(changed) or bool(set(there) - set(before))


def _datastores(c: sa.Connection, host_id: str, seen: Sequence[tuple[str, int, int]], at: datetime) -> bool:
    before = set(c.scalars(_DATASTORES, {"host": host_id}))
    now_there = {row_id for row_id, _, _ in seen}
    if before - now_there:
        c.execute(
            sa.delete(_DS_HOST).where(_DS_HOST.c.host_id == host_id, _DS_HOST.c.datastore_id.in_(before - now_there))
        )
    sql.upsert(
        c, _DS_HOST,
        [{"datastore_id": row_id, "host_id": host_id, "total_mib": total, "free_mib": free, "seen_at": at}
         for row_id, total, free in sorted(seen)],
    )  # fmt: skip
    return bool(now_there - before)


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
