"""What can be given away and what is, of hosts, clusters, datastores and networks: samples for the history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from control import addresses, instances_on, networks, placing_hardware, placing_learned, sql, tables
from control.placing_learned import Features
from core.states import RESTING, HostState

Sample = dict[str, Any]
_GIVES = (HostState.READY, HostState.UNREACHABLE, *RESTING)  # a host that the operator took out gives nothing


def samples(c: sa.Connection, features: Features | None = None) -> list[Sample]:
    """Return {noun, name, host, cluster, resource, total, used}, overcommit included; disks as measured.

    noun: host, cluster, datastore (once per host), network; resource: cpu in cores, memory_mib, disk_mib, addresses.
    features: what was learned of the use of hosts. Cores are counted as placement counts them (placing_learned.py).
    """
    hosts = _hosts(c, features or {})
    return [*hosts, *_clusters(hosts), *_datastores(c), *_networks(c)]


def _sample(
    noun: str, name: str, host: str | None, cluster: str | None, resource: str, total: float, used: float
) -> Sample:
    return {"noun": noun, "name": name, "host": host, "cluster": cluster, "resource": resource, "total": float(total),
            "used": float(used)}  # fmt: skip


def _hosts(c: sa.Connection, features: Features) -> list[Sample]:
    h, t = tables.host, tables.cluster
    ratios = ("cpu_overcommit", "cpu_learned_max", "memory_overcommit")
    rows = c.execute(
        sa.select(
            h.c.id, h.c.name, h.c.state, h.c.cpus, h.c.memory_mib, h.c.hardware, t.c.name.label("cluster"),
            *(h.c[name] for name in ratios), *(t.c[name].label(f"cluster_{name}") for name in ratios),
        )
        .join(t, t.c.id == h.c.cluster_id).where(h.c.live_name.is_not(None)).order_by(h.c.name)
    ).mappings().all()  # fmt: skip
    held = instances_on.reserved(c, [row["id"] for row in rows])
    mine = [held.get(row["id"], instances_on.NOTHING) for row in rows]
    machines = placing_hardware.hardware_of(c, rows, ())
    shared, used = placing_hardware.shared_part(rows, mine, machines)
    cpu = placing_learned.cores(c, shared, used, features, sql.db_now(c))
    found: list[Sample] = []
    for n, (row, machine) in enumerate(zip(rows, machines, strict=True)):
        total_m, left_m = int(cpu.limit_m[n]), int(cpu.left_m[n])
        memory_mib = int(shared[n]["memory_mib"] * placing_learned.own_or(row, "memory_overcommit") + 1e-6)
        pages_mib = sum(machine.pages.values())
        found += [
            _of_host(row, "cpu", total_m / 1000 + len(machine.pinned), (total_m - left_m) / 1000 + machine.own_cpu),
            _of_host(row, "memory_mib", memory_mib + pages_mib, mine[n].memory_mib),
        ]
    return found


def _of_host(row: Mapping[Any, Any], resource: str, total: float, used: float) -> Sample:
    name = row["name"]
    return _sample("host", name, name, row["cluster"], resource, total if row["state"] in _GIVES else 0.0, used)


def _clusters(hosts: list[Sample]) -> list[Sample]:
    sums: dict[tuple[str, str], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for one in hosts:
        of = sums[one["cluster"], one["resource"]]
        of[0] += one["total"]
        of[1] += one["used"]
    return [
        _sample("cluster", cluster, None, cluster, resource, total, used)
        for (cluster, resource), (total, used) in sums.items()
    ]


def _datastores(c: sa.Connection) -> list[Sample]:
    d, there, h, t = tables.datastore, tables.datastore_host, tables.host, tables.cluster
    rows = c.execute(
        sa.select(d.c.name, h.c.name.label("host"), t.c.name.label("cluster"), there.c.total_mib, there.c.free_mib)
        .join(there, there.c.datastore_id == d.c.id).join(h, h.c.id == there.c.host_id)
        .join(t, t.c.id == h.c.cluster_id).order_by(d.c.name, h.c.name)
    )  # fmt: skip
    return [
        _sample("datastore", name, host, cluster, "disk_mib", total, total - free)
        for name, host, cluster, total, free in rows
    ]


def _networks(c: sa.Connection) -> list[Sample]:
    n, t = tables.network, tables.cluster
    rows = c.execute(
        sa.select(n.c.id, n.c.name, n.c.subnet, n.c.gateway, t.c.name.label("cluster"))
        .outerjoin(t, t.c.id == n.c.cluster_id).order_by(n.c.name)
    ).all()  # fmt: skip
    ids = [row.id for row in rows]
    pools, held = networks.ranges(c, ids), networks.leased(c, ids)
    return [
        _sample(
            "network", row.name, None, row.cluster, "addresses",
            addresses.count_free(pools[row.id], addresses.reserved(row.subnet, row.gateway)), len(held[row.id]),
        )
        for row in rows
    ]  # fmt: skip
