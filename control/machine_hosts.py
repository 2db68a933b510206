"""The host that runs on a machine bears its name: what would take it away from its instances is refused."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from control import hosts, instances_on
from control.hosts import HostRecord
from core.errors import Conflict, NotFound
from core.states import HostState

RESTARTS = ("ironic+http://", "ironic+https://")  # addresses of BMCs whose inspection boots a ramdisk


def host_of(c: sa.Connection, name: str) -> HostRecord | None:
    """Return the live host on a machine, None where there is none."""
    try:
        found = hosts.get(c, name)
    except NotFound:
        return None
    return found if found.name == name and found.state is not HostState.RETIRED else None


def require_free(c: sa.Connection, name: str, what: str) -> None:
    """Raise Conflict while the host on a machine holds instances. what: "its power is cut"."""
    host = host_of(c, name)
    held = instances_on.names_on(c, host.id) if host is not None else []
    if held:
        raise Conflict(
            f"machine {name} is a host that holds {len(held)} instances, and {what}", f"machine/{name}",
            {"instances": held[:20]}, f"rackflow host evacuate {name}",
        )  # fmt: skip


def require_no_host(c: sa.Connection, name: str, what: str) -> None:
    """Raise Conflict while a machine is a host."""
    if host_of(c, name) is not None:
        raise Conflict(
            f"machine {name} is a host, and {what}", f"machine/{name}", {}, f"rackflow host retire {name}",
        )  # fmt: skip


def require_may_inspect(c: sa.Connection, name: str, spec: dict[str, Any]) -> None:
    """Raise Conflict where an inspection would restart what holds instances."""
    if spec["bmc"].startswith(RESTARTS):
        require_free(c, name, "an inspection restarts it")
