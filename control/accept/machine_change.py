"""Ask for something to be done to machines by their BMCs: power, identify LED, erasure of their disks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

import sqlalchemy as sa

from blueprints.machine import MachineAction
from control import machine_hosts
from control.accept.draft import Draft, check_keys, names
from control.accept.machine import at_rest
from control.access import Principal
from core.errors import Invalid
from core.states import Verb

ACTIONS: tuple[str, ...] = get_args(MachineAction)
_CUTS = ("power-off", "power-cut", "reset", "rescue")
# what must hold of the record before an action is begun; the others harm nothing
_GUARDS: dict[str, Callable[[sa.Connection, str], None]] = {
    **{one: lambda c, name: machine_hosts.require_free(c, name, "that would end them") for one in _CUTS},
    "erase": lambda c, name: machine_hosts.require_no_host(c, name, "its disks are its instances'"),
}


def change(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Draft one action on machines. Raise Conflict, Denied, Invalid, NotFound."""
    check_keys(body, ("machines", "action", "force"))
    action = body.get("action")
    if action not in ACTIONS:
        raise Invalid(f"{action!r} is no action on a machine", "request", fix=f"one of {', '.join(ACTIONS)}")
    drafts = []
    for one in at_rest(c, principal, Verb.CHANGE_MACHINE, names(body, "machines")):
        if not (body.get("force") and action in _CUTS):
            require_may(c, action, one.name)
        drafts.append(Draft(f"machine/{one.id}", one.name, {"action": action, "force": bool(body.get("force"))}))
    return drafts


def require_may(c: sa.Connection, action: str, name: str) -> None:
    """Raise Conflict when an action would harm what runs on a machine."""
    guard = _GUARDS.get(action)
    if guard is not None:
        guard(c, name)
