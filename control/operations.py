"""The operations ledger: read, claim, step, end. Every write carries the epoch and is refused if a newer one exists.

claims.py and steps.py hold the parts about claims and steps; they are offered here as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import endings, outbox, sql, tables
from control.access import Principal, require
from control.claims import (
    active_of,
    claim_pending,
    claim_stands,
    drop_claim,
    release,
    renew_claim,
    set_flow_run,
)  # fmt: skip
from control.ledger import Operation, Stale, Step, get, guard, operation_of, stale_among
from control.operation_views import list_, show
from control.steps import (
    begin_step,
    begin_steps,
    end_step,
    end_steps,
    fail_step,
    fail_steps,
    note_step,
    steps_of,
    undo_step,
    undo_steps,
)  # fmt: skip
from core.clock import now
from core.errors import Conflict, RackflowError, no_such
from core.states import UNFINISHED, OperationState, Verb

__all__ = [
    "Operation", "Stale", "Step", "active_of", "begin_step", "begin_steps", "cancel", "cancel_all",
    "cancel_wanted", "claim_pending",
    "claim_stands", "compensating", "drop_claim", "end_step", "end_steps", "fail_step", "fail_steps", "finish",
    "finish_all", "get", "is_cancelled", "list_", "note_step", "postpone", "release", "renew_claim", "set_flow_run",
    "set_parameters", "show", "stale_among", "steps_of", "too_late", "undo_step",
    "undo_steps",
]  # fmt: skip

_T = tables.operation
_CANCELLED = sa.select(_T.c.cancel_requested).where(_T.c.id == sa.bindparam("id"))


def finish(
    c: sa.Connection, op: Operation, state: OperationState, *, error: RackflowError | None = None
) -> None:
    """End an operation: its subject is free for the next one. Raise Stale."""
    finish_all(c, [(op, state, error)])


def finish_all(
    c: sa.Connection, ends: Sequence[tuple[Operation, OperationState, RackflowError | None]], *, looked: bool = False
) -> None:  # fmt: skip
    """End several operations. Raise Stale, then none has ended. looked: as in `begin_steps`."""
    if not looked:
        guard(c, [op for op, _, _ in ends])
    _end(c, [(op, state, error.to_dict() if error else None) for op, state, error in ends])


def _end(c: sa.Connection, ends: Sequence[tuple[Operation, OperationState, dict[str, Any] | None]]) -> None:
    at = now()
    sql.update_each(
        c, _T,
        [{"id": op.id, "state": state, "open_subject": None, "finished_at": at, "claimed_by": None, "error": error,
          "reason": str((error or {}).get("message", ""))[:1024]} for op, state, error in ends],
    )  # fmt: skip
    outbox.emit_all(c, [
        ("operation", op.subject, {
            "operation": op.id, "request": op.request_id, "verb": op.verb, "subject": op.subject,
            "name": op.subject_name, "state": state, "asked_by": op.asked_by, "attempts": op.attempts,
            "waited_s": (op.started_at - op.created_at).total_seconds() if op.started_at else None,
            "duration_s": (at - op.created_at).total_seconds(), "error": (error or {}).get("code"),
        })
        for op, state, error in ends
    ])  # fmt: skip
    for op, state, error in ends:
        endings.apply(c, op, state, error)


def postpone(c: sa.Connection, op: Operation, reason: str, not_before: datetime | None) -> None:
    """Let an operation wait, held by nobody, with the reason; one that is being undone stays so. Raise Stale."""
    guard(c, [op])
    undoing = OperationState.COMPENSATING.value
    state = sa.case((_T.c.state == undoing, undoing), else_=OperationState.PENDING.value)
    c.execute(
        sa.update(_T).where(_T.c.id == op.id).values(
            state=state, claimed_by=None, not_before=not_before, reason=reason[:1024],
            flow_run_id=None,
        )
    )  # fmt: skip


def compensating(c: sa.Connection, op: Operation, error: RackflowError | None) -> None:
    """Write that an operation was given up and what it did is being undone, in runs counted anew. Raise Stale."""
    guard(c, [op])
    said = error.to_dict() if error else None
    c.execute(
        sa.update(_T).where(_T.c.id == op.id)
        .values(state=OperationState.COMPENSATING, error=said, reason=str(error or "cancelled")[:1024], attempts=0)
    )  # fmt: skip


def set_parameters(c: sa.Connection, op: Operation, parameters: dict[str, Any]) -> None:
    """Give an operation other parameters, for its next run. Raise Stale."""
    guard(c, [op])
    c.execute(sa.update(_T).where(_T.c.id == op.id).values(parameters=parameters))


def is_cancelled(c: sa.Connection, op: Operation) -> bool:
    """Return whether somebody wants an operation to be undone."""
    return bool(c.execute(_CANCELLED, {"id": op.id}).scalar_one_or_none())


def cancel_wanted(c: sa.Connection, operation_ids: Sequence[str]) -> set[str]:
    """Return which of these operations somebody wants to be undone."""
    rows = sql.fetch_in(
        c, operation_ids, lambda part: sa.select(_T.c.id).where(_T.c.id.in_(part), _T.c.cancel_requested.is_(True))
    )
    return {row["id"] for row in rows}


def too_late(c: sa.Connection, op: Operation) -> None:
    """Forget that an operation was to be cancelled: there is no way back any more. Raise Stale."""
    guard(c, [op])
    c.execute(sa.update(_T).where(_T.c.id == op.id).values(cancel_requested=False))


def cancel(c: sa.Connection, principal: Principal, operation_id: str) -> Operation:
    """Cancel an operation: at once if nobody runs it yet, else by asking its worker to undo it; return it.

    Raise NotFound, Denied, and Conflict for one that has ended.
    """
    row = c.execute(sa.select(_T).where(_T.c.id == operation_id).with_for_update()).mappings().one_or_none()
    if row is None:
        raise no_such("operation", operation_id)
    op = operation_of(row)
    require(principal, op.verb, op.asked_by, f"operation/{operation_id}")
    if op.state not in UNFINISHED:
        raise Conflict(f"operation {op.id} has ended: it is {op.state}", f"operation/{op.id}", {"state": op.state})
    cancel_all(c, [op], f"cancelled by {principal.name}")
    return get(c, [operation_id])[0]


def cancel_all(c: sa.Connection, ops: Sequence[Operation], reason: str) -> None:
    """Cancel unfinished operations whose rows the caller has locked.

    What nobody has begun ends at once. What is running, or was and waits for its next try, is asked to be undone: it is
    due now, and its worker sees the request.
    """
    begun = _begun(c, ops)
    pending = [op for op in ops if op.state is OperationState.PENDING and op.claimed_by is None]
    at_once = [op for op in pending if op.id not in begun]
    others = [op.id for op in ops if op not in at_once]
    sql.run_in(
        c, others,
        lambda part: sa.update(_T).where(_T.c.id.in_(part))
        .values(cancel_requested=True, not_before=None, after_id=None),
    )  # fmt: skip
    error = {**Conflict(reason).to_dict(), "code": "cancelled"}
    _end(c, [(op, OperationState.CANCELLED, error) for op in at_once])
    for op in at_once:
        endings.never_ran(c, op, reason)


def _begun(c: sa.Connection, ops: Sequence[Operation]) -> set[str]:
    """Return the ids of those that ran before, so that their worker ends them; of deploys: those on a host."""
    t = tables.instance
    deploys = {op.subject_id: op.id for op in ops if op.verb is Verb.DEPLOY}
    rows = sql.fetch_in(
        c, deploys, lambda part: sa.select(t.c.id).where(t.c.id.in_(part), t.c.host_id.is_not(None))
    )
    others = {op.id for op in ops if op.verb is not Verb.DEPLOY and op.started_at is not None}
    return {deploys[row["id"]] for row in rows} | others
