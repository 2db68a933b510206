"""Start, stop and delete instances that exist."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from control import operations, sql, tables
from control.accept.draft import Draft, busy, check_keys, names, unfinished
from control.access import Principal, require, sees_all
from control.ledger import Operation
from control.lifecycle import check_allowed
from core.errors import Invalid, NotFound
from core.states import InstanceState, Verb

_T = tables.instance
Accept = Callable[[sa.Connection, Principal, Mapping[str, Any]], list[Draft]]


def acceptor(verb: Verb) -> Accept:
    """Return the acceptor of start, stop or delete."""

    def accept(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
        check_keys(body, ("instances", "grace_s"))
        wanted = names(body, "instances")
        parameters = _grace(body)
        rows = _targets(c, principal, wanted)
        for row in rows:
            require(principal, verb, row["owner"], f"instance/{row['name']}")
        running = unfinished(c, [f"instance/{row['id']}" for row in rows])
        decide = _delete if verb is Verb.DELETE else _other
        return decide(c, principal, verb, rows, running, parameters)

    return accept


def _grace(body: Mapping[str, Any]) -> dict[str, Any]:
    grace = body.get("grace_s")
    if grace is None:
        return {}
    if isinstance(grace, bool) or not isinstance(grace, int | float) or not 0 <= grace <= 3600:
        raise Invalid("grace_s is not a number of seconds from 0 to 3600", "request", {"grace_s": grace})
    return {"grace_s": float(grace)}


def _targets(c: sa.Connection, principal: Principal, wanted: Sequence[str]) -> list[sa.RowMapping]:
    """Lock and return live instances by name or id, in the order asked for. Raise NotFound naming all that are not."""

    def build(part: list[Any]) -> sa.Select[Any]:
        return (
            sa.select(_T.c.id, _T.c.name, _T.c.owner, _T.c.state, _T.c.epoch)
            .where(sa.or_(_T.c.live_name.in_(part), _T.c.id.in_(part)), _T.c.live_name.is_not(None))
            .order_by(_T.c.id).with_for_update()
        )  # fmt: skip

    found: dict[str, sa.RowMapping] = {}
    for row in sql.fetch_in(c, wanted, build):
        if sees_all(principal) or row["owner"] == principal.name:
            found[row["id"]] = found[row["name"]] = row
    missing = [one for one in wanted if one not in found]
    if missing:
        raise NotFound(
            f"there is no instance {missing[0]}" + (f", and {len(missing) - 1} more" if missing[1:] else ""),
            f"instance/{missing[0]}", {"missing": missing}, "rackflow instance list shows them",
        )  # fmt: skip
    return list({found[one]["id"]: found[one] for one in wanted}.values())


def _other(
    c: sa.Connection, principal: Principal, verb: Verb, rows: Sequence[sa.RowMapping],
    running: Mapping[str, list[Operation]], parameters: dict[str, Any],
) -> list[Draft]:  # fmt: skip
    drafts: list[Draft] = []
    for row in rows:
        subject = f"instance/{row['id']}"
        if subject in running:
            raise busy(running[subject][0])
        check_allowed(verb, InstanceState(row["state"]), row["name"])
        drafts.append(Draft(subject, row["name"], parameters, epoch=row["epoch"]))
    return drafts


def _delete(
    c: sa.Connection, principal: Principal, verb: Verb, rows: Sequence[sa.RowMapping],
    running: Mapping[str, list[Operation]], parameters: dict[str, Any],
) -> list[Draft]:  # fmt: skip
    """Cancel what is under way; a delete that is under way already is the answer."""
    deletes = {s: op for s, ops in running.items() for op in ops if op.verb is Verb.DELETE}
    others = {s: ops for s, ops in running.items() if s not in deletes}
    operations.cancel_all(
        c, [op for ops in others.values() for op in ops], f"cancelled: {principal.name} deletes the instance"
    )
    still = unfinished(c, list(others)) if others else {}
    drafts: list[Draft] = []
    for row in rows:
        subject = f"instance/{row['id']}"
        before = still.get(subject, [])
        drafts.append(Draft(
            subject, row["name"], parameters, epoch=row["epoch"], existing=deletes.get(subject),
            after_id=before[-1].id if before else None, waits_for_subject=bool(before),
        ))  # fmt: skip
    return drafts
