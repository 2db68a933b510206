"""What a host offers in cpus and memory, as it was last seen: a machine comes back from a reboot with less, or more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from control import drift
from control.hosts import HostRecord

SHRUNK = "shrunk"  # a host offers less than when it was last well


def change(c: sa.Connection, host: HostRecord, seen: Mapping[str, float]) -> tuple[dict[str, Any], bool]:
    """Return the columns of host to write, and whether it offers more than before; what was declared stays.

    seen: cpus and memory_mib. A loss is told as drift, which is gone when the host offers as much again.
    """
    was: dict[str, float] = {"cpus": host.cpus, "memory_mib": host.memory_mib}
    found = {what: was[what] if host.spec.get(what) else seen[what] for what in was}
    if found == was or host.cpus <= 0:
        return {}, False
    less = [what for what in found if found[what] < was[what]]
    if less:
        drift.open_(
            c, subject=f"host/{host.id}", host=host.name, kind=SHRUNK, policy=drift.ALERT,
            recorded={what: was[what] for what in less}, seen={what: found[what] for what in less},
        )  # fmt: skip
    else:
        _end(c, host.name, found)
    return found, any(found[what] > was[what] for what in found)


def _end(c: sa.Connection, name: str, found: Mapping[str, float]) -> None:
    for row in drift.open_rows(c, name, [SHRUNK]).values():
        if all(found[what] >= value for what, value in row.recorded.items()):
            drift.close(c, row.id, drift.GONE)
