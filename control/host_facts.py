"""What machines are made of: looked at when they are enrolled, after each boot and once a day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import sqlalchemy as sa

from control import tables
from control.hardware_offered import Grant, offered
from control.placing_hardware import grants_on
from control.waiting import wake
from core.clock import now, rfc3339

_T = tables.host
_AGAIN_AFTER = timedelta(days=1)


def due(facts: Mapping[str, Any], at: datetime) -> bool:
    """Return whether what the record has of a machine is a day old, or of no known age."""
    gathered_at = facts.get("gathered_at")
    return not gathered_at or at - datetime.fromisoformat(gathered_at) >= _AGAIN_AFTER


def columns(
    spec: Mapping[str, Any], before: Mapping[str, Any], facts: Mapping[str, Any], grants: Sequence[Grant] = ()
) -> dict[str, Any]:
    """Return what the record keeps of a look at a machine: facts, and what single instances may have of it.

    before: the facts so far, of which those stay that are of every look: the bridges, and up to where events were read.
    grants: what instances have of it.
    """
    told = {"events_after": before["events_after"]} if "events_after" in before else {}
    kept = {**facts, **told, "bridges": before.get("bridges", {}), "gathered_at": rfc3339(now())}
    return {"facts": kept, "hardware": offered(facts, spec, grants)}


def record(c: sa.Connection, host_id: str, facts: Mapping[str, Any]) -> None:
    """Write what a later look found; deploys that wait are tried again where a host offers something else than before.

    What is granted stays so, also where it is not offered any more.
    """
    row = c.execute(sa.select(_T).where(_T.c.id == host_id).with_for_update()).mappings().one()
    found = columns(row["spec"], row["facts"], facts, grants_on(c, host_id))
    other = found["hardware"] != row["hardware"]
    if other:
        found |= {"version": _T.c.version + 1, "updated_at": now()}
    c.execute(sa.update(_T).where(_T.c.id == host_id).values(**found))
    if other:
        wake(c)
