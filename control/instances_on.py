"""What instances hold on hosts: reservations by host, and what becomes of them when a host goes for good."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from control import sql, tables
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


def reserved(c: sa.Connection, host_ids: Collection[str]) -> dict[str, Reserved]:
    """Return host id -> what is reserved there; hosts without instances are left out."""
    rows = sql.fetch_in(
        c, host_ids,
        lambda part: sa.select(
            _T.c.host_id, sa.func.count().label("n"), sa.func.sum(_T.c.cpu).label("cpu"),
            sa.func.sum(_T.c.memory_mib).label("memory"), sa.func.sum(_T.c.disk_mib).label("disk"),
        ).where(_T.c.host_id.in_(part)).group_by(_T.c.host_id),
    )  # fmt: skip
    return {
        row["host_id"]: Reserved(row["n"], round(float(row["cpu"]), 6), int(row["memory"]), int(row["disk"]))
        for row in rows
    }


def names_on(c: sa.Connection, host_id: str) -> list[str]:
    """Return the names of the instances that a host holds."""
    return list(c.scalars(sa.select(_T.c.name).where(_T.c.host_id == host_id).order_by(_T.c.name)))


def abandon(c: sa.Connection, host_id: str, reason: str) -> None:
    """Take instances off a host that is gone for good: they failed, and their addresses are free again."""
    held = sa.select(_T.c.id).where(_T.c.host_id == host_id)
    c.execute(sa.delete(tables.lease).where(tables.lease.c.instance_id.in_(held)))
    c.execute(
        sa.update(_T).where(_T.c.host_id == host_id).values(
            host_id=None, datastore_id=None, state=InstanceState.FAILED, reason=reason[:1024], updated_at=now(),
            epoch=_T.c.epoch + 1,
        )
    )  # fmt: skip
