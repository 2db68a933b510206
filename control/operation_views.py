"""Operations as people and programs see them: JSON-ready, only what the asker may see."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import sqlalchemy as sa

from control import tables
from control.access import Principal, sees_all
from control.ledger import Operation, Step, operation_of
from control.steps import steps_of
from core.clock import rfc3339
from core.errors import no_such
from core.states import OperationState, Verb

_T = tables.operation


def list_(
    c: sa.Connection, principal: Principal, *, ids: Collection[str] | None = None, state: str | None = None,
    verb: str | None = None, subject: str | None = None, request: str | None = None, steps: bool = False,
    looks: bool = True, limit: int | None = None, after: str | None = None, newest_first: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Return operations; a user sees only their own. subject: "instance/<id>" or a name; after: the last id seen.

    looks: False leaves out looks at hosts that went well; there is one each minute.
    """
    order = _T.c.id.desc() if newest_first else _T.c.id
    statement = sa.select(_T).order_by(order).limit(limit)
    for column, value in ((_T.c.state, state), (_T.c.verb, verb), (_T.c.request_id, request)):
        if value is not None:
            statement = statement.where(column == value)
    if not looks:
        statement = statement.where(sa.or_(_T.c.verb != Verb.RECONCILE, _T.c.state != OperationState.DONE))
    if ids is not None:
        statement = statement.where(_T.c.id.in_(list(ids)))
    if subject is not None:
        statement = statement.where(sa.or_(_T.c.subject == subject, _T.c.subject_name == subject))
    if after is not None:
        statement = statement.where(_T.c.id < after if newest_first else _T.c.id > after)
    if not sees_all(principal):
        statement = statement.where(_T.c.asked_by == principal.name)
    ops = [operation_of(row) for row in c.execute(statement).mappings()]
    found = steps_of(c, [op.id for op in ops]) if steps else {}
    return [view(op, found.get(op.id) if steps else None) for op in ops]


def show(c: sa.Connection, principal: Principal, operation_id: str) -> dict[str, Any]:
    """Return one operation with its steps. Raise NotFound."""
    found = list_(c, principal, ids=[operation_id], steps=True)
    if not found:
        raise no_such("operation", operation_id)
    return found[0]


def view(op: Operation, steps: list[Step] | None = None) -> dict[str, Any]:
    """Return an operation's JSON form; steps only when given."""
    seen: dict[str, Any] = {
        "id": op.id, "request": op.request_id, "verb": op.verb, "state": op.state, "subject": op.subject,
        "name": op.subject_name, "asked_by": op.asked_by, "parameters": op.parameters, "reason": op.reason or None,
        "error": op.error, "attempts": op.attempts, "after": op.after_id, "cancel_requested": op.cancel_requested,
        "flow_run": op.flow_run_id, "not_before": rfc3339(op.not_before), "created_at": rfc3339(op.created_at),
        "started_at": rfc3339(op.started_at), "finished_at": rfc3339(op.finished_at),
    }  # fmt: skip
    return seen if steps is None else {**seen, "steps": [_step(step) for step in steps]}


def _step(step: Step) -> dict[str, Any]:
    return {
        "sequence": step.sequence, "name": step.name, "host": step.host or None, "state": step.state,
        "attempt": step.attempt, "changed": step.changed, "started_at": rfc3339(step.started_at),
        "finished_at": rfc3339(step.finished_at), "evidence": step.evidence, "error": step.error,
        "compensation": step.compensation or None,
    }  # fmt: skip
