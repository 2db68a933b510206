"""What instances hold on hosts: reservations by host, and what becomes of them when a host goes for good."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from control import marks, tables
from core.clock import now
from core.states import InstanceState

_T = tables.instance


@dataclass(frozen=True)
class Reserved:
    """Sums over the instances that a host holds. cpu in cores."""

    instances: int
    cpu: float
    memory_mib: int
    disk_mib: int


NOTHING = Reserved(0, 0.0, 0, 0)
_FEW = 200  # hosts: of more, all are added up


def reserved(c: sa.Connection, host_ids: Collection[str]) -> dict[str, Reserved]:
    """Return host id -> what is reserved there, also by instances on their way there or from there.

    Hosts without instances are left out; one that comes or goes is not counted among a host's instances.
    """
    found = _sums(c, _T.c.host_id, host_ids)
    for host_id, more in _sums(c, _T.c.other_host_id, host_ids).items():
        one = found.get(host_id, NOTHING)
        found[host_id] = Reserved(
            one.instances, round(one.cpu + more.cpu, 6), one.memory_mib + more.memory_mib, one.disk_mib + more.disk_mib
        )
    return found


def _sums(c: sa.Connection, column: sa.ColumnElement[Any], host_ids: Collection[str]) -> dict[str, Reserved]:
    sums = sa.select(
        column, sa.func.count(), sa.func.sum(_T.c.cpu), sa.func.sum(_T.c.memory_mib), sa.func.sum(_T.c.disk_mib)
    ).group_by(column)
    few = len(host_ids) <= _FEW
    rows = c.execute(sums.where(column.in_(host_ids) if few else column.is_not(None))).all()
    asked = set(host_ids)
    return {
        host_id: Reserved(n, round(float(cpu), 6), int(memory), int(disk))
        for host_id, n, cpu, memory, disk in rows if host_id in asked
    }


def shares(c: sa.Connection, owners: Collection[str], cpu: float, memory_mib: float) -> dict[str, float]:
    """Return owner -> the larger share of so many cores and so much memory that its placed instances hold."""
    held = sa.select(_T.c.owner, sa.func.sum(_T.c.cpu), sa.func.sum(_T.c.memory_mib)).where(
        _T.c.host_id.is_not(None), _T.c.owner.in_(owners)
    )
    return {
        owner: max(float(cores) / max(cpu, 1e-9), float(memory) / max(memory_mib, 1e-9))
        for owner, cores, memory in c.execute(held.group_by(_T.c.owner))
    }


def names_on(c: sa.Connection, host_id: str) -> list[str]:
    """Return the names of the instances that a host holds."""
    return list(c.scalars(sa.select(_T.c.name).where(_T.c.host_id == host_id).order_by(_T.c.name)))


def abandon(c: sa.Connection, host_id: str, reason: str) -> None:
    """Take instances off a host that is gone for good: they failed, and their addresses are free again."""
    held = sa.select(_T.c.id).where(_T.c.host_id == host_id)
    c.execute(sa.delete(tables.lease).where(tables.lease.c.instance_id.in_(held)))
    marks.touch_of(c, list(c.scalars(held)))
    c.execute(
        sa.update(_T).where(_T.c.host_id == host_id).values(
            host_id=None, datastore_id=None, other_host_id=None, other_datastore_id=None,
            granted=None, other_granted=None, state=InstanceState.FAILED,
            reason=reason[:1024], updated_at=now(), epoch=_T.c.epoch + 1,
        )
    )  # fmt: skip
