"""Quotas: how many instances, cores and how much memory an account's live instances may have in all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import sqlalchemy as sa

from control import access, tables
from control.access import Principal
from core.errors import Denied, Invalid

_ACCOUNT, _INSTANCE = tables.user, tables.instance
_LIMITS = sa.select(_ACCOUNT.c.max_instances, _ACCOUNT.c.max_cpu, _ACCOUNT.c.max_memory_mib).where(
    _ACCOUNT.c.name == sa.bindparam("account")
)
_LOCKED = _LIMITS.with_for_update()
_WORDS = {"instances": "instances", "cpu": "cores", "memory_mib": "MiB of memory"}


@dataclass(frozen=True)
class Amount:
    """How much: of use, of what is asked for, or (None = no limit) of a quota."""

    instances: int | None
    cpu: float | None
    memory_mib: int | None


def limits(c: sa.Connection, name: str, *, lock: bool = False) -> Amount:
    """Return an account's quota. lock: nobody else adds to its use before the transaction ends."""
    row = c.execute(_LOCKED if lock else _LIMITS, {"account": name}).one_or_none()
    return Amount(None, None, None) if row is None else Amount(row[0], row[1], row[2])


def usage(c: sa.Connection, name: str) -> Amount:
    """Return what an account's live instances have in all."""
    row = c.execute(
        sa.select(sa.func.count(), sa.func.sum(_INSTANCE.c.cpu), sa.func.sum(_INSTANCE.c.memory_mib))
        .where(_INSTANCE.c.owner == name, _INSTANCE.c.live_name.is_not(None))
    ).one()  # fmt: skip
    return Amount(int(row[0]), float(row[1] or 0), int(row[2] or 0))


def check(c: sa.Connection, principal: Principal, more: Amount) -> None:
    """Raise Denied when more would go beyond the principal's quota."""
    quota = limits(c, principal.name, lock=True)
    if quota == Amount(None, None, None):
        return
    used = usage(c, principal.name)
    for field, word in _WORDS.items():
        limit, have, want = getattr(quota, field), getattr(used, field), getattr(more, field)
        if limit is not None and have + want > limit:
            raise Denied(
                f"the quota of {principal.name} is {limit:.10g} {word}: {have:.10g} are used and {want:.10g} were "
                "asked for",
                f"account/{principal.name}", {"quota": limit, "used": have, "asked": want, "of": field},
                "delete instances, or ask an administrator for more",
            )  # fmt: skip


def set_limits(c: sa.Connection, principal: Principal, name: str, quota: Amount) -> None:
    """Set an account's quota. Raise Denied, NotFound, Invalid."""
    access.require_admin(principal, "change quotas")
    account = access.find(c, name)
    if any(value is not None and value < 0 for value in (quota.instances, quota.cpu, quota.memory_mib)):
        raise Invalid("a quota cannot be negative", f"account/{name}")
    c.execute(
        sa.update(_ACCOUNT).where(_ACCOUNT.c.id == account.id)
        .values(max_instances=quota.instances, max_cpu=quota.cpu, max_memory_mib=quota.memory_mib)
    )  # fmt: skip


def show(c: sa.Connection, principal: Principal, name: str | None = None) -> dict[str, Any]:
    """Return an account's quota and use, by default one's own. Raise Denied, NotFound."""
    if name is not None and name != principal.name:
        access.require_admin(principal, "see the quotas of others")
        access.find(c, name)
    asked = name or principal.name
    quota, used = limits(c, asked), usage(c, asked)
    return {"account": asked, "quota": asdict(quota), "used": asdict(used)}
