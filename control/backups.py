"""Backups of instances: chains of files in the front-end's store. An incremental one needs its parent."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.access import Principal, sees_all
from control.ledger import Operation, guard
from core.clock import now, rfc3339
from core.errors import Conflict, NotFound
from core.ids import new_id

_T = tables.backup
PENDING, READY, FAILED = "pending", "ready", "failed"


@dataclass(frozen=True)
class BackupRecord:
    """A backup. files: {disk, name, format, size_bytes, sha256, since}; spec: of the instance as it was."""

    id: str
    instance_id: str
    name: str
    state: str
    parent_id: str | None
    files: list[dict[str, Any]]
    spec: dict[str, Any]
    size_bytes: int
    error: dict[str, Any] | None
    created_at: datetime
    verified_at: datetime | None


def _record(row: Mapping[Any, Any]) -> BackupRecord:
    return BackupRecord(**{name: row[name] for name in BackupRecord.__dataclass_fields__})


def of_instance(c: sa.Connection, instance_id: str) -> list[BackupRecord]:
    """Return an instance's backups, oldest first."""
    rows = c.execute(sa.select(_T).where(_T.c.instance_id == instance_id).order_by(_T.c.id)).mappings()
    return [_record(row) for row in rows]


def newest(c: sa.Connection, instance_id: str) -> BackupRecord | None:
    """Return the newest backup that is whole."""
    ready = [one for one in of_instance(c, instance_id) if one.state == READY]
    return ready[-1] if ready else None


def get(c: sa.Connection, instance_id: str, instance: str, name: str) -> BackupRecord:
    """Return one backup that is whole. Raise NotFound, Conflict (not whole)."""
    known = of_instance(c, instance_id)
    for one in known:
        if one.name == name:
            if one.state != READY:
                raise Conflict(f"backup {name} of {instance} is {one.state}", f"instance/{instance}", one.error or {})
            return one
    raise NotFound(
        f"{instance} has no backup {name}", f"instance/{instance}", {"backups": [one.name for one in known]},
        f"rackflow backup list {instance} shows them",
    )  # fmt: skip


def by_id(c: sa.Connection, backup_id: str) -> BackupRecord:
    """Return a backup. Raise NotFound."""
    row = c.execute(sa.select(_T).where(_T.c.id == backup_id)).mappings().one_or_none()
    if row is None:
        raise NotFound(f"there is no backup {backup_id}", f"backup/{backup_id}")
    return _record(row)


def by_ids(c: sa.Connection, backup_ids: Collection[str]) -> dict[str, BackupRecord]:
    """Return id -> backup."""
    rows = sql.fetch_in(c, backup_ids, lambda part: sa.select(_T).where(_T.c.id.in_(part)))
    return {row["id"]: _record(row) for row in rows}


def chain(c: sa.Connection, backup_id: str) -> list[BackupRecord]:
    """Return what a backup is made of: the whole one first, then each that goes on from the one before."""
    last = by_id(c, backup_id)
    known = {one.id: one for one in of_instance(c, last.instance_id)}
    found = [last]
    while found[0].parent_id is not None:
        found.insert(0, known[found[0].parent_id])
    return found


def begin(c: sa.Connection, instance: Mapping[Any, Any], name: str, parent_id: str | None) -> str:
    """Make the row of a backup whose content is not there yet; return its id. Raise Conflict (name taken)."""
    known = {one.name: one for one in of_instance(c, instance["id"])}
    if name in known and known[name].state != FAILED:
        raise Conflict(f"{instance['name']} has a backup {name} already", f"instance/{instance['name']}")
    if name in known:
        c.execute(sa.delete(_T).where(_T.c.id == known[name].id))
    row_id = new_id()
    sql.insert(c, _T, [{
        "id": row_id, "instance_id": instance["id"], "name": name, "state": PENDING, "parent_id": parent_id,
        "files": [], "spec": instance["spec"], "size_bytes": 0, "error": None, "created_at": now(), "verified_at": None,
    }])  # fmt: skip
    return row_id


