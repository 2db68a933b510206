"""The VMs of a place as vSphere reports them: all at first, afterwards only what changed (WaitForUpdatesEx).

https://developer.broadcom.com/xapis/vsphere-web-services-api/latest/vmodl.query.PropertyCollector.html
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pyVmomi import vim, vmodl

from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import ObservedInstance
from drivers.hypervisor.esxi_config import owner
from drivers.transport.vsphere_place import Place, read_one

_Q = vmodl.query.PropertyCollector
_POWER = {
    "poweredOn": PowerState.RUNNING, "poweredOff": PowerState.STOPPED, "suspended": PowerState.PAUSED,
}  # fmt: skip
_DELTA = re.compile(r"-\d{6}\.vmdk$")  # of a snapshot, on top of the disk itself


def _disk_file(files: Sequence[str]) -> str:
    """Return the file that a disk began as. Which of them comes first differs from server to server."""
    return next((one for one in files if not _DELTA.search(one)), files[0])


# What is kept of a property, by its name. Device lists are not asked for: they alone are more than twice all of these.
KEPT: dict[str, Callable[[Any], Any]] = {
    "name": str,
    "runtime.powerState": lambda value: _POWER.get(value, PowerState.UNKNOWN),
    "runtime.connectionState": str,
    "runtime.host": lambda value: value,
    "runtime.question": lambda value: value.text,
    "config.template": bool,
    "config.annotation": str,
    "config.hardware.numCPU": int,
    "config.hardware.memoryMB": int,
    "layout.disk": lambda value: tuple(_disk_file(one.diskFile) for one in value),
    "guest.net": lambda value: tuple(
        address for nic in value for address in nic.ipAddress if ":" not in address  # as elsewhere, IPv4
    ),
    "summary.quickStats": lambda value: (value.overallCpuUsage or 0, value.hostMemoryUsage or 0),
}  # fmt: skip


@dataclass
class _Vm:
    """A VM's properties, and the CPU time that its sampled use adds up to since it was started."""

    values: dict[str, Any] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    counted_at: float = 0.0

    def count(self, at: float, mhz: int) -> None:
        """Add the time since the last look, by the use that was reported then."""
        if self.values.get("runtime.powerState") is not PowerState.RUNNING:
            self.cpu_seconds, self.counted_at = 0.0, 0.0
            return
        if self.counted_at and mhz:
            self.cpu_seconds += self.values.get("summary.quickStats", (0, 0))[0] / mhz * (at - self.counted_at)
        self.counted_at = at


class Inventory:
    """One filter of one session. Its methods block, and may be called by several threads."""

    def __init__(self, place: Place, mhz: int) -> None:
        self._place = place
        self._mhz = mhz  # of one core, as use is reported in MHz
        self._hosts = {str(one) for one in place.hosts}
        self._busy = threading.Lock()
        self._collector: Any = None
        self._version = ""
        self._vms: dict[Any, _Vm] = {}
        self._by_name: dict[str, Any] = {}

    def refresh(self, content: Any) -> None:
        """Bring it up to date: all at first, then what changed since."""
        with self._busy:
            if self._collector is None:
                self._watch(content)
            at_once = _Q.WaitOptions(maxWaitSeconds=0)  # None when nothing has changed; a vCenter answers in parts
            while (update := self._collector.WaitForUpdatesEx(self._version, at_once)) is not None:
                for one in (one for part in update.filterSet for one in part.objectSet):
                    self._take(one)
                self._version = update.version
            at = time.monotonic()
            for vm in self._vms.values():
                vm.count(at, self._mhz)
            self._by_name = {vm.values["name"]: ref for ref, vm in self._vms.items() if self._is_here(vm.values)}

    def _watch(self, content: Any) -> None:
        """Watch the VMs of a cluster: all in its resource pools. Others of a vCenter may be ten times as many."""
        below = [_Q.SelectionSpec(name="pools"), _Q.SelectionSpec(name="vms")]
        root, pools, vms = (
            _Q.TraversalSpec(name="root", type=vim.ComputeResource, path="resourcePool", skip=True, selectSet=below),
            _Q.TraversalSpec(name="pools", type=vim.ResourcePool, path="resourcePool", skip=True, selectSet=below),
            _Q.TraversalSpec(name="vms", type=vim.ResourcePool, path="vm", skip=False),
        )
        collector = content.propertyCollector.CreatePropertyCollector()
        collector.CreateFilter(
            _Q.FilterSpec(
                objectSet=[_Q.ObjectSpec(obj=self._place.compute, skip=True, selectSet=[root, pools, vms])],
                propSet=[_Q.PropertySpec(type=vim.VirtualMachine, pathSet=list(KEPT))],
            ),
            False,
        )
        self._collector = collector

    def _take(self, update: Any) -> None:
        if update.kind == "leave":
            self._vms.pop(update.obj, None)
            return
        values = self._vms.setdefault(update.obj, _Vm()).values
        for change in update.changeSet:
            keep = KEPT.get(change.name)
            if keep is None:
                continue
            if change.val is None:
                values.pop(change.name, None)
            else:
                values[change.name] = keep(change.val)

    def reread(self, content: Any, vm: Any) -> None:
        """Take a VM's properties from the server, without waiting for their updates."""
        values = read_one(content, vm, list(KEPT))
        with self._busy:
            if vm in self._vms:
                self._vms[vm].values = {name: KEPT[name](value) for name, value in values.items()}

    def _is_here(self, values: Mapping[str, Any]) -> bool:
        return "name" in values and str(values.get("runtime.host")) in self._hosts and not values.get("config.template")

    # -- what it knows

    def find(self, name: str) -> Any | None:
        """Return the VM of that name, as of the last refresh."""
        return self._by_name.get(name)

    def seen(self, name: str) -> ObservedInstance | None:
        """Return a VM as of the last refresh."""
        ref = self._by_name.get(name)
        return None if ref is None else _observed(self._vms[ref])

    def all(self) -> list[ObservedInstance]:
        """Return all VMs as of the last refresh."""
        return [_observed(self._vms[ref]) for ref in self._by_name.values()]


def _observed(vm: _Vm) -> ObservedInstance:
    values = vm.values
    power = values.get("runtime.powerState", PowerState.UNKNOWN)
    if values.get("runtime.connectionState", "connected") != "connected":
        power = PowerState.UNKNOWN  # the vCenter does not reach its host, or its files are gone
    on = power is PowerState.RUNNING
    return ObservedInstance(
        name=values["name"], power=power, kind=InstanceKind.VM, instance_id=owner(values.get("config.annotation", "")),
        cpus=values.get("config.hardware.numCPU", 0), memory_mib=values.get("config.hardware.memoryMB", 0),
        cpu_seconds=round(vm.cpu_seconds, 3) if on else None,
        memory_used_mib=values["summary.quickStats"][1] if on and "summary.quickStats" in values else None,
        disks=values.get("layout.disk", ()), addresses=values.get("guest.net", ()) if on else (),
        reason=values.get("runtime.question", ""),
    )  # fmt: skip
