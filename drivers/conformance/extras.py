"""What the contracts have no verb for, and the kit needs: how to look at disks from outside, what to clear away.

A driver's module may have `async def conformance(host: Host) -> Extras`. Without it, or without a part of it, the cases
that need the part are not reached; nothing else is different.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType

from core.states import InstanceKind
from drivers import registry
from drivers.conformance.cases import not_reached
from drivers.conformance.rigs import Effort, Tools
from drivers.hosts import Host
from drivers.hypervisor.base import DiskAttachment

OWN = {
    "kvm": "drivers.conformance.on_linux", "lxd": "drivers.conformance.on_linux", "esxi": "drivers.conformance.on_esxi",
    "fake": "drivers.conformance.on_fake", "firecracker": "drivers.conformance.on_linux",
}  # fmt: skip


LITTLE = Effort(2, 12)


class NoTools:
    """Tools of a driver that brings none: the cases that would use them are not reached."""

    async def write(self, disk: DiskAttachment, text: str) -> None:
        not_reached("the driver's module gives no tools to write to a disk")

    async def read(self, disk: DiskAttachment) -> str:
        not_reached("the driver's module gives no tools to read a disk")

    async def put(self, path: str, data: bytes) -> None:
        not_reached("the driver's module gives no tools to write a file")

    async def copies(self, *texts: str) -> list[bytes]:
        not_reached("the driver's module gives no tools to make copies of disks")


@dataclass(frozen=True)
class Extras:
    """What a driver's module may tell the kit about one host.

    tools: look at disks from outside; tools_see_snapshots: also at those that have snapshots.
    take_name: makes an instance by that name as somebody else would.
    settle_in: makes a guest's console answer. shell: what has to be typed there, and its answer.
    disturb: lets the next call fail in a way that another try is to overcome.
    clear_store, clear_network: take away what the kit made and no verb takes away, by path and by name;
    clear_instance: what the driver's verbs did not, or may not.
    management: the network that must not be touched; there: one that is there; datastore: where there is room.
    bridge_has_address, disk_format, overlays, moves: as in the rigs. shared_disks: such hosts see the same ones.
    options: of each instance that the kit makes; growing: also of one that is to grow while it runs. hotplug: devices
    come and go without a guest's help. simulated: guests answer, whatever image they have.
    """

    tools: Tools = field(default_factory=NoTools)
    tools_see_snapshots: bool = True
    take_name: Callable[[str], Awaitable[None]] | None = None
    settle_in: Callable[[str], Awaitable[None]] | None = None
    disturb: Callable[[], Awaitable[None]] | None = None
    clear_store: Callable[[str], Awaitable[None]] | None = None
    clear_network: Callable[[str], Awaitable[None]] | None = None
    clear_instance: Callable[[str], Awaitable[None]] | None = None
    management: str = ""
    there: str = ""
    datastore: str = ""
    bridge_has_address: bool = True
    disk_format: str = "qcow2"
    overlays: bool = True
    moves: tuple[InstanceKind, ...] = (InstanceKind.VM,)
    shell: tuple[bytes, bytes] = (b"\necho a$((1+1))b\n", b"a2b")
    delays_s: tuple[float, ...] = (0.0, 0.01, 0.2)
    effort: Effort = LITTLE
    shared_disks: bool = False
    hotplug: bool = False
    options: tuple[tuple[str, str], ...] = ()
    growing: tuple[tuple[str, str], ...] = ()
    simulated: bool = False


async def extras_of(kind: str, host: Host) -> Extras:
    """Return what is known about a kind of host besides its contract. Raise as loading its driver does."""
    module: ModuleType = import_module(OWN[kind]) if kind in OWN else registry.load(kind)
    make = getattr(module, "conformance", None)
    found: Extras = await make(host) if make is not None else Extras()
    return found
