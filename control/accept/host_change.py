"""Evacuate, fence and adopt: what is asked of a host that is enrolled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from blueprints.common import Spec, read_spec
from blueprints.host_change import Adopt, Evacuate, Fence
from control import hosts
from control.accept.deploy import check_names_free
from control.accept.draft import Draft, busy, instead, names, unfinished
from control.access import Principal, require
from control.hosts import HostRecord
from core.errors import Conflict, Invalid, Unsupported
from core.states import HostState, Verb


def evacuate(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Let hosts be emptied: nothing more is placed there. Raise NotFound, Denied, Conflict."""
    parameters = {"round": 1, **_parameters(Evacuate, body)}
    found = _hosts(c, principal, Verb.EVACUATE, body)
    for host in found:
        _require_enrolled(host)
        if host.state is HostState.FENCED:
            raise Conflict(
                f"host {host.name} is fenced: its power is off", f"host/{host.name}", {"state": host.state},
                f"power it on, then: rackflow host enable {host.name}",
            )  # fmt: skip
        if host.state is not HostState.MAINTENANCE:
            hosts.set_state(c, host.id, HostState.DRAINING)
    return [Draft(f"host/{host.id}", host.name, parameters) for host in found]


def fence(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Let the power of dead hosts be cut; what else is under way with them is cancelled. Raise NotFound, Denied.

    One that is being fenced already is the answer.
    """
    parameters = _parameters(Fence, body)
    found = hosts.records(c, names(body, "hosts"))
    for host in found:
        require(principal, Verb.FENCE, None, f"host/{host.name}")
    running = unfinished(c, [f"host/{host.id}" for host in found])
    fences, still = instead(c, running, Verb.FENCE, f"cancelled: {principal.name} fences the host")
    drafts: list[Draft] = []
    for host in found:
        _require_enrolled(host)
        subject = f"host/{host.id}"
        before = still.get(subject, [])
        drafts.append(Draft(
            subject, host.name, parameters, existing=fences.get(subject), after_id=before[-1].id if before else None,
            waits_for_subject=bool(before),
        ))  # fmt: skip
    return drafts


def adopt(c: sa.Connection, principal: Principal, body: Mapping[str, Any]) -> list[Draft]:
    """Let instances that run on a host already become ours. Raise Invalid, NotFound, Denied, Conflict, Unsupported."""
    wanted = _parameters(Adopt, body)
    foreign, new = names(wanted, "instances"), wanted.get("names", {})
    unknown = sorted(set(new) - set(foreign))
    if unknown:
        raise Invalid(f"names: {unknown[0]} is not among the instances", "request", {"instances": foreign})
    given = [new.get(one, one) for one in foreign]
    if len(set(given)) != len(given):
        raise Invalid("two instances would bear the same name", "request", {"names": given})
    check_names_free(c, given)
    found = _hosts(c, principal, Verb.ADOPT, body)
    for host in found:
        _require_enrolled(host)
        if host.capabilities.get("adopt") is False:
            raise Unsupported(f"host {host.name} ({host.driver}) cannot hand over instances", f"host/{host.name}")
    return [Draft(f"host/{host.id}", host.name, wanted) for host in found]


def _parameters(model: type[Spec], body: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was given, checked. Raise Invalid with every wrong field."""
    found, wrong = read_spec(model, {key: value for key, value in body.items() if key != "hosts"}, "request")
    if found is None:
        field = wrong[0]["field"].removeprefix("request.")
        raise Invalid(f"{field}: {wrong[0]['message']}", "request", {"errors": wrong})
    return found.model_dump(mode="json", exclude_unset=True)


def _hosts(c: sa.Connection, principal: Principal, verb: Verb, body: Mapping[str, Any]) -> list[HostRecord]:
    """Return the hosts asked for, none of which is being changed. Raise NotFound, Denied, Conflict."""
    found = hosts.records(c, names(body, "hosts"))
    running = unfinished(c, [f"host/{host.id}" for host in found])
    for host in found:
        require(principal, verb, None, f"host/{host.name}")
        if f"host/{host.id}" in running:
            raise busy(running[f"host/{host.id}"][0])
    return found


def _require_enrolled(host: HostRecord) -> None:
    if host.cpus <= 0:
        raise Conflict(f"host {host.name} is not enrolled", f"host/{host.name}", {"state": host.state}, "enroll it")
