"""What the record is told of looks at hosts, many at a time: nearly all of them saw what was there before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from control import drift, host_facts, hosts
from control import reconcile as rows
from control.hosts import HostRecord
from drivers.hosts import HostFacts


@dataclass(frozen=True)
class Look:
    """What one look at a host saw. at: when it began; findings None: nobody wants to know what differs.

    datastores: id, total, free MiB; facts: where they were gathered anew.
    """

    host: HostRecord
    at: datetime
    datastores: Sequence[tuple[str, int, int]]
    bridges: dict[str, str]
    facts: HostFacts | None
    findings: Sequence[rows.Finding] | None


def write(c: Any, looks: Sequence[Look]) -> list[list[rows.Finding]]:
    """Write looks; the answers are the findings that hold, in the same order."""
    for look in looks:
        if look.facts is not None:
            host_facts.record(c, look.host.id, asdict(look.facts))
    hosts.mark_seen_all(c, {look.host.id: (look.datastores, look.bridges) for look in looks})
    for look in looks:
        if look.host.error is not None:
            rows.end_silence(c, look.host.id, look.host.name)
    known = drift.hosts_with_open(c, {look.host.name for look in looks})
    return [_record(c, look, has_open=look.host.name in known) for look in looks]


def _record(c: Any, look: Look, *, has_open: bool) -> list[rows.Finding]:
    if look.findings is None or not (look.findings or has_open):
        return []
    return rows.record_findings(c, look.host.id, look.host.name, look.findings, look.at)
