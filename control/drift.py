"""Drift: where the world was found to differ from the record, as rows that people and repairs look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.access import Principal, require, sees_all
from core.clock import now, rfc3339
from core.errors import Conflict, Invalid, NotFound
from core.ids import new_id
from core.states import UNFINISHED, Verb

_T = tables.drift
OPEN, REPAIRED, GONE = "open", "repaired", "gone"
POLICIES = ("repair", "adopt", "ignore", "alert")  # that people may choose; "report" is as "alert"
RESIDUE = "residue"  # something of an instance on a host where the record says that it is not


@dataclass(frozen=True)
class Residue:
    """What is left of an instance on a host."""

    id: str
    instance_id: str


def open_(
    c: sa.Connection, *, subject: str, host: str, kind: str, recorded: Mapping[str, Any], seen: Mapping[str, Any],
    policy: str,
) -> str:  # fmt: skip
    """Write that something differs and return the row's id; what is open already stays as it was first seen."""
    known = c.execute(
        sa.select(_T.c.id).where(_T.c.subject == subject, _T.c.host == host, _T.c.kind == kind, _T.c.state == OPEN)
    ).scalar_one_or_none()  # fmt: skip
    if known is not None:
        return str(known)
    row_id = new_id()
    sql.insert(c, _T, [{
        "id": row_id, "subject": subject, "host": host, "kind": kind, "recorded": dict(recorded), "seen": dict(seen),
        "policy": policy, "state": OPEN, "since_at": now(), "closed_at": None,
    }])  # fmt: skip
    return row_id


def close(c: sa.Connection, drift_id: str, state: str) -> None:
    """Close a row: repaired, or gone by itself."""
    c.execute(
        sa.update(_T).where(_T.c.id == drift_id, _T.c.state == OPEN).values(state=state, closed_at=now())
    )


def close_others(c: sa.Connection, host: str, kinds: Collection[str], found: Collection[tuple[str, str]]) -> None:
    """Close the open rows of a host and of these kinds whose (subject, kind) was not found again."""
    rows = c.execute(
        sa.select(_T.c.id, _T.c.subject, _T.c.kind)
        .where(_T.c.host == host, _T.c.kind.in_(list(kinds)), _T.c.state == OPEN)
    ).all()  # fmt: skip
    gone = [row.id for row in rows if (row.subject, row.kind) not in found]
    at = now()
    sql.run_in(c, gone, lambda part: sa.update(_T).where(_T.c.id.in_(part)).values(state=GONE, closed_at=at))


def residues(c: sa.Connection, host: str) -> list[Residue]:
    """Return what is owed to a host: leftovers of instances that the record does not have there, and nobody changes.

    Not of those that live on another host with a shared datastore: their disks are seen from here as well.
    """
    i, h, op, d = tables.instance, tables.host, tables.operation, tables.datastore
    subject = sa.literal("instance/") + i.c.id
    here = sa.exists().where(i.c.host_id == h.c.id, h.c.live_name == host, subject == _T.c.subject)
    shared = sa.exists().where(i.c.datastore_id == d.c.id, d.c.shared.is_(True), subject == _T.c.subject)
    changing = sa.exists().where(op.c.subject == _T.c.subject, op.c.state.in_(UNFINISHED))
    rows = c.execute(
        sa.select(_T.c.id, _T.c.subject)
        .where(_T.c.host == host, _T.c.kind == RESIDUE, _T.c.state == OPEN, ~here, ~shared, ~changing).order_by(_T.c.id)
    )  # fmt: skip
    return [Residue(row.id, row.subject.removeprefix("instance/")) for row in rows]


def set_policy(c: sa.Connection, principal: Principal, drift_id: str, policy: str) -> bool:
    """Choose what is done about a row that is open; return whether that changed anything.

    Raise Denied, NotFound, Conflict (closed), Invalid.
    """
    require(principal, Verb.RECONCILE, None, "drift")
    if policy not in POLICIES:
        raise Invalid(f"{policy} is not a policy", f"drift/{drift_id}", {"policies": list(POLICIES)})
    row = get(c, principal, drift_id)
    if row["state"] != OPEN:
        raise Conflict(f"drift {drift_id} is {row['state']}", f"drift/{drift_id}", {"state": row["state"]})
    c.execute(sa.update(_T).where(_T.c.id == drift_id).values(policy=policy))
    return bool(row["policy"] != policy)


def get(c: sa.Connection, principal: Principal, drift_id: str) -> dict[str, Any]:
    """Return one row, open or closed. Raise NotFound."""
    found = list_(c, principal, state=None, only=drift_id)
    if not found:
        raise NotFound(f"there is no drift {drift_id}", f"drift/{drift_id}", {}, "rackflow drift list shows it")
    return found[0]


def list_(
    c: sa.Connection, principal: Principal, *, state: str | None = OPEN, host: str | None = None,
    limit: int | None = None, only: str | None = None,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return drift, oldest first; by default what is open. A user sees that of their own instances."""
    i = tables.instance
    statement = (
        sa.select(_T, i.c.name, i.c.owner)
        .select_from(_T.outerjoin(i, sa.literal("instance/") + i.c.id == _T.c.subject)).order_by(_T.c.id).limit(limit)
    )  # fmt: skip
    if state is not None:
        statement = statement.where(_T.c.state == state)
    if host is not None:
        statement = statement.where(_T.c.host == host)
    if only is not None:
        statement = statement.where(_T.c.id == only)
    if not sees_all(principal):
        statement = statement.where(i.c.owner == principal.name)
    return [
        {
            "id": row["id"], "subject": row["subject"], "name": row["name"], "host": row["host"], "kind": row["kind"],
            "recorded": row["recorded"], "seen": row["seen"], "policy": row["policy"], "state": row["state"],
            "since_at": rfc3339(row["since_at"]), "closed_at": rfc3339(row["closed_at"]),
        }
        for row in c.execute(statement).mappings()
    ]  # fmt: skip
