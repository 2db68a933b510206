"""The operator's ways out: an operation that stopped goes on or is undone; an instance is marked as it was found."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import sqlalchemy as sa

from control import instances, tables
from control.accept.draft import busy, unfinished
from control.access import Principal, require, require_admin
from control.ledger import Operation, get, operation_of
from control.lifecycle import VERBS, no_return
from control.steps import steps_of
from control.superseding import supersede
from core.errors import Conflict, Permanent, RackflowError, from_dict, no_such
from core.states import ImageState, InstanceState, OperationState, Verb

_T, _OP = tables.instance, tables.operation
_BY_HAND = (InstanceState.RUNNING, InstanceState.OFF, InstanceState.FAILED)
GIVEN_UP_FOR = "given_up_for"  # in the evidence of an error that came up while an operation was undone
_STOPPED = (OperationState.HELD, OperationState.FAILED, OperationState.COMPENSATED)


def retry(c: sa.Connection, principal: Principal, operation_id: str) -> Operation:
    """Let an operation that is held, or failed for a reason that may pass, go on at its first unfinished step.

    One that was held while it was undone goes on being undone.
    Raise NotFound, Denied, and Conflict: it did not stop, trying again cannot help, or its subject has changed since.
    """
    op = _stopped(c, principal, operation_id, _STOPPED)
    error = from_dict(op.error) if op.error else None
    if op.state is not OperationState.HELD and isinstance(error, Permanent):
        raise Conflict(
            f"operation {op.id} failed for good: {error.message}", f"operation/{op.id}", {"code": error.code},
            error.fix or "ask for something else",
        )  # fmt: skip
    if op.state is OperationState.HELD and error is not None and GIVEN_UP_FOR in error.evidence:
        _reopen(c, op, OperationState.COMPENSATING, f"tried again by {principal.name}", error=_given_up_for(op))
        return get(c, [op.id])[0]
    _reopen(c, op, OperationState.PENDING, f"tried again by {principal.name}", error=None)
    also = _REOPENED.get(op.verb)
    if also is not None:
        also(c, op)
    return get(c, [op.id])[0]


def abandon(c: sa.Connection, principal: Principal, operation_id: str) -> Operation:
    """Give up an operation that is held: its worker undoes what it did.

    Raise NotFound, Denied, and Conflict: it is not held, its subject has changed since, or there is no way back.
    """
    op = _stopped(c, principal, operation_id, (OperationState.HELD,))
    _require_way_back(c, op)
    _reopen(c, op, OperationState.COMPENSATING, f"given up by {principal.name}", error=_given_up_for(op))
    return get(c, [op.id])[0]


def while_undoing(op: Operation, error: RackflowError) -> RackflowError:
    """Return the error with which an operation is held that cannot be undone now; it keeps why it was given up."""
    fix = error.fix or f"mend that, then: rackflow operation retry {op.id}"
    return type(error)(
        f"it cannot be undone: {error.message}", error.subject, {**error.evidence, GIVEN_UP_FOR: op.error}, fix
    )


def _given_up_for(op: Operation) -> dict[str, Any] | None:
    """Return the error for which an operation was, or is, given up."""
    error = op.error or {}
    evidence: dict[str, Any] = error.get("evidence") or {}
    return evidence.get(GIVEN_UP_FOR, op.error)


def mark(c: sa.Connection, principal: Principal, name: str, state: InstanceState, reason: str = "") -> bool:
    """Write the state in which an administrator has found a held instance; return whether that changed anything.

    What stopped it is over with that: it cannot be tried again. Raise NotFound, Denied, Conflict.
    """
    require_admin(principal, "mark instances")
    wanted = instances.id_of(c, principal, name)
    running = unfinished(c, [f"instance/{wanted}"])
    row = c.execute(sa.select(_T).where(_T.c.id == wanted).with_for_update()).mappings().one()
    subject = f"instance/{row['name']}"
    if row["state"] == state:
        return False
    if running:
        raise busy(next(iter(running.values()))[0])
    if state not in _BY_HAND or row["state"] != InstanceState.HELD:
        raise Conflict(
            f"instance {row['name']} is {row['state']}: only one that is held can be marked, as running, off or failed",
            subject, {"state": row["state"], "wanted": state},
        )  # fmt: skip
    if state is not InstanceState.FAILED and row["host_id"] is None:
        raise Conflict(f"instance {row['name']} is on no host, so it is not {state}", subject, {}, "mark it as failed")
    supersede(c, [row])
    said = f"marked by {principal.name}" + (f": {reason}" if reason else "")
    return instances.set_state(c, wanted, state, epoch=row["epoch"] + 1, reason=said)


def _stopped(
    c: sa.Connection, principal: Principal, operation_id: str, allowed: tuple[OperationState, ...]
) -> Operation:
    """Lock and return an operation that may be opened again. Raise NotFound, Denied, Conflict."""
    row = c.execute(sa.select(_OP).where(_OP.c.id == operation_id).with_for_update()).mappings().one_or_none()
    if row is None:
        raise no_such("operation", operation_id)
    op = operation_of(row)
    require(principal, op.verb, op.asked_by, f"operation/{op.id}")
    if op.state not in allowed:
        states = " or ".join(allowed)
        raise Conflict(
            f"operation {op.id} is {op.state}: this is possible when it is {states}", f"operation/{op.id}",
            {"state": op.state, "allowed_from": list(allowed)},
        )  # fmt: skip
    running = unfinished(c, [op.subject]).get(op.subject)
    if running:
        raise busy(running[0])
    _require_unchanged(c, op)
    return op


def _require_unchanged(c: sa.Connection, op: Operation) -> None:
    """Raise Conflict when the subject was changed since: the steps that are done may not hold any more."""
    later = c.scalar(sa.select(_OP.c.id).where(_OP.c.subject == op.subject, _OP.c.id > op.id).limit(1))
    epoch = c.scalar(sa.select(_T.c.epoch).where(_T.c.id == op.subject_id)) if op.verb in VERBS else None
    if later is not None or (epoch is not None and epoch > op.epoch):
        raise Conflict(
            f"{op.subject_kind} {op.subject_name} was changed since operation {op.id}", f"operation/{op.id}",
            {"later": later}, "ask for it anew",
        )  # fmt: skip


def _require_way_back(c: sa.Connection, op: Operation) -> None:
    """Raise Conflict beyond the point of no return: what undoes the earlier steps would take the last copy away."""
    steps = steps_of(c, [op.id]).get(op.id, [])
    passed = no_return(op.verb, {step.name: step.state for step in steps}) if op.verb in VERBS else None
    if passed is not None and any(step.compensation for step in steps):
        raise Conflict(
            f"{op.verb} of {op.subject_name} cannot be undone any more: step {passed} has begun", f"operation/{op.id}",
            {"step": passed}, f"mend what stopped it, then: rackflow operation retry {op.id}",
        )  # fmt: skip


def _reopen(
    c: sa.Connection, op: Operation, state: OperationState, reason: str, *, error: dict[str, Any] | None
) -> None:
    c.execute(
        sa.update(_OP).where(_OP.c.id == op.id).values(
            state=state, open_subject=op.subject, finished_at=None, claimed_by=None, flow_run_id=None, after_id=None,
            not_before=None, cancel_requested=False, epoch=op.epoch + 1, attempts=0, reason=reason, error=error,
        )
    )  # fmt: skip


def _deploy_again(c: sa.Connection, op: Operation) -> None:
    """The hosts that it avoided may do by now."""
    kept = {key: value for key, value in op.parameters.items() if key not in ("avoid", "avoid_error")}
    c.execute(sa.update(_OP).where(_OP.c.id == op.id).values(parameters=kept))
    if op.state is OperationState.COMPENSATED:
        instances.set_state(c, op.subject_id, InstanceState.PENDING, epoch=op.epoch + 1)


def _image_again(c: sa.Connection, op: Operation) -> None:
    image_id = op.subject_id if op.verb is Verb.IMPORT else str(op.parameters["image_id"])
    t = tables.image
    c.execute(
        sa.update(t).where(t.c.id == image_id, t.c.state == ImageState.FAILED)
        .values(state=ImageState.PENDING, error=None)
    )  # fmt: skip


def _backup_again(c: sa.Connection, op: Operation) -> None:
    t = tables.backup
    wanted = sa.and_(t.c.id == str(op.parameters["backup_id"]), t.c.state == "failed")
    c.execute(sa.update(t).where(wanted).values(state="pending", error=None))


def _evacuate_again(c: sa.Connection, op: Operation) -> None:
    """What could not move then is asked for anew."""
    again = {**op.parameters, "round": int(op.parameters.get("round", 1)) + 1}
    c.execute(sa.update(_OP).where(_OP.c.id == op.id).values(parameters=again))


# What the end without success did to a noun (control/endings.py) is taken back.
_REOPENED: dict[Verb, Callable[[sa.Connection, Operation], None]] = {
    Verb.DEPLOY: _deploy_again,
    Verb.IMPORT: _image_again,
    Verb.SAVE_IMAGE: _image_again,
    Verb.BACKUP: _backup_again,
    Verb.EVACUATE: _evacuate_again,
}
