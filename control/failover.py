"""A host that does not answer: when it counts as dead, and what becomes of its instances. Two signals, or nobody acts.

The first is silence, in two looks and for longer than a limit. The second is its BMC: only power that is off for
certain lets an instance start elsewhere without running twice. What a host leaves on a shared datastore (the time of
a file, say) is no such signal: an idle guest writes nothing, and a host that is cut off goes on writing later. So
without a BMC a person has to look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import tables
from control.hosts import HostRecord
from core.clock import now, rfc3339
from core.errors import Conflict, RackflowError, Unreachable
from core.states import RESTING, HostState, MachinePower

LABEL = "rackflow.failover"  # of a host, or else of its cluster; "manual": nothing is fenced without a person
LOOKS = 2
WATCHED = (HostState.UNREACHABLE, HostState.DRAINING, HostState.DISABLED)  # in these a silent host may be dead

OFF = (HostState.FENCED, *RESTING)  # that these have no error says nothing of the network


def noted(host: HostRecord, problem: RackflowError, at: datetime) -> Unreachable:
    """Return what is written of a host that did not answer a look: since when, how often, what was found out. Pure."""
    before = (host.error or {}).get("evidence") or {}
    goes_on = (host.error or {}).get("code") == Unreachable.code and "since" in before
    evidence = {
        **problem.evidence, "since": before["since"] if goes_on else rfc3339(at),
        "looks": min(LOOKS, before["looks"] + 1) if goes_on else 1,
    }  # fmt: skip
    if goes_on and before.get("failover"):
        return Unreachable(problem.message, problem.subject, {**evidence, "failover": before["failover"]},
                           str((host.error or {}).get("fix") or ""))  # fmt: skip
    return Unreachable(problem.message, problem.subject, evidence, problem.fix)


def explained(error: Mapping[str, Any], reason: str, fix: str) -> dict[str, Any]:
    """Return the error of a silent host with the reason why nothing is started elsewhere, and what to do. Pure."""
    return {**error, "evidence": {**(error.get("evidence") or {}), "failover": reason}, "fix": fix}


def silent(host: HostRecord) -> bool:
    """Say whether a host did not answer the last look, and whether that matters."""
    error = host.error or {}
    return host.state in WATCHED and error.get("code") == Unreachable.code and "since" in error.get("evidence", {})


@dataclass(frozen=True)
class Signs:
    """What is known of a silent host. power None: its BMC does not answer. hosts: how many answer, how many do not."""

    silent_s: float
    looks: int
    has_bmc: bool
    power: MachinePower | None
    manual: bool
    answering: int
    silent: int


@dataclass(frozen=True)
class Verdict:
    """fence: its power is to be cut. reason "": it is too early to say anything."""

    fence: bool
    reason: str = ""
    fix: str = ""


def by_hand(name: str) -> str:
    """Return what a person can do who sees the host."""
    return f"see to it that it is off, then: rackflow host fence {name} --confirmed"


def decide(name: str, signs: Signs, limit_s: float) -> Verdict:
    """Say what is done about a silent host. Pure."""
    if signs.silent_s < limit_s or signs.looks < LOOKS:
        return Verdict(False)
    if signs.answering < signs.silent:
        return Verdict(
            False, f"{signs.silent} hosts do not answer and {signs.answering} do: rather the front-end is cut off",
            f"look at the front-end's network; if the hosts are dead: rackflow host fence {name}",
        )  # fmt: skip
    if not signs.has_bmc:
        return Verdict(False, "it has no BMC: whether it is off, or only cut off, cannot be known", by_hand(name))
    if signs.manual:
        return Verdict(False, f"label {LABEL}=manual: a person decides", f"rackflow host fence {name}")
    if signs.power is None:
        return Verdict(False, "its BMC does not answer either", by_hand(name))
    return Verdict(True)


def signs_of(
    host: HostRecord, hosts: Sequence[HostRecord], labels: Mapping[str, str], power: MachinePower | None, at: datetime
) -> Signs:
    """Return the signs of one of these hosts. labels: of its cluster; it is silent. Pure."""
    evidence = (host.error or {})["evidence"]
    since = min(datetime.fromisoformat(evidence["since"]), host.seen_at or at)
    quiet = sum(silent(other) for other in hosts)
    answering = sum(o.error is None and o.seen_at is not None and o.state not in OFF for o in hosts)
    manual = {**labels, **host.labels}.get(LABEL) == "manual"
    return Signs(
        (at - since).total_seconds(), evidence["looks"], bool(host.spec.get("bmc")), power, manual, answering, quiet
    )


def cluster_labels(c: sa.Connection) -> dict[str, dict[str, str]]:
    """Return cluster id -> labels."""
    t = tables.cluster
    return {row.id: row.labels for row in c.execute(sa.select(t.c.id, t.c.labels))}


def not_fenced(c: sa.Connection, host_id: str, error: Mapping[str, Any] | None) -> None:
    """Say of a silent host why it is not fenced after all; one that answers again has no error."""
    t = tables.host
    row = c.execute(sa.select(t.c.error, t.c.state, t.c.name).where(t.c.id == host_id).with_for_update()).one()
    if row.error is None or row.state == HostState.FENCED:
        return
    reason = f"it was not fenced: {(error or {}).get('message', '')}"
    fix = str((error or {}).get("fix") or "") or by_hand(row.name)
    c.execute(sa.update(t).where(t.c.id == host_id).values(error=explained(row.error, reason, fix)))


def fenced_error(host: str, evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a fenced host says of itself. evidence: how it is known that it is off."""
    return Conflict(
        f"host {host} was fenced: its power is off", f"host/{host}", {**evidence, "at": rfc3339(now())},
        f"mend it, power it on, then: rackflow host enable {host}",
    ).to_dict()  # fmt: skip
