"""Drift: where the world was found to differ from the record, as rows that people and repairs look at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from control.access import Principal, require, sees_all
from core.clock import now, rfc3339
from core.errors import Conflict, Invalid, no_such
from core.ids import new_id
from core.states import UNFINISHED, Verb

_T = tables.drift
OPEN, REPAIRED, GONE = "open", "repaired", "gone"
REPAIR, ADOPT, IGNORE, ALERT = "repair", "adopt", "ignore", "alert"
POLICIES = (REPAIR, ADOPT, IGNORE, ALERT)  # set it right; take the record over; leave it alone; tell people
RESIDUE = "residue"  # something of an instance on a host where the record says that it is not
STRANDED = "stranded"  # an instance whose disks are on a host that was fenced
Key = tuple[str, str]  # subject, kind


@dataclass(frozen=True)
class Residue:
    """What is left of an instance on a host. host_name: of an adopted one, which is not ours to delete.

    kept: ids of datastores where its disks are in use from elsewhere.
    """

    id: str
    instance_id: str
    host_name: str
    kept: frozenset[str]


@dataclass(frozen=True)
class Row:
    """A difference as it is written down, or is to be."""

    subject: str
    kind: str
    policy: str
    recorded: Mapping[str, Any]
    seen: Mapping[str, Any]
    id: str = ""


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


_OPEN = (
    sa.select(_T).where(_T.c.host == sa.bindparam("on"), sql.among(_T.c.kind), _T.c.state == OPEN).order_by(_T.c.id)
)


def open_rows(c: sa.Connection, host: str, kinds: Collection[str]) -> dict[Key, Row]:
    """Return what is open on a host, of these kinds."""
    rows = c.execute(_OPEN, {"on": host, "among": list(kinds)}).mappings()
    return {
        (row["subject"], row["kind"]):
        Row(row["subject"], row["kind"], row["policy"], row["recorded"], row["seen"], row["id"])
        for row in rows
    }  # fmt: skip


_ON_HOSTS = sa.select(_T.c.host).where(sql.among(_T.c.host), _T.c.state == OPEN).distinct()


def hosts_with_open(c: sa.Connection, hosts: Collection[str]) -> set[str]:
    """Return those hosts on which anything is open."""
    return {row["host"] for row in sql.fetch_among(c, hosts, _ON_HOSTS)}


def sync(
    c: sa.Connection, host: str, before: Mapping[Key, Row], found: Collection[Row], busy: Collection[str]
) -> dict[Key, str]:
    """Open what was found and is not open yet, close what was not found again; return the policy of each one found.

    busy: subjects that an operation is changing; theirs is left as it is. What people chose as a policy stays.
    """
    keys = {(row.subject, row.kind) for row in found}
    at = now()
    sql.insert(c, _T, [
        {"id": new_id(), "subject": row.subject, "host": host, "kind": row.kind, "recorded": dict(row.recorded),
         "seen": dict(row.seen), "policy": row.policy, "state": OPEN, "since_at": at, "closed_at": None}
        for row in found if (row.subject, row.kind) not in before
    ])  # fmt: skip
    sql.update_each(c, _T, [
        {"id": row.id, "state": REPAIRED if row.policy == REPAIR else GONE, "closed_at": at}
        for key, row in before.items() if key not in keys and row.subject not in busy
    ])  # fmt: skip
    return {key: before[key].policy if key in before else row.policy
            for row in found for key in [(row.subject, row.kind)]}  # fmt: skip


def _select_residues() -> sa.Select[Any]:
    i, h, op, d = tables.instance, tables.host, tables.operation, tables.datastore
    subject, host = sa.literal("instance/") + i.c.id, sa.bindparam("on", type_=_T.c.host.type)
    here = sa.exists().where(
        sa.or_(i.c.host_id == h.c.id, i.c.other_host_id == h.c.id), h.c.live_name == host, subject == _T.c.subject
    )
    changing = sa.exists().where(op.c.subject == _T.c.subject, op.c.state.in_(UNFINISHED))
    in_use = sa.and_(d.c.shared.is_(True), sa.or_(d.c.id == i.c.datastore_id, d.c.id == i.c.other_datastore_id))
    return (
        sa.select(_T.c.id, _T.c.subject, i.c.host_name, d.c.id.label("store"))
        .select_from(_T.outerjoin(i, subject == _T.c.subject).outerjoin(d, in_use))
        .where(
            _T.c.host == host, _T.c.kind == RESIDUE, _T.c.policy == REPAIR, _T.c.state == OPEN, ~here, ~changing
        ).order_by(_T.c.id)
    )  # fmt: skip


_RESIDUES = _select_residues()


def residues(c: sa.Connection, host: str) -> list[Residue]:
    """Return what is owed to a host: leftovers of instances that the record does not have there, and nobody changes."""
    rows = c.execute(_RESIDUES, {"on": host}).all()
    kept: dict[str, set[str]] = {}
    for row in rows:
        kept.setdefault(row.id, set()).update([row.store] if row.store else [])
    return [
        Residue(row.id, row.subject.removeprefix("instance/"), row.host_name or "", frozenset(kept[row.id]))
        for row in {row.id: row for row in rows}.values()
    ]  # fmt: skip


_OWING = sa.select(_T.c.subject, _T.c.host).where(
    sql.among(_T.c.subject), _T.c.kind == RESIDUE, _T.c.state == OPEN
)


def owing(c: sa.Connection, subjects: Collection[str]) -> dict[str, set[str]]:
    """Return subject -> hosts where something of it is left: it does not go there before that was taken away."""
    found: dict[str, set[str]] = {}
    for subject, host in sql.tuples_among(c, subjects, _OWING):
        found.setdefault(subject, set()).add(host)
    return found


def ask_nobody(c: sa.Connection, subject: str) -> None:
    """Let what is left of an instance be taken away that a person was to judge: it is deleted, with all its copies."""
    left = sa.and_(_T.c.subject == subject, _T.c.kind == RESIDUE, _T.c.state == OPEN, _T.c.policy == ALERT)
    c.execute(sa.update(_T).where(left).values(policy=REPAIR))


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
        raise no_such("drift", drift_id)
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
