"""Hosts that were configured by us, and what differs there from what they were told to be."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from control import drift, tables
from control.drift import Row
from control.hosts import HostRecord
from core.states import MachineState, OperationState, Verb

CONFIGURATION = "configuration"


def was_configured(c: sa.Connection, host: HostRecord) -> bool:
    """Say whether somebody asked us to configure it, or it was a machine that we made a host of."""
    op, m = tables.operation, tables.machine
    asked = sa.select(op.c.id).where(
        op.c.subject == f"host/{host.id}", op.c.verb == Verb.CONFIGURE, op.c.state == OperationState.DONE
    )
    made = sa.select(m.c.id, m.c.spec).where(m.c.live_name == host.name, m.c.state == MachineState.READY)
    if c.execute(asked.limit(1)).first() is not None:
        return True
    machine = c.execute(made).first()
    return machine is not None and bool(machine.spec.get("host"))


def note(c: sa.Connection, host: HostRecord, missing: Sequence[str]) -> None:
    """Write what it lacks as drift that people are told of; nothing: what stood there is over."""
    before = drift.open_rows(c, host.name, [CONFIGURATION])
    seen = {"missing": list(missing), "fix": f"rackflow host configure {host.name}"}
    found = [Row(f"host/{host.id}", CONFIGURATION, drift.ALERT, {"missing": []}, seen)]
    drift.sync(c, host.name, before, found if missing else [], ())
