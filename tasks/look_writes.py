"""What the record has before looks at hosts, and what it is told of them, of many at a time.

Nearly all of them see what was there before, so what differs is asked for host by host only where there is something.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from control import configuring, datastores, drift, host_facts, host_looks
from control import reconcile as rows
from control.datastores import DatastoreRecord
from control.drift import Residue
from control.hosts import HostRecord
from core.clock import now
from drivers.hosts import HostFacts


@dataclass(frozen=True)
class Before:
    """What the record has before a look, read in one go. at: when; known: datastores that were seen there before."""

    at: datetime
    expected: list[rows.Expected]
    stores: list[DatastoreRecord]
    known: set[str]
    owed: list[Residue]
    stranded: bool


@dataclass(frozen=True)
class Look:
    """What one look at a host saw. at: when it began; findings None: nobody wants to know what differs.

    datastores: id, total, free MiB; size: cpus, memory_mib; facts: where they were gathered anew; missing: what a host
    lacks that we gave it, where that was looked at.
    """

    host: HostRecord
    at: datetime
    datastores: Sequence[tuple[str, int, int]]
    bridges: dict[str, str]
    size: Mapping[str, float]
    facts: HostFacts | None
    findings: Sequence[rows.Finding] | None
    missing: Sequence[str] | None = None


def before(c: Any, records: Sequence[HostRecord]) -> list[Before]:
    """Return what the record has of each host."""
    at, ids = now(), [record.id for record in records]
    expected, known = rows.expected_on(c, ids), datastores.seen_on(c, ids)
    stores = {one: datastores.on_cluster(c, one) for one in {record.cluster for record in records}}
    differs = drift.hosts_with_open(c, {record.name for record in records})

    def of(record: HostRecord) -> Before:
        owed = drift.residues(c, record.name) if record.name in differs else []
        stranded = record.name in differs and bool(drift.open_rows(c, record.name, [drift.STRANDED]))
        return Before(at, expected[record.id], stores[record.cluster], known[record.id], owed, stranded)

    return [of(record) for record in records]


def write(c: Any, looks: Sequence[Look]) -> list[list[rows.Finding]]:
    """Write looks; the answers are the findings that hold, in the same order."""
    for look in looks:
        if look.facts is not None:
            host_facts.record(c, look.host.id, asdict(look.facts))
        if look.missing is not None:
            configuring.note(c, look.host, look.missing)
    host_looks.write(c, {one.host.id: host_looks.Seen(one.datastores, one.bridges, one.size) for one in looks})
    for look in looks:
        if look.host.error is not None:
            rows.end_silence(c, look.host.id, look.host.name)
    known = drift.hosts_with_open(c, {look.host.name for look in looks})
    return [_record(c, look, has_open=look.host.name in known) for look in looks]


def _record(c: Any, look: Look, *, has_open: bool) -> list[rows.Finding]:
    if look.findings is None or not (look.findings or has_open):
        return []
    return rows.record_findings(c, look.host.id, look.host.name, look.findings, look.at)
