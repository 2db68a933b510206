"""Reservations for the future: room that is promised to somebody, and hosts that will be worked on."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blueprints.reservation import ReservationSpec
from control import clusters, hosts, sql, tables
from control.access import OPERATOR, Principal, sees_all
from control.waiting import wake
from core.clock import now, rfc3339
from core.errors import Conflict, Denied, Invalid, no_such
from core.ids import new_id

_T, _H, _C = tables.reservation, tables.host, tables.cluster
_ALL = (
    sa.select(_T, _H.c.name.label("host"), _C.c.name.label("cluster"))
    .select_from(_T.outerjoin(_H, _H.c.id == _T.c.host_id).outerjoin(_C, _C.c.id == _T.c.cluster_id))
    .order_by(_T.c.begins_at, _T.c.id)
)  # fmt: skip


def create(c: sa.Connection, principal: Principal, spec: ReservationSpec) -> dict[str, Any]:
    """Reserve; placements that begin later know of it. Raise Denied, NotFound, Conflict (name), Invalid (over)."""
    _require(principal, "make reservations")
    if spec.ends_at <= now():
        raise Invalid(f"{rfc3339(spec.ends_at)} is over", "reservation", {"now": rfc3339(now())}, "give a time to come")
    if c.execute(sa.select(_T.c.id).where(_T.c.name == spec.name)).first() is not None:
        told = f"reservation {spec.name} exists already"
        raise Conflict(told, f"reservation/{spec.name}", {}, "choose another name, or delete it first")
    row = {
        "id": new_id(), "name": spec.name, "kind": spec.kind,
        "host_id": hosts.get(c, spec.host).id if spec.host else None,
        "cluster_id": clusters.id_of(c, spec.cluster) if spec.cluster else None, "cpu": spec.cpu,
        "memory_mib": spec.memory_mib or 0, "begins_at": spec.begins_at, "ends_at": spec.ends_at, "reason": spec.reason,
        "owner": principal.name, "created_at": now(),
    }  # fmt: skip
    sql.insert(c, _T, [row])
    _touch(c, row)
    return show(c, principal, spec.name)


def list_(c: sa.Connection, principal: Principal, *, name: str | None = None) -> list[dict[str, Any]]:
    """Return reservations, the next one first; of one by name or id."""
    chosen = _ALL if name is None else _ALL.where(sa.or_(_T.c.name == name, _T.c.id == name))
    return [_view(row) for row in c.execute(chosen).mappings()]


def show(c: sa.Connection, principal: Principal, name: str) -> dict[str, Any]:
    """Return one reservation by name or id. Raise NotFound."""
    found = list_(c, principal, name=name)
    if not found:
        raise no_such("reservation", name)
    return found[0]


def delete(c: sa.Connection, principal: Principal, name: str) -> None:
    """Give back what is reserved; deploys that wait for room are tried again. Raise Denied, NotFound."""
    _require(principal, "delete reservations")
    _drop(c, _T.c.id == show(c, principal, name)["id"])


def over(c: sa.Connection, at: datetime) -> bool:
    """Say whether some reservation is over."""
    return c.execute(sa.select(_T.c.id).where(_T.c.ends_at <= at).limit(1)).first() is not None


def expire(c: sa.Connection, at: datetime) -> int:
    """Delete what is over; return how many. Deploys that wait for room are tried again."""
    return _drop(c, _T.c.ends_at <= at)


def check_usable(c: sa.Connection, principal: Principal, names: set[str]) -> None:
    """Raise NotFound for a reservation that is not there, Denied for one of somebody else."""
    for name in sorted(names):
        owner = show(c, principal, name)["owner"]
        if owner != principal.name and not sees_all(principal):
            told = f"reservation {name} is {owner}'s"
            raise Denied(told, f"reservation/{name}", {"owner": owner}, "ask its owner, or place without it")


def _drop(c: sa.Connection, which: sa.ColumnElement[bool]) -> int:
    rows = c.execute(sa.select(_T).where(which)).mappings().all()
    for row in rows:
        _touch(c, row)
        c.execute(sa.delete(_T).where(_T.c.id == row["id"]))
    if rows:
        wake(c)
    return len(rows)


def _touch(c: sa.Connection, row: Any) -> None:
    """Let placements that are being made on these hosts be made again."""
    where = _H.c.id == row["host_id"] if row["host_id"] else _H.c.cluster_id == row["cluster_id"]
    c.execute(sa.update(_H).where(where).values(version=_H.c.version + 1))


def _require(principal: Principal, what: str) -> None:
    if not sees_all(principal):
        raise Denied(f"{principal.name} may not {what}", "reservation", {"role": principal.role}, f"ask an {OPERATOR}")


def _view(row: Any) -> dict[str, Any]:
    return {
        "id": row["id"], "name": row["name"], "kind": row["kind"], "host": row["host"], "cluster": row["cluster"],
        "cpu": row["cpu"], "memory_mib": row["memory_mib"], "begins_at": rfc3339(row["begins_at"]),
        "ends_at": rfc3339(row["ends_at"]), "reason": row["reason"], "owner": row["owner"],
        "created_at": rfc3339(row["created_at"]),
    }  # fmt: skip
