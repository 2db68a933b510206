"""Records of the operations ledger, and the guard that every write to it passes: an older epoch is refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from core.errors import Conflict, no_such
from core.garbage import uncollected
from core.states import OperationState, StepState, Verb

_OP = tables.operation
_EPOCHS = (
    sa.select(_OP.c.id, _OP.c.epoch, _OP.c.finished_at.is_not(None), _OP.c.cancel_requested)
    .where(sql.among(_OP.c.id)).order_by(_OP.c.id).with_for_update()
)  # fmt: skip


class Stale(Conflict):
    """A newer epoch of the operation exists: whoever writes has lost it. operations: the ids of those lost."""

    code = "stale"

    @property
    def operations(self) -> list[str]:
        """Return the ids of the operations that were lost."""
        return list(self.evidence.get("operations", []))


@dataclass(frozen=True)
class Operation:
    """One verb on one subject ("instance/<id>"). epoch: of the claim under which it was read."""

    id: str
    request_id: str
    verb: Verb
    subject: str
    subject_name: str
    after_id: str | None
    asked_by: str
    parameters: dict[str, Any]
    state: OperationState
    reason: str
    error: dict[str, Any] | None
    epoch: int
    claimed_by: str | None
    flow_run_id: str | None
    cancel_requested: bool
    attempts: int
    not_before: datetime | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @property
    def subject_kind(self) -> str:
        """Return the noun: instance, host, image or cloud."""
        return self.subject.partition("/")[0]

    @property
    def subject_id(self) -> str:
        """Return what follows the noun."""
        return self.subject.partition("/")[2]


@dataclass(frozen=True)
class Step:
    """One stage of one operation."""

    id: str
    operation_id: str
    sequence: int
    name: str
    host: str
    state: StepState
    attempt: int
    changed: bool | None
    started_at: datetime | None
    finished_at: datetime | None
    evidence: dict[str, Any] | None
    error: dict[str, Any] | None
    compensation: str


_FIELDS = tuple(Operation.__dataclass_fields__)
_BY_ID = sa.select(*(_OP.c[name] for name in _FIELDS)).where(sql.among(_OP.c.id))
_VERBS, _STATES = {str(one): one for one in Verb}, {str(one): one for one in OperationState}


def operation_of(row: Mapping[Any, Any]) -> Operation:
    """Return the record for a row of the table operation."""
    values = {name: row[name] for name in Operation.__dataclass_fields__}
    values.update(verb=Verb(row["verb"]), state=OperationState(row["state"]))
    return Operation(**values)


def step_of(row: Mapping[Any, Any]) -> Step:
    """Return the record for a row of the table step."""
    values = {name: row[name] for name in Step.__dataclass_fields__}
    values.update(state=StepState(row["state"]))
    return Step(**values)


def _operation(row: Sequence[Any]) -> Operation:
    """Return the record for the values of its fields: there may be very many."""
    made = object.__new__(Operation)  # its own __init__ takes five times as long
    values = made.__dict__
    values.update(zip(_FIELDS, row, strict=True))
    values["verb"], values["state"] = _VERBS[values["verb"]], _STATES[values["state"]]
    return made


@uncollected()
def get(c: sa.Connection, ids: Sequence[str]) -> list[Operation]:
    """Return operations in the order asked for. Raise NotFound."""
    found = {row[0]: _operation(row) for row in sql.tuples_among(c, ids, _BY_ID)}
    missing = [one for one in ids if one not in found]
    if missing:
        raise no_such("operation", *missing)
    return [found[one] for one in ids]


def look(c: sa.Connection, ops: Sequence[Operation]) -> tuple[set[str], set[str]]:
    """Lock operations; return the ids of those of which a newer epoch exists or which are finished, and of those that
    somebody wants to be undone.
    """
    rows = sql.tuples_among(c, [op.id for op in ops], _EPOCHS)
    live = {row_id: epoch for row_id, epoch, ended, _ in rows if not ended}
    return {op.id for op in ops if live.get(op.id) != op.epoch}, {row_id for row_id, _, _, cancel in rows if cancel}


def stale_among(c: sa.Connection, ops: Sequence[Operation]) -> set[str]:
    """Lock the operations and return the ids of those of which a newer epoch exists, or which are finished."""
    return look(c, ops)[0]


def guard(c: sa.Connection, ops: Sequence[Operation]) -> None:
    """Lock the operations until the transaction ends. Raise Stale when one was claimed again or is finished."""
    lost = sorted(stale_among(c, ops))
    if lost:
        raise Stale(
            f"operation {lost[0]} was taken over or is finished" + (f", and {len(lost) - 1} more" if lost[1:] else ""),
            f"operation/{lost[0]}", {"operations": lost}, "leave it to its new holder",
        )  # fmt: skip
