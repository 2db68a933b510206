"""Hold: an instance that waits is not placed before its owner releases it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import instances, tables
from control.accept.draft import busy, unfinished
from control.access import Principal, require
from control.ledger import Operation
from control.waiting import NEVER
from core.errors import Conflict
from core.states import InstanceState, OperationState, Verb

_T, _OP = tables.instance, tables.operation


def hold(c: sa.Connection, principal: Principal, name: str) -> bool:
    """Do not place an instance yet; return whether that changed anything.

    Raise NotFound, Denied, and Conflict unless it waits and nobody has begun to make it.
    """
    row = _row(c, principal, name)
    if row["state"] == InstanceState.ON_HOLD:
        return False
    if row["state"] != InstanceState.PENDING:
        raise Conflict(
            f"instance {row['name']} is {row['state']}: only one that is pending can be held",
            f"instance/{row['name']}", {"state": row["state"]},
        )  # fmt: skip
    op = _deploy(c, row)
    if op.state is not OperationState.PENDING or op.claimed_by is not None:
        raise busy(op)
    _put(c, op, InstanceState.ON_HOLD, NEVER, f"held by {principal.name}")
    return True


def release(c: sa.Connection, principal: Principal, name: str) -> bool:
    """Let an instance that is held be placed; return whether that changed anything. Raise NotFound, Denied."""
    row = _row(c, principal, name)
    if row["state"] != InstanceState.ON_HOLD:
        return False
    _put(c, _deploy(c, row), InstanceState.PENDING, None, "")
    return True


def _row(c: sa.Connection, principal: Principal, name: str) -> Mapping[Any, Any]:
    wanted = instances.id_of(c, principal, name)
    row = c.execute(sa.select(_T).where(_T.c.id == wanted)).mappings().one()
    require(principal, Verb.DEPLOY, row["owner"], f"instance/{row['name']}")
    return row


def _deploy(c: sa.Connection, row: Mapping[Any, Any]) -> Operation:
    """Lock and return the deploy that an instance waits for. Raise Conflict."""
    found = unfinished(c, [f"instance/{row['id']}"]).get(f"instance/{row['id']}", [])
    deploys = [op for op in found if op.verb is Verb.DEPLOY]
    if not deploys:
        name = row["name"]
        raise Conflict(f"instance {name} waits for no deploy", f"instance/{name}", {"state": row["state"]})
    return deploys[0]


def _put(c: sa.Connection, op: Operation, state: InstanceState, until: datetime | None, reason: str) -> None:
    c.execute(sa.update(_OP).where(_OP.c.id == op.id).values(not_before=until, reason=reason))
    instances.set_state(c, op.subject_id, state, epoch=op.epoch, reason=reason)
