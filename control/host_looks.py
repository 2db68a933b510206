"""Looks at hosts: what one saw of datastores, bridges and size, written for many hosts at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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


def write(
    c: sa.Connection, host_id: str, *, datastores: Sequence[tuple[str, int, int]], bridges: Mapping[str, str],
    size: Mapping[str, float] | None = None,
) -> None:  # fmt: skip
    """Do as `write_all` for one host."""
    write_all(c, {host_id: (datastores, bridges, size)})


def write_all(
    c: sa.Connection,
    looks: Mapping[str, tuple[Sequence[tuple[str, int, int]], Mapping[str, str], Mapping[str, float] | None]],
) -> None:
    """Write what looks at hosts saw, in few statements however many they are; a retired one is left out.

    looks: by the host's id, datastores (id, total, free MiB), bridges (name -> "address/prefix" or ""), and its cpus
    and memory_mib where they were looked at. That says which networks and datastores reach the host, and gives its
    bridges' addresses to networks whose addressing is by host. A host that had not answered is ready again.
    """
    found = [host for host in hosts.by_id(c, looks).values() if host.state is not HostState.RETIRED]
    at = now()
    grown = reach.record(c, [reach.Reach(host.id, host.cluster_id, *looks[host.id][:2]) for host in found], at)
    # the hosts' own rows: that gives them new marks (marks.py)
    sql.run_in(c, [host.id for host in found], lambda part: sa.update(_T).where(_T.c.id.in_(part)).values(seen_at=at))
    for host in found:
        _, bridges, size = looks[host.id]
        resized, more = host_size.change(c, host, size) if size is not None else ({}, False)
        values = {**resized, **_news(host, bridges, at)}
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
