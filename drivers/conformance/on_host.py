"""Rigs of a host that is really there: connected, used by the kit alone for what it makes, and left as it was."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import RackflowError
from core.ids import new_id
from core.settings import DriverSettings
from drivers.conformance.cases import not_reached, unsupported
from drivers.conformance.extras import Extras, extras_of
from drivers.conformance.flags import FLAGS
from drivers.conformance.instances import Instances
from drivers.conformance.made import Kind, Made, Thing
from drivers.conformance.rigs import HypervisorRig, NetworkRig, StorageRig
from drivers.conformance.transport import TransportRig
from drivers.hosts import Host, connect
from drivers.hypervisor.powers import Executes
from drivers.storage.base import ImageFile
from drivers.transport.base import Endpoint, LocksItself


@dataclass(frozen=True)
class Where:
    """Which driver is tried on which host. other: another host of its kind, for what takes two.

    datastore, bridge: what instances get, "" = as the driver's extras say; without a bridge they have no NIC. image:
    what they start from; without one VMs have a blank disk, and what only a guest can show is not reached.
    store_image: a small qcow2 image, for the cases of datastores.
    """

    kind: str
    endpoint: Endpoint
    settings: DriverSettings
    datastore: str = ""
    bridge: str = ""
    image: ImageFile | None = None
    store_image: ImageFile | None = None
    other: Endpoint | None = None


class HostRigs:
    """Makes a rig for each case, over one connection for as long as that lives."""

    def __init__(self, where: Where, made: Path | None = None) -> None:
        """made: a folder for what is made, by host, so that it is known after a run that was killed.

        Raise Conflict while another run is at work on one of the hosts.
        """
        self.where = where
        ends = [where.endpoint, *([where.other] if where.other is not None else [])]
        self._made = {end: Made(end.name, made and made / f"{end.name}.jsonl") for end in ends}
        self._open: dict[str, Host] = {}
        self._extras: dict[str, Extras] = {}

    async def host(self, endpoint: Endpoint | None = None) -> Host:
        """Return a host, connected. Raise as the driver does."""
        wanted = endpoint or self.where.endpoint
        there = self._open.get(wanted.name)
        if there is None or not there.transport.is_alive():
            if there is not None:
                await self._close(wanted.name)
            there = self._open[wanted.name] = await connect(self.where.kind, wanted, self.where.settings)
            self._extras[wanted.name] = await extras_of(self.where.kind, there)
        return there

    async def _extras_of(self, endpoint: Endpoint | None = None) -> Extras:
        return self._extras[(await self.host(endpoint)).name]

    async def _close(self, name: str) -> None:
        with suppress(RackflowError, OSError):
            await self._open.pop(name).close()

    async def lacks(self) -> frozenset[str]:
        """Return the flags of Capabilities that the driver does not claim there. Raise as the driver does."""
        claimed = await (await self.host()).hypervisor.capabilities()
        return frozenset(flag for flag in FLAGS if not getattr(claimed, flag))

    def _note(self, kind: Kind, name: str, store: str, host: Host | None) -> None:
        for end, made in self._made.items():
            if host is None or host.name == end.name:
                made.add(kind, name, store)

    async def clear(self, *, images: bool = False) -> list[Thing]:
        """Take away what was made, here or by a run that was killed; return what still is there: a host is lost."""
        for end, made in self._made.items():
            if any(images or thing.kind is not Kind.IMAGE for thing in made.things):
                with suppress(RackflowError):
                    await made.clear(await self.host(end), await self._extras_of(end), images=images)
        return [thing for thing in self.left() if images or thing.kind is not Kind.IMAGE]

    def left(self) -> list[Thing]:
        """Return what is there of this run, or of one that was killed."""
        return list(dict.fromkeys(thing for made in self._made.values() for thing in made.things))

    async def close(self) -> None:
        """Take away what serves all cases, and close all connections."""
        try:
            for end, made in self._made.items():
                with suppress(RackflowError):
                    await made.look(await self.host(end))
            await self.clear(images=True)
        finally:
            for name in list(self._open):
                await self._close(name)
            for made in self._made.values():
                made.close()

    def _store(self, extras: Extras) -> str:
        return self.where.datastore or extras.datastore or self.where.settings.datastore_path

    @asynccontextmanager
    async def hypervisor(self) -> AsyncIterator[HypervisorRig]:
        """Give a hypervisor, and clear away what the case made with it."""
        here, extras = await self.host(), await self._extras_of()
        there = await self.host(self.where.other) if self.where.other is not None else None
        bridge = self.where.bridge or extras.there
        made = Instances(here, there, extras, self._store(extras), bridge, self.where.image, self._note)
        guests = extras.simulated or (self.where.image is not None and isinstance(here.hypervisor, Executes))
        try:
            await made.begin()
            folder = await made.folder()
            yield HypervisorRig(
                here.hypervisor, made.new, made.broken, made.take_name if extras.take_name else None,
                made.ready if guests else None, at_once=4, delays_s=extras.delays_s, folder=folder,
                file_bytes=made.file_bytes if folder else None, with_disk=made.with_disk,
                with_nic=made.with_nic if bridge else None, larger=made.larger, may_grow=made.may_grow,
                move=made.move if there else None, other=there.hypervisor if there else None,
                console_talk=extras.shell if guests else None,
                reboot_grace_s=0.1 if extras.simulated else 20.0, guests=guests,
                hotplug=guests or extras.hotplug, moves=extras.moves, tools=extras.tools,
                tools_see_snapshots=extras.tools_see_snapshots, left_of=made.left_of,
                disturb=extras.disturb, effort=extras.effort,
            )
        finally:
            await self.clear()

    @asynccontextmanager
    async def storage(self) -> AsyncIterator[StorageRig]:
        """Give a datastore of its own, beside the one in use."""
        here, extras = await self.host(), await self._extras_of()
        if self.where.store_image is None:
            not_reached("there is no qemu-img here to make a small image with: install qemu-utils")
        path = f"{self._store(extras)}-conformance-{new_id()[-8:]}"
        self._made[self.where.endpoint].add(Kind.STORE, path)
        try:
            yield StorageRig(
                here.storage(path), self.where.store_image, extras.tools, extras.disk_format, extras.overlays,
                disturb=extras.disturb, effort=extras.effort,
            )
        finally:
            await self.clear()

    @asynccontextmanager
    async def network(self) -> AsyncIterator[NetworkRig]:
        """Give the networks of the host; what a case makes is taken away where the driver's extras can."""
        here, extras = await self.host(), await self._extras_of()
        there = self.where.bridge or extras.there or next((one.name for one in await here.network.bridges()), "")
        if not there:
            not_reached("there is no network on the host")
        free = f"rft-{new_id()[-8:]}" if extras.clear_network is not None else ""
        cidr = "10.255.213.1/24" if extras.bridge_has_address else ""
        if free:
            self._made[self.where.endpoint].add(Kind.BRIDGE, free)
        try:
            yield NetworkRig(
                here.network, there, free, extras.management, cidr, disturb=extras.disturb, effort=extras.effort
            )
        finally:
            await self.clear()

    @asynccontextmanager
    async def transport(self) -> AsyncIterator[TransportRig]:
        """Give a connection, and a folder on the host."""
        here = await self.host()
        if isinstance(here.transport, LocksItself):
            unsupported("hosts of this kind have no shell")
        folder = f"/tmp/rackflow-conformance-{new_id()}"
        self._made[self.where.endpoint].add(Kind.FOLDER, folder)
        await here.transport.run(["mkdir", "-p", folder], check=False)
        try:
            yield TransportRig(here.transport, folder, port=self.where.endpoint.port)
        finally:
            await self.clear()
