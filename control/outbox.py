"""Events on their way to DuckDB: written with the change they tell of, moved later, never lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import sql, tables
from core.clock import now

Event = tuple[str, str, dict[str, Any]]  # kind, subject, payload


def emit(
    c: sa.Connection, kind: str, subject: str, payload: dict[str, Any], *, at: datetime | None = None
) -> None:  # fmt: skip
    """Write one event; at: when it was, if not now."""
    emit_all(c, [(kind, subject, payload)], at=at)


def emit_all(c: sa.Connection, events: Sequence[Event], *, at: datetime | None = None) -> None:
    """Write events, all of one time, the present one if none is given."""
    at = at or now()
    sql.insert(
        c, tables.outbox,
        [{"at": at, "kind": kind, "subject": subject, "payload": payload, "moved": False}
         for kind, subject, payload in events],
    )  # fmt: skip


def unmoved(c: sa.Connection, limit: int = 1000) -> list[dict[str, Any]]:
    """Return events not yet moved, oldest id first: id, at, kind, subject, payload."""
    t = tables.outbox
    rows = c.execute(
        sa.select(t.c.id, t.c.at, t.c.kind, t.c.subject, t.c.payload)
        .where(t.c.moved.is_(False)).order_by(t.c.id).limit(limit)
    )  # fmt: skip
    return [dict(row) for row in rows.mappings()]


def mark_moved(c: sa.Connection, ids: Sequence[int]) -> None:
    """Mark events that history has."""
    t = tables.outbox
    sql.run_in(c, ids, lambda part: sa.update(t).where(t.c.id.in_(part)).values(moved=True))


def purge(c: sa.Connection, before: datetime) -> int:
    """Take away moved events older than a time; return how many."""
    t = tables.outbox
    return c.execute(sa.delete(t).where(t.c.moved.is_(True), t.c.at < before)).rowcount


def replay(c: sa.Connection) -> int:
    """Have all events that are still here moved once more, for a history that lost some; return how many."""
    t = tables.outbox
    return c.execute(sa.update(t).where(t.c.moved.is_(True)).values(moved=False)).rowcount
