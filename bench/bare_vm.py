"""A tiny VM made by the drivers and then moved and snapshotted by libvirt's own calls: what rackflow is measured by.

The calls go over the same forwarded sockets and have the same flags as the product's. They block: in threads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, TypeVar
from xml.etree import ElementTree

import libvirt

from core.errors import Busy
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind
from drivers.hosts import Host
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.powers import Executes
from drivers.network.base import NetworkSpec, NicSpec
from drivers.storage.base import VolumeSpec
from drivers.storage.seed import seed_texts

DATASTORE = DriverSettings().datastore_path
SOCKET = "/run/libvirt/libvirt-sock"
FLAGS = (
    libvirt.VIR_MIGRATE_LIVE | libvirt.VIR_MIGRATE_PERSIST_DEST | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
    | libvirt.VIR_MIGRATE_AUTO_CONVERGE | libvirt.VIR_MIGRATE_NON_SHARED_INC
)  # fmt: skip
T = TypeVar("T")


class BareVm:
    """One VM with disks on two hosts, of which it runs on one at a time."""

    def __init__(self, here: Host, there: Host, memory_mib: int) -> None:
        self.here, self.there = here, there
        self.id = new_id()
        self.name = on_host(self.id)
        self._memory_mib = memory_mib
        self._connections: dict[str, Any] = {}

    async def make(self, sha256: str, address: str) -> None:
        """Make its disks on both hosts (from an image that is there), start it on one, wait for its agent."""
        lan, wanted = NetworkSpec("lan", "bridge", "br0"), NicSpec(0, mac_address(self.id, 0), address)
        for host in (self.there, self.here):
            storage, nic = host.storage(DATASTORE), await host.network.ensure_nic(lan, wanted)
            root = await storage.ensure_volume(VolumeSpec(self.id, "root", 0, sha256))
            seed = await storage.ensure_seed(
                seed_texts(instance_id=self.id, hostname="bare", ssh_keys=(), user_data="", nics=[nic])
            )
        disks, nics = (root, seed), (nic,)
        spec = InstanceSpec(self.id, self.name, "bare", InstanceKind.VM, 1, self._memory_mib, disks, nics)
        await self.here.hypervisor.define(spec)
        await self.here.hypervisor.start(self.name)
        await _answers(self.here, self.name)

    async def migrate(self) -> float:
        """Move it to the other host; return seconds of the one call."""
        source, target = await self._connection(self.here), await self._connection(self.there)
        domain = await _run(lambda: source.lookupByName(self.name))
        own = [dev for dev, read_only in await _run(lambda: _disks(domain)) if not read_only]
        found = {
            libvirt.VIR_MIGRATE_PARAM_URI: f"tcp://{self.there.transport.endpoint.address}",
            libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS: own,
        }
        begun = time.monotonic()
        await _run(lambda: domain.migrate3(target, found, FLAGS))
        took = time.monotonic() - begun
        self.here, self.there = self.there, self.here
        return took

    async def snapshot(self) -> float:
        """Take a snapshot with memory; return seconds of the one call. It is dropped again."""
        source = await self._connection(self.here)
        domain = await _run(lambda: source.lookupByName(self.name))
        disks = "".join(
            f"<disk name='{dev}' snapshot='{'no' if read_only else 'internal'}'/>"
            for dev, read_only in await _run(lambda: _disks(domain))
        )
        xml = f"<domainsnapshot><name>bare</name><memory snapshot='internal'/><disks>{disks}</disks></domainsnapshot>"
        begun = time.monotonic()
        made = await _run(lambda: domain.snapshotCreateXML(xml, 0))
        took = time.monotonic() - begun
        await _run(lambda: made.delete(0))
        return took

    async def remove(self) -> None:
        """Take it away from both hosts."""
        for connection in self._connections.values():
            await _run(connection.close)
        for host in (self.here, self.there):
            if self.name in {one.name for one in await host.hypervisor.instances()}:
                await host.hypervisor.stop(self.name, grace_s=0)
                await host.hypervisor.undefine(self.name)
            await host.storage(DATASTORE).delete_volumes(self.id)

    async def _connection(self, host: Host) -> Any:
        if host.name not in self._connections:
            path = await host.transport.forward(SOCKET)
            self._connections[host.name] = await _run(lambda: libvirt.open(f"qemu+unix:///system?socket={path}"))
        return self._connections[host.name]


async def _run(call: Callable[[], T]) -> T:
    return await asyncio.to_thread(call)


def _disks(domain: Any) -> list[tuple[str, bool]]:
    """Return (device, read only) of a domain's disks."""
    found = ElementTree.fromstring(domain.XMLDesc(0)).iterfind("devices/disk")
    return [(str(disk.find("target").get("dev")), disk.find("readonly") is not None) for disk in found]  # type: ignore[union-attr]


async def _answers(host: Host, name: str, within_s: float = 120) -> None:
    """Wait until the guest's agent answers."""
    assert isinstance(host.hypervisor, Executes)
    async with asyncio.timeout(within_s):
        while True:
            try:
                await host.hypervisor.exec(name, ["true"])
                return
            except Busy:
                await asyncio.sleep(0.5)
