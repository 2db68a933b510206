"""Record against world, host by host: what was expected, what was seen, what follows. The comparison is pure.

A look is three acts: read what the record expects, look, write what was found. What was changed in between, or is
being changed, is left alone: what was seen of it may be older than the change.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import drift, instances, sql, tables
from control.drift import ADOPT, ALERT, IGNORE, REPAIR
from core.ids import from_host, on_host
from core.states import UNFINISHED, InstanceState, PowerState, Verb

_T, _OP = tables.instance, tables.operation
_ON = (InstanceState.RUNNING, InstanceState.SUSPENDED, InstanceState.OFF)

_BUSY = sa.exists().where(_OP.c.subject == sa.literal("instance/") + _T.c.id, _OP.c.state.in_(UNFINISHED))
_UNFINISHED = sa.select(_OP.c.subject).where(sql.among(_OP.c.subject), _OP.c.state.in_(UNFINISHED))
_EXPECTED = (
    sa.select(_T.c.host_id, _T.c.id, _T.c.name, _T.c.state, _T.c.epoch, _T.c.host_name, _BUSY.label("busy"))
    .where(sql.among(_T.c.host_id)).order_by(_T.c.id)
)  # fmt: skip


@dataclass(frozen=True)
class Expected:
    """An instance that the record has on a host. epoch: at the time of the look; busy: an operation is changing it.

    host_name: its name on the host, where that is not ours.
    """

    instance_id: str
    name: str
    state: InstanceState
    epoch: int
    busy: bool
    host_name: str = ""

    @property
    def on_host(self) -> str:
        return self.host_name or on_host(self.instance_id)


@dataclass(frozen=True)
class Finding:
    """One difference. policy: what is done about it; verb: what repairs it, None = nothing that the ledger could do.

    instance_id "": it is not one of ours.
    """

    kind: str
    instance_id: str
    name: str
    policy: str
    verb: Verb | None = None
    epoch: int = 0
    recorded: Mapping[str, Any] = field(default_factory=dict)
    seen: Mapping[str, Any] = field(default_factory=dict)

    @property
    def subject(self) -> str:
        return f"instance/{self.instance_id}" if self.instance_id else f"foreign/{self.name}"[:96]


@dataclass(frozen=True)
class Rule:
    """What a recorded state and a power seen together mean, and the policy that people may change.

    certain: what the record takes over at once; adopted: what it takes over by the policy adopt.
    """

    kind: str
    policy: str
    verb: Verb | None = None
    certain: InstanceState | None = None
    adopted: InstanceState | None = None
    reason: str = ""


_S, _P = InstanceState, PowerState
_DEAD = Rule("stopped", REPAIR, Verb.START, _S.OFF, None, "found stopped on {host}")
_FORGOT = Rule("memory-lost", ALERT, Verb.START, _S.OFF, None, "found stopped on {host}: its memory is lost")
_LOST = Rule("missing", ALERT, None, _S.HELD, None, "not found on {host}: its disks may be lost")
RULES: dict[tuple[InstanceState, PowerState], Rule] = {
    (_S.RUNNING, _P.STOPPED): _DEAD,
    (_S.RUNNING, _P.CRASHED): _DEAD,
    # Somebody paused it, or its disk is full: going on is not for us to decide.
    (_S.RUNNING, _P.PAUSED): Rule("paused", ALERT, Verb.RESUME, None, _S.SUSPENDED, "found paused on {host}"),
    (_S.OFF, _P.RUNNING): Rule("running", ADOPT, Verb.SHUTDOWN, None, _S.RUNNING, "found running on {host}"),
    (_S.OFF, _P.PAUSED): Rule("paused", ALERT, Verb.POWEROFF, None, _S.SUSPENDED, "found paused on {host}"),
    (_S.SUSPENDED, _P.RUNNING): Rule("running", ADOPT, Verb.SUSPEND, None, _S.RUNNING, "found running on {host}"),
    (_S.SUSPENDED, _P.STOPPED): _FORGOT,
    (_S.SUSPENDED, _P.CRASHED): _FORGOT,
    **{(state, _P.ABSENT): _LOST for state in (*_ON, _S.HELD)},
}
# Nothing is known of it here; the record has it on another host; it is not one of ours.
UNKNOWN, MISPLACED, FOREIGN = "unknown", "misplaced", "foreign"
_UNEXPECTED = (UNKNOWN, MISPLACED, FOREIGN)
KINDS = tuple(sorted({rule.kind for rule in RULES.values()} | set(_UNEXPECTED)))  # that a look opens and closes
_PARKED = (_S.STOPPED, _S.UNDEPLOYED)


def expected_on(c: sa.Connection, host_ids: Collection[str]) -> dict[str, list[Expected]]:
    """Return what the record has on hosts. Read it before the look, so that a change meanwhile is noticed."""
    found: dict[str, list[Expected]] = {one: [] for one in host_ids}
    for row in sql.fetch_among(c, list(found), _EXPECTED):
        state = InstanceState(row["state"])
        found[row["host_id"]].append(
            Expected(row["id"], row["name"], state, row["epoch"], bool(row["busy"]), row["host_name"])
        )
    return found


def _busy(c: sa.Connection, subjects: Sequence[str]) -> set[str]:
    return {row["subject"] for row in sql.fetch_among(c, subjects, _UNFINISHED)}


def compare(
    expected: Sequence[Expected], seen: Sequence[tuple[str, PowerState]], marks: Mapping[str, str] | None = None,
    reasons: Mapping[str, str] | None = None,
) -> list[Finding]:
    """Return where the world differs. seen: names as on the host, ours or not, with their power.

    marks: the ids that adopted ones bear, by name; reasons: what their hosts say of how they came to it. An instance
    that an operation is changing is left out.
    """
    powers, said = dict(seen), reasons or {}
    found: list[Finding] = []
    for one in expected:
        power = powers.pop(one.on_host, PowerState.ABSENT)
        rule = None if one.busy else RULES.get((one.state, power))
        if rule is not None:
            found.append(Finding(
                rule.kind, one.instance_id, one.name, rule.policy, rule.verb, one.epoch, {"state": str(one.state)},
                {"power": str(power), **({"reason": said[one.on_host]} if said.get(one.on_host) else {})},
            ))  # fmt: skip
    return [*found, *_unexpected(powers, marks or {})]


def _unexpected(powers: Mapping[str, PowerState], marks: Mapping[str, str]) -> Iterator[Finding]:
    for name, power in sorted(powers.items()):
        own, there = marks.get(name) or from_host(name), {"power": str(power)}
        if own is not None:
            yield Finding(UNKNOWN, own, "", ALERT, None, 0, {"state": None}, {**there, "name": name})
        else:
            yield Finding(FOREIGN, "", name, IGNORE, None, 0, {}, there)


def record_findings(
    c: sa.Connection, host_id: str, host: str, findings: Sequence[Finding], since: datetime | None = None
) -> list[Finding]:
    """Write findings as drift, take over what is certain, close what is not found any more; return those that hold.

    Each is returned with the policy that people have chosen. An instance that was changed since `expected_on` (at
    `since`), or is being changed now, is left alone.
    """
    before = drift.open_rows(c, host, (*KINDS, drift.RESIDUE))
    rows = {
        row["id"]: row
        for row in sql.fetch_in(
            c, {one.instance_id for one in findings if one.instance_id},
            lambda part: sa.select(
                _T.c.id, _T.c.name, _T.c.state, _T.c.epoch, _T.c.host_id, _T.c.other_host_id, _T.c.updated_at
            ).where(_T.c.id.in_(part)).order_by(_T.c.id).with_for_update(),
        )
    }  # fmt: skip
    busy = _busy(c, [*{one.subject for one in findings}, *{row.subject for row in before.values()}])
    holding: list[Finding] = []
    for one in findings:
        kept = None if one.subject in busy else _still(one, rows.get(one.instance_id), host_id, since)
        if kept is not None and not (kept.kind == MISPLACED and (kept.subject, drift.RESIDUE) in before):
            holding.append(kept)  # what is owed to this host already is no news
    _at_home(c, host_id, [row for row in before.values() if row.kind == drift.RESIDUE and row.subject not in busy])
    closing = {key: row for key, row in before.items() if row.kind != drift.RESIDUE}
    known = {key: row for key, row in before.items() if key in closing or key in _keys(holding)}
    policies = drift.sync(c, host, known, [_row(one) for one in holding], busy)
    holding = [replace(one, policy=policies[one.subject, one.kind]) for one in holding]
    _take_over(c, host, holding)
    return holding


def _at_home(c: sa.Connection, host_id: str, owed: Sequence[drift.Row]) -> None:
    """Close what was owed to a host on account of an instance that the record has there by now."""
    ids = {row.subject.removeprefix("instance/"): row.id for row in owed}
    here = sql.fetch_in(
        c, list(ids), lambda part: sa.select(_T.c.id).where(_T.c.id.in_(part), _T.c.host_id == host_id)
    )
    for row in here:
        drift.close(c, ids[row["id"]], drift.GONE)


def _keys(findings: Sequence[Finding]) -> set[drift.Key]:
    return {(one.subject, one.kind) for one in findings}


def _row(one: Finding) -> drift.Row:
    return drift.Row(one.subject, one.kind, one.policy, one.recorded, one.seen)


def _still(one: Finding, row: sa.RowMapping | None, host_id: str, since: datetime | None) -> Finding | None:
    """Return a finding as it stands now; None: it does not hold any more."""
    if one.kind == FOREIGN:
        return one
    if one.kind != UNKNOWN:
        return one if row is not None and (row["host_id"], row["epoch"]) == (host_id, one.epoch) else None
    if row is None:  # another rackflow's, or from before this record: not ours to take away
        return one
    if host_id in (row["host_id"], row["other_host_id"]) or (since is not None and row["updated_at"] >= since):
        return None
    kind, policy = (drift.RESIDUE, REPAIR) if row["host_id"] is None else (MISPLACED, ALERT)
    if row["state"] in _PARKED and one.seen["power"] in (PowerState.RUNNING, PowerState.PAUSED):
        policy = ALERT  # somebody has started what lies at the front-end: which of the two is newer, nobody knows
    recorded = {"state": row["state"], "on": row["host_id"]}
    return Finding(kind, one.instance_id, row["name"], policy, None, 0, recorded, one.seen)


def _take_over(c: sa.Connection, host: str, holding: Sequence[Finding]) -> None:
    """Let the record say what is certain, and what the policy says that it is to take over."""
    by_key = {(rule.kind, state, power): rule for (state, power), rule in RULES.items()}
    changes: list[instances.StateChange] = []
    for one in holding:
        if one.policy == IGNORE or one.kind in (*_UNEXPECTED, drift.RESIDUE):
            continue
        state, power = InstanceState(one.recorded["state"]), PowerState(one.seen["power"])
        rule = by_key[(one.kind, state, power)]
        wanted = rule.certain or (rule.adopted if one.policy == ADOPT else None)
        if wanted is not None and wanted is not state:
            changes.append((one.instance_id, wanted, one.epoch, rule.reason.format(host=host)))
    instances.set_states(c, changes)


# hosts that do not answer


def silence(host: str) -> str:
    """Return the begin of what an instance's reason says while its host does not answer."""
    return f"host {host} does not answer since "


def note_silence(c: sa.Connection, host_id: str, host: str, since: str) -> None:
    """Let the instances of a host that does not answer say so; their state is the last one known."""
    c.execute(
        sa.update(_T).where(_T.c.host_id == host_id, _T.c.state.in_(_ON), _T.c.reason == "")
        .values(reason=silence(host) + since)
    )  # fmt: skip


def end_silence(c: sa.Connection, host_id: str, host: str) -> None:
    """Let the instances of a host that answers again say no more that it does not."""
    c.execute(
        sa.update(_T).where(_T.c.host_id == host_id, _T.c.reason.startswith(silence(host), autoescape=True))
        .values(reason="")
    )  # fmt: skip
