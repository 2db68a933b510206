"""Instances of a host that are not ours, as they are seen now."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any, cast

from api import guests
from api.context import Context
from control import hosts
from core.errors import NotFound

if TYPE_CHECKING:
    from drivers.hypervisor.base import ObservedInstance
    from drivers.hypervisor.powers import Adopts, Found


async def list_(ctx: Context, name: str) -> list[dict[str, Any]]:
    """Return them by name. Raise NotFound, Unsupported, Unreachable."""
    host = await ctx.store.read(lambda c: hosts.get(c, name))
    guests.require_power(host, "adopt")
    driver = await guests.hypervisor_of(ctx, host)
    found: list[dict[str, Any]] = []
    for one in sorted(await driver.instances(), key=lambda seen: seen.name):
        if one.instance_id is None:
            found += await _described(cast("Adopts", driver), one)
    return found


async def _described(driver: Adopts, seen: ObservedInstance) -> list[dict[str, Any]]:
    try:
        return [_view(await driver.describe(seen.name))]
    except NotFound:  # it went meanwhile
        return []


def _view(found: Found) -> dict[str, Any]:
    return {
        "name": found.name, "kind": found.kind, "power": found.power, "cpu": found.cpu,
        "memory_mib": found.memory_mib, "disks": [asdict(disk) for disk in found.disks],
        "nics": [asdict(nic) for nic in found.nics], "problems": list(found.problems),
    }  # fmt: skip
