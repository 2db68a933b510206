"""Clusters: hosts that share datastores and networks, with their overcommit."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from blueprints.cluster import ClusterSpec
from blueprints.plan import RebalanceSpec
from blueprints.power import PowerSpec
from control import sql, tables
from control.access import Principal, require_admin
from control.placement.weights import check_policy
from core.clock import now, rfc3339
from core.errors import Conflict, no_such
from core.ids import new_id

DEFAULT = "default"
_T = tables.cluster
_FIELDS = (
    "cpu_overcommit", "cpu_learned_max", "memory_overcommit", "labels", "rebalance", "power", "placement_policy"
)  # fmt: skip
_SPECS = ("rebalance", "power")  # of these fields
# what hosts are placed by
_OF_HOSTS = frozenset({"cpu_overcommit", "cpu_learned_max", "memory_overcommit", "placement_policy"})


def id_of(c: sa.Connection, name: str) -> str:
    """Return the id of a cluster. Raise NotFound."""
    found = c.execute(sa.select(_T.c.id).where(_T.c.name == name)).scalar_one_or_none()
    if found is None:
        raise no_such("cluster", name)
    return str(found)


def differs(c: sa.Connection, spec: ClusterSpec) -> list[str] | None:
    """Return the fields in which the record differs from a spec; None: there is no such cluster."""
    row = c.execute(sa.select(_T).where(_T.c.name == spec.name)).mappings().one_or_none()
    return None if row is None else [field for field, value in _values(spec).items() if row[field] != value]


def _values(spec: ClusterSpec) -> dict[str, Any]:
    found = {field: getattr(spec, field) for field in _FIELDS}
    return {**found, **{name: found[name].model_dump(mode="json") for name in _SPECS if found[name] is not None}}


def ensure(c: sa.Connection, principal: Principal, spec: ClusterSpec) -> tuple[str, bool]:
    """Make a cluster, or give it these values; return its id and whether anything changed. Raise Denied, Invalid."""
    require_admin(principal, "change clusters")
    if spec.placement_policy is not None:
        check_policy(spec.placement_policy)
    changed = differs(c, spec)
    values = _values(spec)
    if changed is None:
        row_id = new_id()
        sql.insert(c, _T, [{"id": row_id, "name": spec.name, "created_at": now(), **values}])
        return row_id, True
    row_id = id_of(c, spec.name)
    if changed:
        c.execute(sa.update(_T).where(_T.c.id == row_id).values(values))
    if changed and _OF_HOSTS & set(changed):
        host = tables.host
        c.execute(sa.update(host).where(host.c.cluster_id == row_id).values(version=host.c.version + 1))
    return row_id, bool(changed)


def delete(c: sa.Connection, principal: Principal, name: str) -> None:
    """Take an empty cluster away. Raise Denied, NotFound, Conflict while something belongs to it."""
    require_admin(principal, "change clusters")
    row_id = id_of(c, name)
    host, datastore, network = tables.host, tables.datastore, tables.network
    kept = tables.reservation
    users = [
        *(f"host/{n}" for n in c.scalars(sa.select(host.c.name).where(host.c.cluster_id == row_id))),
        *(f"datastore/{n}" for n in c.scalars(sa.select(datastore.c.name).where(datastore.c.cluster_id == row_id))),
        *(f"network/{n}" for n in c.scalars(sa.select(network.c.name).where(network.c.cluster_id == row_id))),
        *(f"reservation/{n}" for n in c.scalars(sa.select(kept.c.name).where(kept.c.cluster_id == row_id))),
    ]
    if users or name == DEFAULT:
        why = f"it holds {', '.join(users[:5])}" if users else "it is the one that hosts join by default"
        raise Conflict(f"cluster {name} stays: {why}", f"cluster/{name}", {"holds": users})
    c.execute(sa.delete(_T).where(_T.c.id == row_id))


def automatic(c: sa.Connection) -> list[tuple[str, RebalanceSpec]]:
    """Return the clusters that plan and move by themselves, by name, with within which limits."""
    rows = c.execute(sa.select(_T.c.name, _T.c.rebalance).where(_T.c.rebalance.is_not(None)).order_by(_T.c.name))
    found = [(row.name, RebalanceSpec.model_validate(row.rebalance)) for row in rows]
    return [(name, limits) for name, limits in found if limits.automatic]


def power_savers(c: sa.Connection) -> list[tuple[str, PowerSpec]]:
    """Return the clusters that put idle hosts to sleep by themselves, by name, with within which limits."""
    rows = c.execute(sa.select(_T.c.name, _T.c.power).where(_T.c.power.is_not(None)).order_by(_T.c.name))
    found = [(row.name, PowerSpec.model_validate(row.power)) for row in rows]
    return [(name, limits) for name, limits in found if limits.automatic]


def list_(c: sa.Connection, principal: Principal, *, name: str | None = None) -> list[dict[str, Any]]:
    """Return clusters with the number of their hosts, by name."""
    host = tables.host
    count = sa.func.count(host.c.live_name).label("hosts")
    statement = sa.select(_T, count).outerjoin(host, host.c.cluster_id == _T.c.id).group_by(_T.c.id).order_by(_T.c.name)
    if name is not None:
        statement = statement.where(_T.c.name == name)
    return [_view(row) for row in c.execute(statement).mappings()]


def show(c: sa.Connection, principal: Principal, name: str) -> dict[str, Any]:
    """Return one cluster, by name or id. Raise NotFound."""
    by_id = c.execute(sa.select(_T.c.name).where(_T.c.id == name)).scalar_one_or_none()
    found = list_(c, principal, name=by_id or name)
    if not found:
        raise no_such("cluster", name)
    return found[0]


def _view(row: sa.RowMapping) -> dict[str, Any]:
    return {
        "id": row["id"], "name": row["name"], "hosts": row["hosts"], "cpu_overcommit": row["cpu_overcommit"],
        "cpu_learned_max": row["cpu_learned_max"], "memory_overcommit": row["memory_overcommit"],
        "labels": row["labels"], "rebalance": row["rebalance"], "power": row["power"],
        "placement_policy": row["placement_policy"],
        "created_at": rfc3339(row["created_at"]),
    }  # fmt: skip
