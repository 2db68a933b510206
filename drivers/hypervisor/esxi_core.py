"""What all parts of the ESXi driver share: the session, the inventory, and one change at a time for each VM."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

from pyVmomi import vim

from core.errors import Conflict, HostFault, NotFound
from core.ids import from_host
from core.states import PowerState
from drivers.hypervisor import esxi_config as config
from drivers.hypervisor.alone import Alone
from drivers.hypervisor.base import InstanceSpec, ObservedInstance
from drivers.hypervisor.esxi_inventory import Inventory
from drivers.storage.base import SeedSpec
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_files import Files
from drivers.transport.vsphere_place import Place, all_of, read, read_one

_NETWORK = ("name", "key", "config.distributedVirtualSwitch")
_CHANGE_S = 600.0


def subject(name: str) -> str:
    """Return "instance/ID" for a name on the host."""
    return f"instance/{from_host(name) or name}"


class EsxiCore(Alone):
    """One place of one session. VMs are found by their names in the inventory, which is brought up to date first."""

    def __init__(self, transport: VsphereTransport) -> None:
        super().__init__()
        self._transport = transport
        self._files = Files(transport)
        self._host = transport.endpoint.name
        self._inventory: Inventory | None = None
        self._looking = asyncio.Lock()
        self._next_look: asyncio.Future[Inventory] | None = None

    @property
    def place(self) -> Place:
        """Return where in the inventory this host stands."""
        return self._transport.place

    async def refreshed(self) -> Inventory:
        """Return the inventory, as it is after this call was made. Raise Unreachable."""
        if self._next_look is None:  # all who ask before it begins share one look
            self._next_look = asyncio.ensure_future(self._look_again())
        return await asyncio.shield(self._next_look)

    async def _look_again(self) -> Inventory:
        async with self._looking:
            self._next_look = None
            if self._inventory is None:
                mhz = await self._transport.call("measuring", self._mhz)
                self._inventory = Inventory(self.place, mhz)
            await self._transport.call("listing the VMs of", self._inventory.refresh)
            return self._inventory

    def _mhz(self, content: Any) -> int:
        hosts = read(content, self.place.hosts[:1], ["summary.hardware.cpuMhz"])
        return int(hosts[0][1].get("summary.hardware.cpuMhz", 0)) if hosts else 0

    # -- one VM

    async def look(self, name: str) -> tuple[Any, ObservedInstance]:
        """Return a VM and what is seen of it. Raise Conflict (absent)."""
        inventory = await self.refreshed()
        vm, seen = inventory.find(name), inventory.seen(name)
        if vm is None or seen is None:
            raise Conflict(f"there is no {name} on {self._host}", subject(name), fix="define it first")
        return vm, seen

    async def running(self, name: str) -> tuple[Any, ObservedInstance]:
        """Return a VM that is on, or suspended. Raise Conflict (absent, off)."""
        vm, seen = await self.look(name)
        if seen.power is PowerState.STOPPED:
            raise Conflict(f"{name} on {self._host} is off", subject(name), fix="start it first")
        return vm, seen

    async def known(self, name: str) -> tuple[Any, ObservedInstance]:
        """Return a VM. Raise NotFound."""
        try:
            return await self.look(name)
        except Conflict as error:
            raise NotFound(error.message, error.subject) from error

    async def settings(self, name: str, vm: Any) -> config.Seen:
        """Return the settings of a VM as they are now."""
        return config.Seen(
            await self._transport.call(
                "reading the settings of a VM on", lambda c: read_one(c, vm, config.CONFIG), subject=subject(name)
            )
        )

    async def change(self, name: str, doing: str, begin: Callable[[], Any], timeout_s: float = _CHANGE_S) -> Any:
        """Run a task on a VM to its end; return its result."""
        return await self._transport.task(
            f"{doing} {name}", lambda _: begin(), subject=subject(name), timeout_s=timeout_s
        )

    async def reconfigured(self, name: str, vm: Any, wanted: Any) -> None:
        """Change the settings of a VM; the inventory knows them at once, however late their update comes."""
        await self.change(name, "changing", lambda: vm.ReconfigVM_Task(wanted))
        inventory = await self.refreshed()
        await self._transport.call("looking again at a VM on", lambda c: inventory.reread(c, vm), subject=subject(name))

    # -- what a spec needs

    async def networks(self) -> config.Networks:
        """Return the datacenter's port groups by name, as a NIC is backed by them."""

        def ask(content: Any) -> dict[str, Any]:
            root = read_one(content, self.place.datacenter, ["networkFolder"])["networkFolder"]
            found = all_of(content, root, [vim.Network], ["name"])
            far = [one for one, _ in found if isinstance(one, vim.dvs.DistributedVirtualPortgroup)]
            more = dict(read(content, far, _NETWORK))
            switches = {values["config.distributedVirtualSwitch"] for values in more.values()}
            uuids = {one: values["uuid"] for one, values in read(content, switches, ["uuid"])}
            for values in more.values():
                values["uuid"] = uuids[values["config.distributedVirtualSwitch"]]
            return {values["name"]: config.backing(one, more.get(one, values)) for one, values in found}

        return await self._transport.call("listing the networks of", ask)

    async def guestinfo(self, spec: InstanceSpec) -> dict[str, str]:
        """Return the settings that carry the cloud-init seed, which the datastore keeps as a file. Raise HostFault."""
        seed = next((disk for disk in spec.disks if disk.kind == "guestinfo"), None)
        if seed is None:
            return {}
        try:
            texts = json.loads(await self._files.get(seed.source))
        except NotFound as error:
            raise HostFault(
                f"{spec.name}: its seed {seed.source} is gone", f"instance/{spec.id}", fix="make its disks again"
            ) from error
        return config.guestinfo(SeedSpec(spec.id, **texts))
