"""How much of everything there is, by state: for status pages."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from control import tables
from core.states import UNFINISHED


def counts(c: sa.Connection) -> dict[str, dict[str, int]]:
    """Return {"hosts", "instances", "operations"}, each state -> how many; live ones, unfinished operations."""
    host, instance, operation = tables.host, tables.instance, tables.operation
    return {
        "hosts": _by_state(c, host, host.c.live_name.is_not(None)),
        "instances": _by_state(c, instance, instance.c.live_name.is_not(None)),
        "operations": _by_state(c, operation, operation.c.state.in_(UNFINISHED)),
    }


def _by_state(c: sa.Connection, table: sa.Table, which: sa.ColumnElement[Any]) -> dict[str, int]:
    state = table.c.state
    rows = c.execute(sa.select(state, sa.func.count()).where(which).group_by(state).order_by(state))
    return {str(found): int(count) for found, count in rows}
