"""What a host itself tells, on its way into the history: each event once, with the mark up to which it was read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import outbox, tables
from control.hosts import HostRecord

KIND, MARK = "host-event", "events_after"  # kind in the history; key in a host's facts
_T = tables.host


def mark_of(host: HostRecord) -> str:
    """Return up to where the events of a host were read, "" if never."""
    return str(host.facts.get(MARK, ""))


def record(c: sa.Connection, host: HostRecord, events: Sequence[tuple[datetime, Mapping[str, Any]]], mark: str) -> None:
    """Write events (when, {instance_id, event, by, reason}), and up to where they were read; others were faster: none.

    Mark and events are one transaction: a look that is cut off is made again, and tells nothing twice.
    """
    row = c.execute(sa.select(_T.c.facts).where(_T.c.id == host.id).with_for_update()).mappings().one()
    if str(row["facts"].get(MARK, "")) != mark_of(host):
        return
    for at, event in events:
        subject = f"instance/{event['instance_id']}" if event["instance_id"] else f"host/{host.id}"
        outbox.emit(c, KIND, subject, {**event, "host": host.name, "driver": host.driver}, at=at)
    c.execute(sa.update(_T).where(_T.c.id == host.id).values(facts={**row["facts"], MARK: mark}))
