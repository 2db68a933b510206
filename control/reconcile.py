"""Record against world, host by host: what was expected, what was seen, what follows. The comparison is pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from control import drift, instances, sql, tables
from core.ids import from_host
from core.states import UNFINISHED, InstanceState, PowerState, Verb

_T = tables.instance
REPAIR, REPORT = "repair", "report"
_LASTING = (InstanceState.RUNNING, InstanceState.OFF, InstanceState.HELD)


@dataclass(frozen=True)
class Expected:
    """An instance that the record has on a host. epoch: at the time of the look; busy: an operation is changing it."""

    instance_id: str
    name: str
    state: InstanceState
    epoch: int
    busy: bool


@dataclass(frozen=True)
class Finding:
    """One difference. policy: repair or report; verb: what repairs it, None = nothing that the ledger could do."""

    kind: str
    instance_id: str
    name: str
    policy: str
    verb: Verb | None = None
    epoch: int = 0
    recorded: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Rule:
    """What a recorded state and a power seen together mean. state: what the record takes over, with reason."""

    kind: str
    policy: str
    verb: Verb | None = None
    state: InstanceState | None = None
    reason: str = ""


_DEAD = Rule("stopped", REPAIR, Verb.START, InstanceState.OFF, "found stopped on {host}")
_LOST = Rule("missing", REPORT, None, InstanceState.HELD, "not found on {host}: its disks may be lost")
RULES: dict[tuple[InstanceState, PowerState], Rule] = {
    (InstanceState.RUNNING, PowerState.STOPPED): _DEAD,
    (InstanceState.RUNNING, PowerState.CRASHED): _DEAD,
    (InstanceState.RUNNING, PowerState.PAUSED): Rule("paused", REPORT),
    (InstanceState.OFF, PowerState.RUNNING): Rule("running", REPORT),
    (InstanceState.OFF, PowerState.PAUSED): Rule("paused", REPORT),
    **{(state, PowerState.ABSENT): _LOST for state in _LASTING},
}
UNKNOWN, MISPLACED = "unknown", "misplaced"  # nothing is known of it here; the record has it on another host
KINDS = tuple(sorted({rule.kind for rule in RULES.values()} | {UNKNOWN, MISPLACED}))  # that a look opens and closes


def expected_on(c: sa.Connection, host_id: str) -> list[Expected]:
    """Return what the record has on a host. Read it before the look, so that a change meanwhile is noticed."""
    rows = c.execute(
        sa.select(_T.c.id, _T.c.name, _T.c.state, _T.c.epoch).where(_T.c.host_id == host_id).order_by(_T.c.id)
    ).all()  # fmt: skip
    busy = _busy(c, [row.id for row in rows])
    return [Expected(row.id, row.name, InstanceState(row.state), row.epoch, row.id in busy) for row in rows]


def _busy(c: sa.Connection, ids: Sequence[str]) -> set[str]:
    op = tables.operation
    found = sql.fetch_in(
        c, [f"instance/{one}" for one in ids],
        lambda part: sa.select(op.c.subject).where(op.c.subject.in_(part), op.c.state.in_(UNFINISHED)),
    )  # fmt: skip
    return {row["subject"].removeprefix("instance/") for row in found}


def compare(expected: Sequence[Expected], seen: Sequence[tuple[str, PowerState]]) -> list[Finding]:
    """Return where the world differs. seen: names as on the host, ours or not, with their power.

    An instance that an operation is changing is left out: what was seen of it may be old before it is written.
    """
    powers = {own: power for name, power in seen if (own := from_host(name)) is not None}
    found: list[Finding] = []
    for one in expected:
        power = powers.pop(one.instance_id, PowerState.ABSENT)
        rule = None if one.busy else RULES.get((one.state, power))
        if rule is not None:
            found.append(Finding(
                rule.kind, one.instance_id, one.name, rule.policy, rule.verb, one.epoch, {"state": str(one.state)},
                {"power": str(power)},
            ))  # fmt: skip
    for instance_id, power in sorted(powers.items()):
        found.append(Finding(UNKNOWN, instance_id, "", REPORT, None, 0, {"state": None}, {"power": str(power)}))
    return found


def record_findings(c: sa.Connection, host_id: str, host: str, findings: Sequence[Finding]) -> list[Finding]:
    """Write findings as drift, take over what is certain, close what is not found any more; return those that hold.

    An instance that was changed since `expected_on`, or is being changed now, is left alone.
    """
    rows = {
        row["id"]: row
        for row in sql.fetch_in(
            c, {one.instance_id for one in findings},
            lambda part: sa.select(_T.c.id, _T.c.name, _T.c.state, _T.c.epoch, _T.c.host_id)
            .where(_T.c.id.in_(part)).order_by(_T.c.id).with_for_update(),
        )
    }  # fmt: skip
    busy = _busy(c, list(rows))
    holding = [
        kept for one in findings
        if one.instance_id not in busy and (kept := _still(one, rows.get(one.instance_id), host_id)) is not None
    ]  # fmt: skip
    for one in holding:
        drift.open_(
            c, subject=f"instance/{one.instance_id}", host=host, kind=one.kind, recorded=one.recorded, seen=one.seen,
            policy=one.policy,
        )  # fmt: skip
    drift.close_others(c, host, KINDS, {(f"instance/{one.instance_id}", one.kind) for one in holding})
    _take_over(c, host, holding)
    return holding


def _still(one: Finding, row: sa.RowMapping | None, host_id: str) -> Finding | None:
    """Return a finding as it stands now; None: it does not hold any more."""
    if one.kind != UNKNOWN:
        return one if row is not None and (row["host_id"], row["epoch"]) == (host_id, one.epoch) else None
    if row is None:  # another rackflow's, or from before this record: not ours to take away
        return one
    if row["host_id"] == host_id:
        return None
    kind, policy = (drift.RESIDUE, REPAIR) if row["host_id"] is None else (MISPLACED, REPORT)
    recorded = {"state": row["state"], "on": row["host_id"]}
    return Finding(kind, one.instance_id, row["name"], policy, None, 0, recorded, one.seen)


def _take_over(c: sa.Connection, host: str, holding: Sequence[Finding]) -> None:
    """Let the record say what is certain: stopped, or not there."""
    by_key = {(rule.kind, state, power): rule for (state, power), rule in RULES.items()}
    changes: list[instances.StateChange] = []
    for one in holding:
        if one.kind in (UNKNOWN, MISPLACED, drift.RESIDUE):
            continue
        state, power = InstanceState(one.recorded["state"]), PowerState(one.seen["power"])
        rule = by_key[(one.kind, state, power)]
        if rule.state is not None and rule.state is not state:
            changes.append((one.instance_id, rule.state, one.epoch, rule.reason.format(host=host)))
    instances.set_states(c, changes)
