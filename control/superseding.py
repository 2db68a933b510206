"""An operation that is held while its instance is told something else, or marked: it never goes on after that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa

from control import endings, moving, sql, tables
from control.ledger import Operation, operation_of
from core.states import InstanceState, OperationState

_OP = tables.operation


def supersede(c: sa.Connection, rows: Sequence[Mapping[Any, Any]]) -> None:
    """End for good what is held of some instances. rows: theirs, locked, as they are before they change."""
    held = {f"instance/{row['id']}": row for row in rows if row["state"] == InstanceState.HELD}
    for op in _newest(c, held):
        row = held[op.subject]
        if op.state is OperationState.HELD and op.epoch >= row["epoch"]:  # else it was superseded before
            endings.given_up(c, op, op.error)
            moving.give_up(c, op, row)


def _newest(c: sa.Connection, subjects: Mapping[str, Any]) -> list[Operation]:
    """Return the last operation of each subject."""

    def build(part: list[Any]) -> sa.Select[Any]:
        last = sa.select(sa.func.max(_OP.c.id)).where(_OP.c.subject.in_(part)).group_by(_OP.c.subject)
        return sa.select(_OP).where(_OP.c.id.in_(last))

    return [operation_of(row) for row in sql.fetch_in(c, subjects, build)]
