"""What becomes of the instances of a fenced host: elsewhere where their disks are seen, else held until it is back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from blueprints.instance import InstanceSpec
from control import access, drift, instances, moving, operations, requests, sql, tables
from control.access import ADMIN
from control.hosts import HostRecord
from control.ledger import Operation, Step, operation_of
from control.lifecycle import no_return
from core.errors import Conflict, RackflowError
from core.states import UNFINISHED, HostState, InstanceState, Verb

SOURCE = "failover"
_T, _OP = tables.instance, tables.operation
_ON = (InstanceState.RUNNING, InstanceState.SUSPENDED, InstanceState.OFF)


def was_tried(c: sa.Connection, host: HostRecord) -> bool:
    """Say whether it was fenced, or tried to, since it fell silent: it is not tried again without a person."""
    since = datetime.fromisoformat((host.error or {})["evidence"]["since"])
    return c.scalar(
        sa.select(_OP.c.id).where(
            _OP.c.subject == f"host/{host.id}", _OP.c.verb == Verb.FENCE,
            sa.or_(_OP.c.created_at >= since, _OP.c.state.in_(UNFINISHED)),
        ).limit(1)
    ) is not None  # fmt: skip


def pursue(c: sa.Connection, host: HostRecord, identity: str) -> dict[str, list[str]]:
    """Let the instances of a fenced host start elsewhere where their disks are seen, hold the others; return both.

    busy: those that an operation is changing; it is asked to end, or ends by itself, and the next look goes on with
    them. Each is sent elsewhere once; one that could not is held. Raise Conflict (the host is not fenced any more).
    """
    state = c.scalar(sa.select(tables.host.c.state).where(tables.host.c.id == host.id).with_for_update())
    if state != HostState.FENCED:
        raise Conflict(f"host {host.name} is {state}, not fenced", f"host/{host.name}", {"state": state})
    rows = c.execute(
        sa.select(_T.c.id, _T.c.name, _T.c.state, _T.c.epoch, _T.c.spec, tables.datastore.c.shared)
        .select_from(_T.outerjoin(tables.datastore, tables.datastore.c.id == _T.c.datastore_id))
        .where(_T.c.host_id == host.id, _T.c.live_name.is_not(None)).order_by(_T.c.memory_mib, _T.c.id)
    ).mappings().all()  # fmt: skip
    _cancel(c, host, {f"instance/{row['id']}": row["spec"] for row in rows})
    busy = {op.subject_id for op in _running(c, [f"instance/{row['id']}" for row in rows])}
    done: dict[str, list[str]] = {"elsewhere": [], "held": [], "busy": []}
    for row in rows:
        if row["id"] in busy:
            done["busy"].append(row["name"])
        elif row["state"] in _ON:
            sent = bool(row["shared"]) and _send(c, host, row, identity)
            if not sent:
                _strand(c, host, row)
            done["elsewhere" if sent else "held"].append(row["name"])
    return done


def _cancel(c: sa.Connection, host: HostRecord, specs: Mapping[str, Any]) -> None:
    """Cancel what is under way with instances and cannot do without their dead host. specs: by subject."""
    running = [op for op in _running(c, list(specs)) if not op.cancel_requested]
    steps = operations.steps_of(c, [op.id for op in running])
    stuck = [op for op in running if _is_stuck(op, steps[op.id], specs[op.subject], host.name)]
    operations.cancel_all(c, stuck, f"cancelled: its host {host.name} is fenced")


def _is_stuck(op: Operation, steps: Sequence[Step], spec: Mapping[str, Any], host: str) -> bool:
    """Say whether an operation on an instance of a host that is off cannot do without it. Pure.

    What has come there because we chose it goes elsewhere when its next step fails. A fail-over leaves it; a delete
    leaves to it what lies there; what cannot be undone any more goes on as far as it can.
    """
    if no_return(op.verb, {step.name: step.state for step in steps}):
        return False
    if moving.came_to(steps) == host:
        return moving.asked_host(op.verb, op.parameters, InstanceSpec.model_validate(spec)) is not None
    return op.verb not in (Verb.FAILOVER, Verb.DELETE)


def _running(c: sa.Connection, subjects: Sequence[str]) -> list[Operation]:
    rows = sql.fetch_in(
        c, subjects,
        lambda part: sa.select(_OP).where(_OP.c.subject.in_(part), _OP.c.state.in_(UNFINISHED)).with_for_update(),
    )  # fmt: skip
    return [operation_of(row) for row in rows]


def _send(c: sa.Connection, host: HostRecord, row: sa.RowMapping, identity: str) -> bool:
    """Let an instance start elsewhere; False: that was tried since the host was fenced, or cannot be."""
    fence = c.scalar(
        sa.select(sa.func.max(_OP.c.id)).where(_OP.c.subject == f"host/{host.id}", _OP.c.verb == Verb.FENCE)
    )
    who = access.named(c, identity, role=ADMIN)
    try:
        accepted = requests.submit(
            c, who, Verb.FAILOVER, {"instances": [row["id"]]}, source=SOURCE,
            idempotency_key=f"{SOURCE}-{fence}-{row['id']}",
        )  # fmt: skip
    except RackflowError:  # refused before anything was written
        return False
    return not accepted.repeated


def _strand(c: sa.Connection, host: HostRecord, row: sa.RowMapping) -> None:
    """Hold an instance whose disks are on a fenced host, and note what it was, for when the host is back."""
    why = f"its disks are on {host.name}, which is fenced: power it on again or restore a backup"
    if row["shared"]:
        failed = c.execute(
            sa.select(_OP.c.id, _OP.c.reason).where(_OP.c.subject == f"instance/{row['id']}")
            .order_by(_OP.c.id.desc()).limit(1)
        ).first()  # fmt: skip
        why = f"{host.name} is fenced, and it could not be started elsewhere: {failed.reason if failed else ''}"
    instances.set_state(c, row["id"], InstanceState.HELD, epoch=row["epoch"], reason=why)
    drift.open_(
        c, subject=f"instance/{row['id']}", host=host.name, kind=drift.STRANDED, recorded={"state": row["state"]},
        seen={"reason": why}, policy=drift.REPAIR,
    )  # fmt: skip


def unstrand(c: sa.Connection, host: HostRecord) -> int:
    """Let the instances that were held with their host be what they were: it is back. Return how many."""
    rows = drift.open_rows(c, host.name, [drift.STRANDED]).values()
    known = {
        row["id"]: row for row in sql.fetch_in(
            c, [row.subject.removeprefix("instance/") for row in rows],
            lambda part: sa.select(_T.c.id, _T.c.state, _T.c.epoch, _T.c.host_id).where(_T.c.id.in_(part)),
        )
    }  # fmt: skip
    busy = {op.subject for op in _running(c, [row.subject for row in rows])}
    back: list[instances.StateChange] = []
    for row in rows:
        one = known.get(row.subject.removeprefix("instance/"))
        still = one is not None and (one["state"], one["host_id"]) == (InstanceState.HELD, host.id)
        if one is not None and still and row.subject not in busy and row.policy == drift.REPAIR:
            back.append((one["id"], _was(row.recorded), one["epoch"], f"host {host.name} is back"))
        drift.close(c, row.id, drift.REPAIRED if still else drift.GONE)
    instances.set_states(c, back)
    return len(back)


def _was(recorded: Mapping[str, Any]) -> InstanceState:
    """Return the state in which it comes back: memory is gone, so what was paused is off."""
    state = InstanceState(recorded["state"])
    return InstanceState.OFF if state is InstanceState.SUSPENDED else state


