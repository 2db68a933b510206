"""Hosts that are asleep, and would hold what no host that is awake has room for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from control import sleeping
from control.placement import engine
from control.placement.model import Request
from control.placement.weights import DEFAULT
from control.placing_view import Cloud
from core.errors import NoCapacityNow, RackflowError
from core.states import HostState

WAKES = "wakes"  # key of the evidence: the host that is to be woken
_ON_CALL = (HostState.ASLEEP, HostState.WAKING)
_CLOSED = str(HostState.DISABLED)  # was tried already, and had no room


def told(
    c: sa.Connection, cloud: Cloud, requests: Sequence[Request], errors: Mapping[str, RackflowError],
    features: Mapping[str, Any] | None = None, policy: str = DEFAULT,
) -> dict[str, RackflowError]:  # fmt: skip
    """Return the errors of refused requests, by key, with the host that is woken for each, and how long that takes.

    Together, as they would be placed: as few hosts are woken as they need. A gang may need hosts that are on besides.
    """
    found = dict(errors)
    if not on_call(cloud):
        return found
    waits = [one for one in requests if isinstance(errors.get(one.key), NoCapacityNow)]
    gangs = any(one.gang for one in waits)
    states = tuple(_opened(state, gangs) for state in cloud.view.states)
    usual: dict[str, float | None] = {}
    for choice in engine.choose(replace(cloud.view, states=states), waits, features or {}, policy=policy):
        h = choice.host
        if h is None or cloud.view.states[h] not in _ON_CALL:
            continue
        host_id, name, key = cloud.ids[h], cloud.view.names[h], choice.request.key
        if host_id not in usual:
            usual[host_id] = sleeping.usual_wake_s(c, host_id)
        before = found[key]
        takes = "" if usual[host_id] is None else f", which usually takes {usual[host_id]:.0f} s"
        evidence = {**before.evidence, WAKES: name, "usually_s": usual[host_id]}
        found[key] = NoCapacityNow(
            f"waiting for host {name} to wake{takes}: no host that is on has room", before.subject, evidence
        )
    return found


def woken_by(error: BaseException | None) -> str:
    """Return the host that is woken for what was refused with an error, "" if there is none."""
    return str(error.evidence.get(WAKES) or "") if isinstance(error, RackflowError) else ""


def on_call(cloud: Cloud) -> bool:
    """Say whether there are hosts that could be woken."""
    return any(state in _ON_CALL for state in cloud.view.states)


def _opened(state: str, gangs: bool) -> str:
    if state in _ON_CALL:
        return str(HostState.READY)
    return state if gangs or state != HostState.READY else _CLOSED