def record(c: sa.Connection, op: Operation, backup_id: str, files: Sequence[dict[str, Any]]) -> None:
    """Write that a backup is whole. One whose every file is whole goes on from no other. Raise Stale."""
    guard(c, [op])
    values: dict[str, Any] = {
        "state": READY, "files": list(files), "size_bytes": sum(f["size_bytes"] for f in files), "error": None,
    }  # fmt: skip
    if not any(f["since"] for f in files):
        values["parent_id"] = None
    c.execute(sa.update(_T).where(_T.c.id == backup_id).values(values))


def forget_files(c: sa.Connection, op: Operation, backup_id: str) -> None:
    """Write that a backup's files were taken away again: it has not come about. Raise Stale."""
    guard(c, [op])
    c.execute(sa.update(_T).where(_T.c.id == backup_id).values(state=PENDING, files=[], size_bytes=0))


def fail(c: sa.Connection, backup_id: str, error: Mapping[str, Any] | None) -> None:
    """Write that a backup did not come about."""
    c.execute(
        sa.update(_T).where(_T.c.id == backup_id, _T.c.state == PENDING)
        .values(state=FAILED, error=dict(error) if error else None)
    )  # fmt: skip


def mark_verified(c: sa.Connection, backup_id: str, error: Mapping[str, Any] | None) -> None:
    """Write how a test of a backup ended."""
    values = {"verified_at": now(), "error": None} if error is None else {"state": FAILED, "error": dict(error)}
    c.execute(sa.update(_T).where(_T.c.id == backup_id).values(values))


def superfluous(c: sa.Connection, instance_id: str, keep: int) -> list[BackupRecord]:
    """Return the backups beyond the newest `keep` that no kept one goes on from, oldest first; and failed ones."""
    known = of_instance(c, instance_id)
    ready = [one for one in known if one.state == READY]
    needed: set[str] = set()
    for one in ready[-keep:]:
        needed |= {part.id for part in chain(c, one.id)}
    return [one for one in known if one.state != PENDING and one.id not in needed]


def needed_by(c: sa.Connection, backup_id: str) -> list[str]:
    """Return the names of the backups that go on from one."""
    return list(c.scalars(sa.select(_T.c.name).where(_T.c.parent_id == backup_id).order_by(_T.c.id)))


def unknown(c: sa.Connection, ids: Collection[str]) -> set[str]:
    """Return which of these are no backups of the record: a row is there before its files, and as long as they are."""
    rows = sql.fetch_in(c, set(ids), lambda part: sa.select(_T.c.id).where(_T.c.id.in_(part)))
    return set(ids) - {row["id"] for row in rows}


def forget(c: sa.Connection, backup_ids: Sequence[str]) -> None:
    """Take the rows of backups away, whose files are gone."""
    sql.run_in(c, backup_ids, lambda part: sa.delete(_T).where(_T.c.id.in_(part)))


def list_(c: sa.Connection, principal: Principal, *, instance: str | None = None) -> list[dict[str, Any]]:
    """Return backups as the API shows them, oldest first; of one instance by name or id, also a deleted one's."""
    i = tables.instance
    statement = sa.select(_T, i.c.name.label("instance"), i.c.owner).where(i.c.id == _T.c.instance_id).order_by(_T.c.id)
    if instance is not None:
        statement = statement.where(sa.or_(i.c.name == instance, i.c.id == instance))
    if not sees_all(principal):
        statement = statement.where(i.c.owner == principal.name)
    names = dict(c.execute(sa.select(_T.c.id, _T.c.name)).all())
    return [
        {
            "id": row["id"], "name": row["name"], "instance": row["instance"], "instance_id": row["instance_id"],
            "state": row["state"], "parent": names.get(row["parent_id"]) if row["parent_id"] else None,
            "size_bytes": row["size_bytes"] or None, "files": row["files"], "error": row["error"],
            "created_at": rfc3339(row["created_at"]), "verified_at": rfc3339(row["verified_at"]),
        }
        for row in c.execute(statement).mappings()
    ]  # fmt: skip
