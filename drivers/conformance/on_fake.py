"""Extras of simulated hosts: what guests, backups and bad luck do in the simulated world."""

from __future__ import annotations

from core.errors import Unreachable
from core.states import InstanceKind
from drivers.conformance.extras import Extras
from drivers.conformance.rigs import Effort
from drivers.fake_files import pack_volume
from drivers.fake_things import FakeVolume
from drivers.fake_world import ANY, world
from drivers.hosts import Host
from drivers.hypervisor.base import DiskAttachment


class FakeTools:
    """What guests and backups do with disks and files of one simulated host."""

    def __init__(self, host: str) -> None:
        self._host = host

    def _volume(self, disk: DiskAttachment) -> FakeVolume:
        volume = world.host(self._host).volume_at(disk.source)
        assert volume is not None, f"there is no disk {disk.source}"
        return volume

    async def write(self, disk: DiskAttachment, text: str) -> None:
        self._volume(disk).content = text

    async def read(self, disk: DiskAttachment) -> str:
        return self._volume(disk).content

    async def put(self, path: str, data: bytes) -> None:
        world.host(self._host).files_at(path)[path] = data

    async def copies(self, *texts: str) -> list[bytes]:
        return [
            pack_volume(FakeVolume("root", 16, content=text), whole=True, since=f"c{n}" if n else "")
            for n, text in enumerate(texts)
        ]


async def conformance(host: Host) -> Extras:
    """Return what the simulated world can do for the kit."""

    async def take_name(name: str) -> None:
        world.host(host.name).add_foreign(name, InstanceKind.VM)

    async def disturb() -> None:
        world.fail(host.name, ANY, Unreachable("the answer was lost"), after=True)

    async def clear_store(path: str) -> None:
        world.host(host.name).stores.pop(path, None)

    async def clear_network(bridge: str) -> None:
        world.host(host.name).bridges.pop(bridge, None)

    async def clear_instance(name: str) -> None:
        world.host(host.name).instances.pop(name, None)

    return Extras(
        clear_instance=clear_instance,
        tools=FakeTools(host.name), take_name=take_name, disturb=disturb, clear_store=clear_store,
        clear_network=clear_network, management=world.host(host.name).management_bridge, shell=(b"a2b", b"a2b"),
        delays_s=(0.0, 0.005), effort=Effort(15, 25, inside=True, pause_s=0.001), simulated=True,
    )  # fmt: skip
