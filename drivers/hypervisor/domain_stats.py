"""What libvirt's statistics say of a domain. Pure. Source: virConnectGetAllDomainStats in libvirt-domain.c"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import libvirt

from core.ids import from_host
from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import ObservedInstance
from drivers.hypervisor.domain import domain_uuid

GROUPS = (
    libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL | libvirt.VIR_DOMAIN_STATS_BALLOON
    | libvirt.VIR_DOMAIN_STATS_VCPU | libvirt.VIR_DOMAIN_STATS_BLOCK
)  # fmt: skip

QUICK_GROUPS = libvirt.VIR_DOMAIN_STATS_STATE | libvirt.VIR_DOMAIN_STATS_CPU_TOTAL  # these ask no QEMU process

_POWER: dict[int, PowerState] = {
    libvirt.VIR_DOMAIN_RUNNING: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_BLOCKED: PowerState.RUNNING,
    libvirt.VIR_DOMAIN_PAUSED: PowerState.PAUSED,
    libvirt.VIR_DOMAIN_SHUTDOWN: PowerState.RUNNING,  # on its way down
    libvirt.VIR_DOMAIN_SHUTOFF: PowerState.STOPPED,
    libvirt.VIR_DOMAIN_CRASHED: PowerState.CRASHED,
    libvirt.VIR_DOMAIN_PMSUSPENDED: PowerState.PAUSED,
}
_SPECIAL: dict[tuple[int, int], tuple[PowerState, str]] = {
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED): (PowerState.CRASHED, "its QEMU process died"),
    (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_FAILED): (PowerState.STOPPED, "it failed to start"),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR):
        (PowerState.PAUSED, "a disk failed or its datastore is full"),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_USER): (PowerState.PAUSED, "paused by somebody"),
    (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_CRASHED): (PowerState.CRASHED, "the guest panicked"),
}  # fmt: skip


def ours(name: str, uuid: str) -> str | None:
    """Return the instance id of a domain, or None if it is not one that rackflow defined."""
    instance_id = from_host(name)
    return instance_id if instance_id and domain_uuid(instance_id) == uuid else None


def observed(
    name: str, uuid: str, stats: Mapping[str, Any], adopted_as: str | None = None
) -> ObservedInstance:
    """Return what one domain's statistics say. Memory in KiB, CPU time in ns there."""
    state, reason = stats.get("state.state", 0), stats.get("state.reason", 0)
    power, words = _SPECIAL.get((state, reason), (_POWER.get(state, PowerState.UNKNOWN), ""))
    cpu_ns = stats.get("cpu.time")
    running = power in (PowerState.RUNNING, PowerState.PAUSED)
    return ObservedInstance(
        name=name, power=power, kind=InstanceKind.VM, instance_id=ours(name, uuid) or adopted_as,
        cpus=stats.get("vcpu.current", 0),
        memory_mib=stats.get("balloon.current", stats.get("balloon.maximum", 0)) // 1024,
        cpu_seconds=cpu_ns / 1e9 if running and cpu_ns is not None else None,
        memory_used_mib=_used_mib(stats) if running else None, reason=words,
        disks=tuple(stats.get(f"block.{n}.path", "") for n in range(stats.get("block.count", 0))),
    )


def _used_mib(stats: Mapping[str, Any]) -> int | None:
    """Return what the guest uses, if its balloon driver says so, else what QEMU holds."""
    if "balloon.available" in stats and "balloon.usable" in stats:
        return int(max(0, stats["balloon.available"] - stats["balloon.usable"])) // 1024
    rss: int | None = stats.get("balloon.rss")
    return rss // 1024 if rss is not None else None
