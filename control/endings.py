"""What the end of an operation means for its subject, so that none stays "enrolling" or "importing" for ever.

Instances get their state from who runs the operation (it knows whether everything was undone); only one that is
cancelled before anybody ran it gets it here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sa

from control import backups, failover, hosts, images, instances, machines, sleeping, tables
from control.ledger import Operation
from control.lifecycle import VERBS
from core.errors import Invalid
from core.states import HostState, InstanceState, MachineState, OperationState, Verb

Ending = Callable[[sa.Connection, Operation, Mapping[str, Any] | None], None]


def _not_enrolled(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    hosts.set_failed(c, op.subject_id, error)


def _no_machine(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    was = op.parameters.get("was")
    if op.parameters.get("commission"):
        machines.spare_again(c, op.subject_id)
    machines.set_failed(c, op.subject_id, error, MachineState(was) if was else None)


def _not_imported(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    images.set_failed(c, op.subject_id, error)


def _not_removed(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    images.keep(c, op.subject_id, error)


def _not_retired(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    """Leave it disabled, as the request for its retirement made it; say why it is still there."""
    t = tables.host
    c.execute(
        sa.update(t).where(t.c.id == op.subject_id, t.c.state == HostState.DISABLED)
        .values(error=dict(error) if error else None)
    )  # fmt: skip


def _not_fenced(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    """Say why nothing is started elsewhere; a host that is silent no more has nothing to say."""
    failover.not_fenced(c, op.subject_id, error)


def _not_saved(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    images.set_failed(c, str(op.parameters["image_id"]), error)


def _not_backed_up(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    backups.fail(c, str(op.parameters["backup_id"]), error)


def _not_sound(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    if error is not None and error.get("code") == Invalid.code:
        backups.mark_verified(c, op.subject_id, error)


_WITHOUT_SUCCESS: dict[Verb, Ending] = {
    Verb.ENROLL: _not_enrolled,
    Verb.ENROLL_MACHINE: _no_machine,
    Verb.IMPORT: _not_imported,
    Verb.REMOVE: _not_removed,
    Verb.RETIRE: _not_retired,
    Verb.FENCE: _not_fenced,
    Verb.SLEEP: sleeping.broken_off,
    Verb.WAKE: sleeping.broken_off,
    Verb.SAVE_IMAGE: _not_saved,
    Verb.BACKUP: _not_backed_up,
    Verb.TEST_BACKUP: _not_sound,
}


def apply(c: sa.Connection, op: Operation, state: OperationState, error: Mapping[str, Any] | None) -> None:
    """Bring the subject of an operation that ended into a state that may last."""
    goes_on = state is OperationState.HELD and op.verb in VERBS  # when the operator says so
    if state is not OperationState.DONE and not goes_on:
        given_up(c, op, error)


def given_up(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    """Let nothing wait any more for what an operation was to bring about."""
    ending = _WITHOUT_SUCCESS.get(op.verb)
    if ending is not None:
        ending(c, op, error)


def never_ran(c: sa.Connection, op: Operation, reason: str) -> None:
    """Bring the instance of a deploy that was cancelled while it waited into a state that may last."""
    if op.verb is Verb.DEPLOY:
        instances.set_state(c, op.subject_id, InstanceState.FAILED, epoch=op.epoch, reason=reason)
