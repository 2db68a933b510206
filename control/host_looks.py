"""Looks at hosts: what one saw of datastores, bridges and size, written for many hosts at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from control import host_size, hosts, reach, sql, tables
from control.hosts import HostRecord
from control.waiting import wake
from core.clock import now
from core.errors import CredentialRejected, Unreachable
from core.states import HostState

_T = tables.host
_PASSING = (Unreachable.code, CredentialRejected.code)  # errors that are over with a look that went well


@dataclass(frozen=True)
class Seen:
    """On one host: datastores (id, total, free MiB), bridges (name -> "address/prefix" or ""), cpus and memory_mib."""

    datastores: Sequence[tuple[str, int, int]]
    bridges: Mapping[str, str]
    size: Mapping[str, float] | None = None  # None: that was not looked at


def write(c: sa.Connection, looks: Mapping[str, Seen]) -> None:
    """Write what looks at hosts (by id) saw, in few statements however many they are; a retired one is left out.

    It says which networks and datastores reach a host, and gives its bridges' addresses to networks whose addressing
    is by host. A host that had not answered is ready again.
    """
    found = [host for host in hosts.by_id(c, looks).values() if host.state is not HostState.RETIRED]
    at = now()
    grown = reach.record(c, [
        reach.Reach(host.id, host.cluster_id, looks[host.id].datastores, looks[host.id].bridges) for host in found
    ], at)  # fmt: skip
    # the hosts' own rows: that gives them new marks (marks.py)
    sql.run_in(c, [host.id for host in found], lambda part: sa.update(_T).where(_T.c.id.in_(part)).values(seen_at=at))
    for host in found:
        seen = looks[host.id]
        resized, more = host_size.change(c, host, seen.size) if seen.size is not None else ({}, False)
        values = {**resized, **_news(host, seen.bridges, at)}
        if resized:
            values.update(version=_T.c.version + 1, updated_at=at)
        if values:
            c.execute(sa.update(_T).where(_T.c.id == host.id).values(values))
        if "state" in values:
            hosts.tell(c, host, HostState.READY)
        grown = grown or more or "state" in values
    if grown:
        wake(c)


def _news(host: HostRecord, bridges: Mapping[str, str], at: datetime) -> dict[str, Any]:
    """Return what changes in the row of a host that was seen; most often nothing."""
    values: dict[str, Any] = {}
    if host.facts.get("bridges") != dict(bridges):
        values["facts"] = {**host.facts, "bridges": dict(bridges)}
    if host.state in (HostState.UNREACHABLE, HostState.FAULTY) and host.cpus > 0:
        values.update(state=HostState.READY, error=None, version=_T.c.version + 1, updated_at=at)
    elif host.state is not HostState.FENCED and (host.error or {}).get("code") in _PASSING:
        values["error"] = None
    return values
