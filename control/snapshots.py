"""Snapshots of instances, as the record has them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.ledger import Operation, guard
from core.clock import now, rfc3339
from core.errors import Conflict, NotFound
from core.ids import new_id

_T = tables.snapshot


@dataclass(frozen=True)
class SnapshotRecord:
    """A snapshot. disk "": of all disks; memory: it goes back to a running instance."""

    id: str
    name: str
    disk: str
    memory: bool
    created_at: datetime


def of_instance(c: sa.Connection, instance_id: str) -> list[SnapshotRecord]:
    """Return an instance's snapshots, oldest first."""
    rows = c.execute(sa.select(_T).where(_T.c.instance_id == instance_id).order_by(_T.c.id)).mappings()
    return [SnapshotRecord(**{name: row[name] for name in SnapshotRecord.__dataclass_fields__}) for row in rows]


def list_(c: sa.Connection, instance_id: str) -> list[dict[str, Any]]:
    """Return an instance's snapshots as the API shows them."""
    return [
        {"name": one.name, "disk": one.disk or None, "memory": one.memory, "created_at": rfc3339(one.created_at)}
        for one in of_instance(c, instance_id)
    ]


def get(c: sa.Connection, instance_id: str, instance: str, name: str) -> SnapshotRecord:
    """Return one snapshot. Raise NotFound."""
    known = of_instance(c, instance_id)
    for one in known:
        if one.name == name:
            return one
    raise NotFound(
        f"{instance} has no snapshot {name}", f"instance/{instance}", {"snapshots": [one.name for one in known]},
        f"rackflow snapshot list {instance} shows them",
    )  # fmt: skip


def require_free(c: sa.Connection, instance_id: str, instance: str, name: str) -> None:
    """Raise Conflict when there is a snapshot of that name."""
    if any(one.name == name for one in of_instance(c, instance_id)):
        raise Conflict(f"{instance} has a snapshot {name} already", f"instance/{instance}", {}, "choose another name")


def require_none(c: sa.Connection, row: Mapping[Any, Any], doing: str, *, carried: bool = True) -> None:
    """Raise Conflict while an instance has snapshots that its hypervisor knows on this host only.

    Those of single disks lie in the disks and go with them. carried: so do those of a hypervisor that carries its
    instances itself.
    """
    if not _go_along(row, carried):
        check_none(row, doing, bound_to_host(c, [row["id"]]).get(row["id"], []), carried=carried)


def _go_along(row: Mapping[Any, Any], carried: bool) -> bool:
    return carried and bool((row["capabilities"] or {}).get("carry"))


def bound_to_host(c: sa.Connection, ids: Collection[str]) -> dict[str, list[str]]:
    """Return instance id -> names of its snapshots of all disks, oldest first, of those that have any."""
    found: dict[str, list[str]] = {}
    for row in sql.fetch_in(
        c, ids,
        lambda part: sa.select(_T.c.instance_id, _T.c.name)
        .where(_T.c.instance_id.in_(part), _T.c.disk == "").order_by(_T.c.id),
    ):  # fmt: skip
        found.setdefault(row["instance_id"], []).append(row["name"])
    return found


def check_none(row: Mapping[Any, Any], doing: str, known: Sequence[str], *, carried: bool = True) -> None:
    """Raise Conflict as `require_none`, where the names of its snapshots of all disks are known already."""
    if known and not _go_along(row, carried):
        raise Conflict(
            f"{doing} is not possible while {row['name']} has snapshots: {', '.join(known)} are known to its host only",
            f"instance/{row['name']}", {"snapshots": list(known)}, f"rackflow snapshot delete {row['name']} {known[0]}",
        )  # fmt: skip


def record(c: sa.Connection, op: Operation, name: str, disk: str, memory: bool) -> None:
    """Write that a snapshot was taken. Raise Stale."""
    guard(c, [op])
    if any(one.name == name for one in of_instance(c, op.subject_id)):
        return
    sql.insert(c, _T, [{
        "id": new_id(), "instance_id": op.subject_id, "name": name, "disk": disk, "memory": memory, "created_at": now(),
    }])  # fmt: skip


def forget(c: sa.Connection, op: Operation, name: str | None = None) -> None:
    """Write that a snapshot is gone, or all of an instance's. Raise Stale."""
    guard(c, [op])
    statement = sa.delete(_T).where(_T.c.instance_id == op.subject_id)
    c.execute(statement if name is None else statement.where(_T.c.name == name))
