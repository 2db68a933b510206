"""Deploys that wait for room are tried again as soon as something frees or grows; those that are held are not."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from control import tables
from core.states import OperationState, Verb

NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # not_before of what its owner holds


def wake(c: sa.Connection) -> int:
    """Make every deploy that waits for capacity due now; return how many."""
    t = tables.operation
    return c.execute(
        sa.update(t)
        .where(
            t.c.state == OperationState.PENDING, t.c.verb == Verb.DEPLOY, t.c.not_before.is_not(None),
            t.c.not_before < NEVER,
        )
        .values(not_before=None)
    ).rowcount  # fmt: skip
