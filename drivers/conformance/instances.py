"""What the kit makes on a host to try its hypervisor: instances, their disks and NICs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from core.errors import Busy, NotFound, RackflowError
from core.ids import mac_address, new_id, on_host
from core.states import InstanceKind
from drivers.conformance.cases import not_reached
from drivers.conformance.extras import Extras
from drivers.conformance.made import Kind
from drivers.hosts import Host
from drivers.hypervisor.base import DiskAttachment, Hypervisor, InstanceSpec, NicAttachment
from drivers.hypervisor.powers import Executes, KeepsImages, Move
from drivers.network.base import NetworkSpec, NicSpec
from drivers.storage.base import ImageFile, VolumeSpec
from drivers.storage.seed import seed_texts

BLANK_MIB, MORE_MIB = 16, 32
POOL = "default"  # of hypervisors that hold root disks themselves
ANSWERS_WITHIN_S = 180.0  # a guest, where it is emulated
MEMORY_MIB = {InstanceKind.VM: 128, InstanceKind.CONTAINER: 64}


class Instances:
    """Makes instances on `here`, whose disks lie in one datastore and whose NICs are on one bridge."""

    def __init__(
        self, here: Host, there: Host | None, extras: Extras, store: str, bridge: str, image: ImageFile | None,
        note: Callable[[Kind, str, str, Host | None], None],
    ) -> None:  # fmt: skip
        """note: is told of each thing before it is made, with its datastore, and the host if it is only on one."""
        self._hosts = [here, *([there] if there is not None else [])]
        self._note = note
        self._here, self._there, self._extras, self._image = here, there, extras, image
        self._storage, self._store = here.storage(store), store
        self._lan = NetworkSpec("conformance", "bridge", bridge)
        self._kind = InstanceKind.VM
        self._folder_id = new_id()

    async def begin(self) -> None:
        """See what kind of instance the host runs, and bring the image there."""
        kinds = (await self._here.hypervisor.capabilities()).kinds
        self._kind = InstanceKind.VM if InstanceKind.VM in kinds else InstanceKind.CONTAINER
        if self._kind is InstanceKind.CONTAINER and self._image is None:
            not_reached("containers start from an image: name one with --image")
        for host in self._hosts:
            await host.hypervisor.prepare()
            await host.storage(self._store).prepare()
            if self._image is not None:
                await self._stage(host, self._image)

    async def _stage(self, host: Host, image: ImageFile) -> None:
        storage, driver = host.storage(self._store), host.hypervisor
        importer = driver if isinstance(driver, KeepsImages) and self._kind is InstanceKind.CONTAINER else None
        there = await storage.images() if importer is None else [one.fingerprint for one in await importer.images()]
        if image.sha256 in there:
            return
        self._note(Kind.IMAGE, image.sha256, self._store, host)
        await storage.ensure_image(image)
        if importer is not None:
            path = storage.image_path(image.sha256, image.format)
            await importer.import_image(path, image.sha256, name="conformance")

    async def folder(self) -> str:
        """Return a folder on the host for saved memory and backups, "" where there is none."""
        self._note(Kind.SCRATCH, self._folder_id, self._store, None)
        with suppress(RackflowError):
            return await self._storage.ensure_scratch(self._folder_id)
        return ""

    async def file_bytes(self, path: str) -> int:
        try:
            return (await self._storage.scratch_file(path)).size_bytes
        except NotFound:
            return 0

    # specs

    async def new(self) -> InstanceSpec:
        """Return the spec of an instance whose disks and NIC are ready."""
        instance_id = new_id()
        self._note(Kind.INSTANCE, instance_id, self._store, None)
        disks = await self._disks(self._here, instance_id)
        nics = (await self._nic(instance_id, 0),) if self._lan.bridge else ()
        if self._image is not None and self._kind is InstanceKind.VM:
            disks = (*disks, await self._seed(self._here, instance_id, nics))
        return InstanceSpec(
            instance_id, on_host(instance_id), "conformance", self._kind, 1, MEMORY_MIB[self._kind], disks, nics,
            options=self._extras.options,
        )  # fmt: skip

    async def _disks(self, host: Host, instance_id: str) -> tuple[DiskAttachment, ...]:
        image = self._image
        if self._kind is InstanceKind.CONTAINER:
            content = image.sha256 if image is not None else ""
            return (DiskAttachment("root", "pool", POOL, "raw", image_fingerprint=content),)
        spec = VolumeSpec(instance_id, "root", BLANK_MIB)
        if image is not None:
            spec = VolumeSpec(instance_id, "root", 0, image.sha256, image.format)
        return (await host.storage(self._store).ensure_volume(spec),)

    async def _seed(self, host: Host, instance_id: str, nics: tuple[NicAttachment, ...]) -> DiskAttachment:
        return await host.storage(self._store).ensure_seed(seed_texts(
            instance_id=instance_id, hostname="conformance", ssh_keys=[], user_data="", nics=nics
        ))  # fmt: skip

    async def _nic(self, instance_id: str, index: int) -> NicAttachment:
        return await self._here.network.ensure_nic(self._lan, NicSpec(index, mac_address(instance_id, index)))

    def broken(self, spec: InstanceSpec) -> InstanceSpec:
        root, *others = spec.disks
        wrong = {"image_fingerprint": "0" * 64} if root.kind == "pool" else {"source": f"{root.source}.gone"}
        return replace(spec, disks=(replace(root, **wrong), *others))  # type: ignore[arg-type]

    async def with_disk(self, spec: InstanceSpec) -> InstanceSpec:
        if self._kind is InstanceKind.CONTAINER:
            more = DiskAttachment("data1", "pool", POOL, "raw", MORE_MIB)
        else:
            more = await self._storage.ensure_volume(VolumeSpec(spec.id, "data1", MORE_MIB))
        return replace(spec, disks=(*spec.disks, more))

    async def with_nic(self, spec: InstanceSpec) -> InstanceSpec:
        return replace(spec, nics=(*spec.nics, await self._nic(spec.id, len(spec.nics))))

    def may_grow(self, spec: InstanceSpec) -> InstanceSpec:
        return replace(spec, options=(*spec.options, *self._extras.growing))

    @staticmethod
    def larger(spec: InstanceSpec) -> InstanceSpec:
        return replace(spec, cpu=spec.cpu * 2, memory_mib=spec.memory_mib * 2)

    async def move(self, spec: InstanceSpec) -> tuple[Move, Hypervisor]:
        """Make blank disks on the other host, to be copied to; none where both see the same."""
        assert self._there is not None
        address = self._there.transport.endpoint.address
        if self._extras.shared_disks:
            return Move(spec, address), self._there.hypervisor
        disks = await self._disks(self._there, spec.id)
        if self._image is not None:
            disks = (*disks, await self._seed(self._there, spec.id, spec.nics))
        return Move(replace(spec, disks=disks), address, ("root",)), self._there.hypervisor

    # the world around

    async def take_name(self, name: str) -> None:
        assert self._extras.take_name is not None
        self._note(Kind.FOREIGN, name, self._store, None)
        await self._extras.take_name(name)

    async def ready(self, name: str) -> None:
        """Wait until a guest answers, on whichever host it runs."""
        for host in self._hosts:
            if (await host.hypervisor.observe(name)).power in ("running", "paused"):
                await self._answer(host, name)

    async def _answer(self, host: Host, name: str) -> None:
        assert isinstance(host.hypervisor, Executes)
        async with asyncio.timeout(ANSWERS_WITHIN_S):
            while True:
                try:
                    await host.hypervisor.exec(name, ["true"])
                    break
                except Busy:
                    await asyncio.sleep(0.5)
        if self._extras.settle_in is not None and host is self._here:
            await self._extras.settle_in(name)

    async def left_of(self, spec: InstanceSpec) -> list[str]:
        return await self._here.network.interfaces_of([nic.mac for nic in spec.nics])
