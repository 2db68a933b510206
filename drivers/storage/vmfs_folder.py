"""A folder in a vSphere datastore, as the parts of the vmfs driver see it: paths, checked names, sizes, room."""

from __future__ import annotations

import re

from core.errors import HostFault, Invalid, NotFound
from core.ids import from_host, on_host
from drivers.storage.base import StorageCapacity
from drivers.transport.vsphere import VsphereTransport
from drivers.transport.vsphere_files import Files, split

MIB = 2**20
SECTOR = 512
_DEFAULT = "rackflow"  # in the largest datastore, where the record's path is one of a Linux host
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_-]*")
_EXTENT = re.compile(r"^RW (\d+) ", re.MULTILINE)  # a descriptor's lines of extents, in sectors


class Folder:
    """Where a datastore of ours lies among vSphere's."""

    def __init__(self, transport: VsphereTransport, path: str) -> None:
        self.transport = transport
        self.files = Files(transport)
        self.path = path.rstrip("/")
        self.host = transport.endpoint.name
        self._base = ""

    async def base(self) -> str:
        """Return "[STORE] FOLDER". A path of a Linux host, a cluster's default, stands for the largest datastore."""
        if not self._base:
            found = re.fullmatch(r"/vmfs/volumes/([^/]+)/?(.*)", self.path)
            if self.path.startswith("["):
                store, inside = split(self.path)
            elif found:
                store, inside = found[1], found[2]
            else:
                stores = await self.files.stores()
                if not stores:
                    raise HostFault(f"{self.host} has no datastore that all its hosts see", f"host/{self.host}")
                store, inside = max(sorted(stores), key=lambda name: stores[name]["summary.capacity"]), _DEFAULT
            self._base = f"[{store}] {inside or _DEFAULT}"
        return self._base

    @property
    def known(self) -> str:
        """Return the folder without asking: its path as the record has it until it was looked for."""
        return self._base or self.path

    async def store(self) -> str:
        """Return the name of the datastore."""
        return split(await self.base())[0]

    async def capacity(self) -> StorageCapacity:
        """Return the size of the datastore and what is free in it. Raise NotFound (no such datastore)."""
        store = await self.store()
        found = (await self.files.stores()).get(store)
        if found is None:
            raise NotFound(f"there is no datastore {store} on {self.host}", f"host/{self.host}")
        return StorageCapacity(found["summary.capacity"] // MIB, found["summary.freeSpace"] // MIB)

    async def require_room(self, size_mib: int) -> None:
        """Raise HostFault when the datastore has less room than that."""
        free = (await self.capacity()).free_mib
        if free < size_mib:
            raise HostFault(
                f"the datastore of {self.host} has {free} MiB free, {size_mib} MiB are needed", f"host/{self.host}",
                {"free_mib": free, "needed_mib": size_mib}, "make room in the datastore",
            )  # fmt: skip

    async def of(self, instance_id: str) -> str:
        """Return an instance's folder. Raise Invalid: it becomes part of a path that is deleted whole."""
        if from_host(on_host(instance_id)) is None:
            raise Invalid(f"{instance_id!r} is not the id of an instance", f"instance/{instance_id}")
        return f"{await self.base()}/instances/{instance_id}"

    async def disk(self, instance_id: str, name: str) -> str:
        """Return the file of a disk. Raise Invalid (no name of a disk)."""
        if not _NAME.fullmatch(name):
            raise Invalid(f"{name!r} is no name of a disk", f"instance/{instance_id}", fix="use letters and digits")
        return f"{await self.of(instance_id)}/{name}.vmdk"

    async def snapshot(self, instance_id: str, name: str, snapshot: str) -> str:
        """Return the file of a disk's copy at a snapshot. Raise Invalid."""
        if not _NAME.fullmatch(snapshot):
            raise Invalid(f"{snapshot!r} is no name of a snapshot", f"instance/{instance_id}")
        return (await self.disk(instance_id, name)).removesuffix(".vmdk") + f"@{snapshot}.vmdk"

    async def size_bytes(self, file: str) -> int | None:
        """Return the size that a disk has for its guest, None if there is none: its descriptor says it."""
        try:
            text = (await self.files.get(file)).decode(errors="replace")
        except NotFound:
            return None
        return sum(int(sectors) for sectors in _EXTENT.findall(text)) * SECTOR

    async def size_mib(self, file: str) -> int | None:
        """Return that size in MiB, rounded up."""
        size = await self.size_bytes(file)
        return None if size is None else -(-size // MIB)


def half_of(file: str) -> str:
    """Return the name under which a disk is made, until it is whole."""
    folder, _, name = file.rpartition("/")
    return f"{folder}/.{name}"


def flat_of(file: str) -> str:
    """Return the file with a disk's content, which lies beside its descriptor: the bytes of the disk, one for one."""
    return f"{file.removesuffix('.vmdk')}-flat.vmdk"
