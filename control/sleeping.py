"""Hosts that are off because nobody needs them: how one is chosen, falls asleep and wakes, as the record has it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from statistics import median
from typing import Any

import sqlalchemy as sa

from control import hosts, sql, tables
from control.hosts import HostRecord
from control.ledger import Operation, guard
from control.steps import steps_of
from control.waiting import wake
from core.clock import now, rfc3339
from core.errors import Conflict, HostFault, Unsupported
from core.states import RESTING, HostState, MachineState, OperationState, Verb

_T, _I, _OP, _M = tables.host, tables.instance, tables.operation, tables.machine
_MACHINES = sa.select(_M.c.live_name).where(sql.among(_M.c.live_name), _M.c.state == MachineState.READY)
LABEL = "rackflow.power"  # of a host; "on": no policy puts it to sleep
POWER_OFF = "power-off"  # the step from which on it may be off
_LAST = 20  # wakes that the usual time is taken from


def wakeable(c: sa.Connection, found: Sequence[HostRecord]) -> set[str]:
    """Return the ids of those hosts that something can switch on again: their own BMC, or the machine of their name."""
    without = {host.name for host in found if not host.spec.get("bmc")}
    machines = {row["live_name"] for row in sql.fetch_among(c, without, _MACHINES)}
    return {host.id for host in found if host.name not in without or host.name in machines}


def begin_sleep(c: sa.Connection, host: HostRecord) -> None:
    """Take a host that holds nothing out of use, to be switched off. Raise Conflict, Unsupported.

    One transaction with the check: who places there at the same time finds its version changed, and places again.
    """
    subject = f"host/{host.id}"
    state = _locked_state(c, host.id)
    if state != HostState.READY:
        raise Conflict(
            f"host {host.name} is {state}: only one that is ready is put to sleep", subject, {"state": state},
            "" if state in RESTING else f"rackflow host enable {host.name}",
        )  # fmt: skip
    if not wakeable(c, [host]):
        raise Unsupported(
            f"host {host.name} has no BMC that could switch it on again", subject, {}, "enroll it with bmc: address"
        )
    require_empty(c, host)
    hosts.set_state(c, host.id, HostState.FALLING_ASLEEP)


def begin_wake(c: sa.Connection, host: HostRecord) -> None:
    """Let a host that is asleep, or did not wake, be switched on. Raise Conflict."""
    state = _locked_state(c, host.id)
    if state != HostState.ASLEEP and not is_stuck(host):
        fix = "wait for it" if state in RESTING else "rackflow host show says why"
        raise Conflict(f"host {host.name} is {state}, not asleep", f"host/{host.id}", {"state": state}, fix)
    hosts.set_state(c, host.id, HostState.WAKING)


def _locked_state(c: sa.Connection, host_id: str) -> str:
    return str(c.scalar(sa.select(_T.c.state).where(_T.c.id == host_id).with_for_update()))


def require_empty(c: sa.Connection, host: HostRecord) -> None:
    """Raise Conflict while the record has anything on a host, off or on its way too."""
    there = sa.or_(_I.c.host_id == host.id, _I.c.other_host_id == host.id)
    held = list(c.scalars(sa.select(_I.c.name).where(there).order_by(_I.c.name)))
    if held:
        raise Conflict(
            f"host {host.name} holds {len(held)} instances", f"host/{host.id}", {"instances": held[:20]},
            f"rackflow host evacuate {host.name}",
        )  # fmt: skip


def require_chosen(c: sa.Connection, op: Operation, host: HostRecord) -> None:
    """Raise Conflict unless a host is still to be switched off and holds nothing, Stale."""
    guard(c, [op])
    state = _locked_state(c, host.id)
    if state != HostState.FALLING_ASLEEP:
        raise Conflict(f"host {host.name} is {state}: it is not put to sleep any more", f"host/{host.id}")
    require_empty(c, host)


def record_asleep(c: sa.Connection, op: Operation, host_id: str) -> None:
    """Write that a host is off. Raise Stale."""
    guard(c, [op])
    host = hosts.get(c, host_id)
    hosts.set_state(c, host_id, HostState.ASLEEP)
    _note(c, host, switched_at=rfc3339(now()), asleep_since=rfc3339(now()))


def record_awake(c: sa.Connection, op: Operation, host_id: str) -> None:
    """Write that a host is ready again, and how long it had slept; deploys that wait are tried. Raise Stale."""
    guard(c, [op])
    host = hosts.get(c, host_id)
    hosts.set_state(c, host_id, HostState.READY)
    power = host.power or {}
    slept_s = (now() - moment(power["asleep_since"])).total_seconds() if power.get("asleep_since") else 0.0
    _note(
        c, host, switched_at=rfc3339(now()), asleep_since=None, idle_since=None,
        slept_s=round(power.get("slept_s", 0.0) + slept_s, 1), cycles=power.get("cycles", 0) + bool(slept_s),
    )  # fmt: skip
    wake(c)


def note_idle(c: sa.Connection, since: Mapping[str, str | None]) -> None:
    """Write since when hosts hold nothing, by id; None: one holds something."""
    found = hosts.by_id(c, since).values()
    mark = tables.new_mark()  # set here: rows that are updated together get nothing by themselves
    sql.update_each(c, _T, [
        {"id": one.id, "power": {**(one.power or {}), "idle_since": since[one.id]}, "mark": mark} for one in found
    ])  # fmt: skip


def _note(c: sa.Connection, host: HostRecord, **values: Any) -> None:
    c.execute(sa.update(_T).where(_T.c.id == host.id).values(power={**(host.power or {}), **values}))


def broken_off(c: sa.Connection, op: Operation, error: Mapping[str, Any] | None) -> None:
    """Let a host whose sleep or wake did not come to its end be in a state that says so: ready, or faulty.

    Before it was told to switch off nothing has happened to it. A look that goes well makes it ready again.
    """
    host = hosts.get(c, op.subject_id)
    if host.state not in (HostState.FALLING_ASLEEP, HostState.WAKING):
        return
    begun = any(step.name == POWER_OFF for step in steps_of(c, [op.id]).get(op.id, ()))
    if op.verb is Verb.SLEEP and not begun:
        hosts.set_state(c, host.id, HostState.READY)
        return
    said = str((error or {}).get("message") or "it was cancelled")
    what = "switched off" if op.verb is Verb.SLEEP else "woken"
    hosts.set_state(c, host.id, HostState.FAULTY, HostFault(
        f"host {host.name} could not be {what}: {said}", f"host/{host.id}",
        {**((error or {}).get("evidence") or {}), "power": op.verb.value, "operation": op.id},
        f"look at its console and its BMC, then: rackflow host wake {host.name}",
    ), entered=True)  # fmt: skip


def is_stuck(host: HostRecord) -> bool:
    """Say whether a host is faulty because it could not be switched off or woken: that it is silent is no news."""
    return host.state is HostState.FAULTY and "power" in ((host.error or {}).get("evidence") or {})


def usual_wake_s(c: sa.Connection, host_id: str | None = None) -> float | None:
    """Return how long wakes took, the median of the last ones of a host, else of all hosts; None: there were none."""
    done = (
        sa.select(_OP.c.started_at, _OP.c.finished_at).order_by(_OP.c.id.desc()).limit(_LAST)
        .where(_OP.c.verb == Verb.WAKE, _OP.c.state == OperationState.DONE, _OP.c.started_at.is_not(None))
    )  # fmt: skip
    for part in ([done.where(_OP.c.subject == f"host/{host_id}")] if host_id else []) + [done]:
        took = [(row.finished_at - row.started_at).total_seconds() for row in c.execute(part)]
        if took:
            return float(median(took))
    return None


def moment(text: str) -> datetime:
    """Return a time that was written as text."""
    return datetime.fromisoformat(text)
