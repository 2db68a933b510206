"""Deploys that wait for room are tried again as soon as something frees or grows."""

from __future__ import annotations

import sqlalchemy as sa

from control import tables
from core.states import OperationState, Verb


def wake(c: sa.Connection) -> int:
    """Make every deploy that waits for capacity due now; return how many."""
    t = tables.operation
    return c.execute(
        sa.update(t)
        .where(t.c.state == OperationState.PENDING, t.c.verb == Verb.DEPLOY, t.c.not_before.is_not(None))
        .values(not_before=None)
    ).rowcount
