"""Datastores: a folder by the same path on each host of a cluster."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from blueprints.datastore import DatastoreSpec
from control import clusters, marks, sql, tables
from control.access import Principal, require_admin
from core.clock import now, rfc3339
from core.errors import Conflict, no_such
from core.ids import new_id

_T = tables.datastore
_HOST = tables.datastore_host
_CLUSTER = tables.cluster
_BY_ID = sa.select(_T).where(sql.among(_T.c.id))
_ON_CLUSTER = (
    sa.select(_T).outerjoin(_CLUSTER, _CLUSTER.c.id == _T.c.cluster_id)
    .where(sa.or_(_T.c.cluster_id.is_(None), _CLUSTER.c.name == sa.bindparam("cluster")))
    .order_by(_T.c.created_at, _T.c.id)
)  # fmt: skip
_SEEN_ON = sa.select(_HOST.c.host_id, _HOST.c.datastore_id).where(sql.among(_HOST.c.host_id))


@dataclass(frozen=True)
class DatastoreRecord:
    """A datastore. cluster_id None: of every cluster."""

    id: str
    name: str
    path: str
    kind: str
    shared: bool
    overcommit: float
    cluster_id: str | None


def _record(row: sa.RowMapping) -> DatastoreRecord:
    return DatastoreRecord(**{name: row[name] for name in DatastoreRecord.__dataclass_fields__})


def by_id(c: sa.Connection, ids: Collection[str]) -> dict[str, DatastoreRecord]:
    """Return id -> datastore."""
    return {row["id"]: _record(row) for row in sql.fetch_among(c, set(ids), _BY_ID)}


def by_name(c: sa.Connection, names: Collection[str]) -> dict[str, DatastoreRecord]:
    """Return name -> datastore."""
    rows = sql.fetch_in(c, set(names), lambda part: sa.select(_T).where(_T.c.name.in_(part)))
    return {row["name"]: _record(row) for row in rows}


def on_cluster(c: sa.Connection, cluster: str) -> list[DatastoreRecord]:
    """Return the datastores that each host of a cluster is to have, oldest first."""
    return [_record(row) for row in c.execute(_ON_CLUSTER, {"cluster": cluster}).mappings()]


def _values(c: sa.Connection, spec: DatastoreSpec) -> dict[str, Any]:
    return {
        "kind": spec.kind, "path": spec.path, "shared": spec.shared, "overcommit": spec.overcommit,
        "labels": spec.labels, "cluster_id": clusters.id_of(c, spec.cluster) if spec.cluster else None,
    }  # fmt: skip


def differs(c: sa.Connection, spec: DatastoreSpec) -> list[str] | None:
    """Return the fields in which the record differs from a spec; None: there is no such datastore."""
    t = tables.cluster
    row = c.execute(
        sa.select(_T, t.c.name.label("cluster")).outerjoin(t, t.c.id == _T.c.cluster_id).where(_T.c.name == spec.name)
    ).mappings().one_or_none()  # fmt: skip
    if row is None:
        return None
    return [f for f in ("kind", "path", "shared", "overcommit", "labels", "cluster") if row[f] != getattr(spec, f)]


def ensure(c: sa.Connection, principal: Principal, spec: DatastoreSpec) -> tuple[str, bool]:
    """Make a datastore, or give it these values; return its id and whether anything changed. Raise Denied, Conflict."""
    require_admin(principal, "change datastores")
    changed = differs(c, spec)
    values = _values(c, spec)
    if changed is None:
        row_id = new_id()
        sql.insert(c, _T, [{"id": row_id, "name": spec.name, "created_at": now(), **values}])
        return row_id, True
    row_id = by_name(c, [spec.name])[spec.name].id
    fixed = sorted({"path", "shared", "kind"} & set(changed))
    if fixed and (users := _users(c, row_id)):
        raise Conflict(
            f"datastore {spec.name} holds volumes: its {' and '.join(fixed)} cannot change",
            f"datastore/{spec.name}", {"instances": users}, "make another datastore",
        )  # fmt: skip
    if changed:
        c.execute(sa.update(_T).where(_T.c.id == row_id).values(values))
    if "path" in changed:  # what was seen at the old path says nothing of the new one
        marks.touch_all(c)
        c.execute(sa.delete(_HOST).where(_HOST.c.datastore_id == row_id))
        c.execute(sa.delete(tables.image_copy).where(tables.image_copy.c.datastore_id == row_id))
    return row_id, bool(changed)


def _users(c: sa.Connection, datastore_id: str) -> list[str]:
    t = tables.instance
    return list(c.scalars(sa.select(t.c.name).where(t.c.datastore_id == datastore_id, t.c.live_name.is_not(None))))


def delete(c: sa.Connection, principal: Principal, name: str) -> None:
    """Forget a datastore without volumes; files on hosts stay. Raise Denied, NotFound, Conflict."""
    require_admin(principal, "change datastores")
    found = by_name(c, [name]).get(name)
    if found is None:
        raise no_such("datastore", name)
    if users := _users(c, found.id):
        raise Conflict(
            f"datastore {name} holds volumes of {', '.join(users[:5])}", f"datastore/{name}", {"instances": users},
            "delete those instances first",
        )  # fmt: skip
    marks.touch_all(c)
    c.execute(sa.update(tables.instance).where(tables.instance.c.datastore_id == found.id).values(datastore_id=None))
    for table in (_HOST, tables.image_copy):
        c.execute(sa.delete(table).where(table.c.datastore_id == found.id))
    c.execute(sa.delete(_T).where(_T.c.id == found.id))


def seen_on(c: sa.Connection, host_ids: Collection[str]) -> dict[str, set[str]]:
    """Return the ids of the datastores that the last look found on each host."""
    found: dict[str, set[str]] = {one: set() for one in host_ids}
    for row in sql.fetch_among(c, list(found), _SEEN_ON):
        found[row["host_id"]].add(row["datastore_id"])
    return found


def list_(c: sa.Connection, principal: Principal, *, name: str | None = None) -> list[dict[str, Any]]:
    """Return datastores with their room on each host, by name."""
    t, h = tables.cluster, tables.host
    statement = sa.select(_T, t.c.name.label("cluster")).outerjoin(t, t.c.id == _T.c.cluster_id).order_by(_T.c.name)
    if name is not None:
        statement = statement.where(sa.or_(_T.c.name == name, _T.c.id == name))
    rows = c.execute(statement).mappings().all()
    there: dict[str, list[dict[str, Any]]] = {}
    for row in sql.fetch_in(
        c, [row["id"] for row in rows],
        lambda part: sa.select(_HOST, h.c.name.label("host"))
        .where(_HOST.c.host_id == h.c.id, _HOST.c.datastore_id.in_(part)).order_by(h.c.name),
    ):  # fmt: skip
        there.setdefault(row["datastore_id"], []).append({
            "host": row["host"], "total_mib": row["total_mib"], "free_mib": row["free_mib"],
            "seen_at": rfc3339(row["seen_at"]),
        })  # fmt: skip
    return [_view(row, there.get(row["id"], [])) for row in rows]


def show(c: sa.Connection, principal: Principal, name: str) -> dict[str, Any]:
    """Return one datastore, by name or id. Raise NotFound."""
    found = list_(c, principal, name=name)
    if not found:
        raise no_such("datastore", name)
    return found[0]


def _view(row: sa.RowMapping, there: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "id": row["id"], "name": row["name"], "kind": row["kind"], "path": row["path"], "shared": row["shared"],
        "cluster": row["cluster"], "overcommit": row["overcommit"], "labels": row["labels"], "hosts": there,
        "created_at": rfc3339(row["created_at"]),
    }  # fmt: skip
