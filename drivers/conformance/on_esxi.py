"""Extras of ESXi hosts and places in a vCenter."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from pyVmomi import vim

from core.errors import Conflict
from core.ids import new_id
from core.states import InstanceKind
from drivers.conformance.extras import Extras
from drivers.conformance.rigs import Effort
from drivers.hosts import Host
from drivers.hypervisor.base import DiskAttachment, InstanceSpec
from drivers.hypervisor.powers import Adopts
from drivers.network.portgroup import PortGroupNetwork
from drivers.storage.base import VolumeSpec
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_files import Files


class VmfsTools:
    """Writes to the extent of a disk that is off; its descriptor lies beside it."""

    def __init__(self, transport: VsphereTransport) -> None:
        self._files = Files(transport)

    async def write(self, disk: DiskAttachment, text: str) -> None:
        await self._files.put(disk.source.replace(".vmdk", "-flat.vmdk"), text.encode())

    async def read(self, disk: DiskAttachment) -> str:
        return (await self._files.get(disk.source.replace(".vmdk", "-flat.vmdk"))).decode()

    async def put(self, path: str, data: bytes) -> None:
        await self._files.put(path, data)

    async def copies(self, *texts: str) -> list[bytes]:
        return [text.encode() for text in texts]  # nothing reads them: vSphere takes no copies of disks


async def conformance(host: Host) -> Extras:
    """Return what vSphere's API can do for the kit."""
    transport, network = host.transport, host.network
    assert isinstance(transport, VsphereTransport)
    assert isinstance(network, PortGroupNetwork)
    files = Files(transport)

    ids: dict[str, str] = {}  # of what others "made", by name

    async def take_name(name: str) -> None:
        driver, instance_id = host.hypervisor, ids.setdefault(name, new_id())
        root = await host.storage(store).ensure_volume(VolumeSpec(instance_id, "root", 16))
        await driver.define(InstanceSpec(instance_id, name, name, InstanceKind.VM, 1, 64, (root,), ()))
        if isinstance(driver, Adopts):
            await driver.disown(name)

    async def clear_instance(name: str) -> None:
        if isinstance(host.hypervisor, Adopts) and name in ids:
            with suppress(Conflict):
                await host.hypervisor.adopt(name, ids[name])
            await host.hypervisor.undefine(name)
            await host.storage(store).delete_volumes(ids.pop(name))

    async def clear_store(path: str) -> None:
        await files.delete(path)

    async def clear_network(name: str) -> None:
        def remove(content: Any) -> None:
            for system in network.systems(content):
                with suppress(vim.fault.NotFound):
                    system.RemovePortGroup(name)

        await transport.call(f"removing port group {name} from", remove)

    stores = await files.stores()
    largest = max(stores, key=lambda name: int(stores[name]["summary.freeSpace"]))
    store = f"[{largest}] rackflow"
    groups = [one.name for one in await network.bridges()]
    return Extras(
        tools=VmfsTools(transport), tools_see_snapshots=False, take_name=take_name, clear_store=clear_store,
        clear_network=clear_network, clear_instance=clear_instance,
        management=await network.management(), there=groups[-1], datastore=store,
        bridge_has_address=False, disk_format="vmdk", overlays=False, delays_s=(0.0, 0.02),
        shared_disks=True, hotplug=True, effort=Effort(2, 10, pause_s=0.05),
    )  # fmt: skip
