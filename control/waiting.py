"""Deploys and fail-overs that wait for room are tried again as soon as something frees or grows; held ones are not."""

from __future__ import annotations

from datetime import UTC, datetime

import sqlalchemy as sa

from control import sql, tables
from core.states import OperationState, Verb

_T = tables.operation
_WAIT = (Verb.DEPLOY, Verb.FAILOVER)  # the others are given up after some tries, which a wake would use up
NEVER = datetime(9999, 1, 1, tzinfo=UTC)  # not_before of what its owner holds


def wake(c: sa.Connection) -> int:
    """Make every deploy and fail-over that waits for capacity due now; return how many.

    What another transaction has locked is left out: it is being claimed, and will look for itself, or is ending.
    """
    waits = (
        sa.select(_T.c.id)
        .where(
            _T.c.state == OperationState.PENDING, _T.c.verb.in_(_WAIT), _T.c.not_before.is_not(None),
            _T.c.not_before < NEVER,
        )
        .with_for_update(skip_locked=True)
    )  # fmt: skip
    due = list(c.scalars(waits))
    return sql.run_in(c, due, lambda part: sa.update(_T).where(_T.c.id.in_(part)).values(not_before=None))
