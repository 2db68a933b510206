"""An instance's files in a vSphere datastore, taken in and handed on with their checksums.

A disk travels as the bytes that its guest sees, NAME.raw: what a flat VMDK keeps beside its descriptor, and what every
other kind of host can be given. It is read and written through the datastore's own HTTPS access, a MiB at a time. What
comes is written to a disk under another name, read back, and moved: vSphere tells no checksums of what lies there.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator
from typing import Any

from pyVmomi import vim

from core.errors import Busy, Conflict, HostFault, Invalid, NotFound
from core.ids import on_host
from drivers.carrier import Carrier, Parcel, TakesDirectly, closing
from drivers.storage.vmfs_folder import MIB, Folder, flat_of, half_of
from drivers.transport.vsphere_place import VM_FOLDER, read_one

SEED, SEED_FILE = "seed.guestinfo", "seed.json"  # as a parcel, and in the datastore
_SEED_BYTES = 2**24
_KIB = 2**10
_DISK = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_-]*)\.raw")
_ZEROS = bytes(MIB)
_NOT_A_DISK = ("-flat", "-delta", "-sesparse", "-ctk", "-digest")  # parts of a disk beside its descriptor


class VmfsCarrier(Carrier, TakesDirectly):
    """Moves an instance's disks and its cloud-init texts; the instance is off, or defined no more."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder
        self._files = folder.files

    # -- out

    async def parcels(self, instance_id: str) -> list[Parcel]:
        """Return disks and seed, read for their checksums. Raise Busy (it runs), Conflict (it has snapshots)."""
        there = await self._files.list(await self._folder.of(instance_id))
        names = sorted(f"{disk}.raw" for disk in map(_disk_of, there) if disk)
        if names:
            await self._require_at_rest(instance_id)
        return [await self._parcel(instance_id, name) for name in (*names, SEED) if name != SEED or SEED_FILE in there]

    async def _parcel(self, instance_id: str, name: str) -> Parcel:
        digest, size = hashlib.sha256(), 0
        async with closing(self._content(instance_id, name)) as content:
            async for chunk in content:
                digest.update(chunk)
                size += len(chunk)
        return Parcel(name, size, digest.hexdigest())

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Yield a file's content. Raise NotFound, Unreachable, Invalid (no such name)."""
        async with closing(self._content(instance_id, parcel.name)) as content:
            async for chunk in content:
                yield chunk

    async def _content(self, instance_id: str, name: str) -> AsyncIterator[bytes]:
        """Yield a disk as its guest sees it, or the seed as it lies there."""
        file = await self._file(instance_id, name)
        if name == SEED:
            size, path = None, file
        else:
            size, path = await self._folder.size_bytes(file), flat_of(file)
            if size is None:
                raise NotFound(f"there is no disk {file} on {self._folder.host}", f"instance/{instance_id}")
        async with closing(self._files.read(path)) as content:
            async for chunk in sized(content, size):
                yield chunk

    async def _file(self, instance_id: str, name: str) -> str:
        if name == SEED:
            return f"{await self._folder.of(instance_id)}/{SEED_FILE}"
        found = _DISK.fullmatch(name)
        if found is None:
            raise Invalid(
                f"a datastore of vSphere takes no {name!r}", f"instance/{instance_id}", {"name": name},
                "carry it to a host of the kind that it comes from",
            )  # fmt: skip
        return await self._folder.disk(instance_id, found["name"])

    async def _require_at_rest(self, instance_id: str) -> None:
        """Raise Busy while its VM runs, Conflict while it has snapshots: its newest content lies in other files."""
        place, name = self._folder.transport.place, on_host(instance_id)

        def ask(c: Any) -> dict[str, Any]:
            folder = c.searchIndex.FindChild(place.vm_folder, VM_FOLDER) if place.is_vcenter else place.vm_folder
            vm = c.searchIndex.FindChild(folder, name) if folder is not None else None
            return read_one(c, vm, ["runtime.powerState", "snapshot"]) if isinstance(vm, vim.VirtualMachine) else {}

        seen = await self._folder.transport.call("looking for a VM on", ask, subject=f"instance/{instance_id}")
        if seen.get("runtime.powerState", "poweredOff") != "poweredOff":
            raise Busy(
                f"{name} on {self._folder.host} is {seen['runtime.powerState']}: its disks change",
                f"instance/{instance_id}", fix="stop it first",
            )  # fmt: skip
        if "snapshot" in seen:
            raise Conflict(
                f"{name} on {self._folder.host} has snapshots, which vSphere keeps in files of its own",
                f"instance/{instance_id}", fix="drop its snapshots first",
            )  # fmt: skip

    # -- in

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        """Take a file in. Raise Invalid (checksum, name), HostFault (full; kept otherwise than sent), Unreachable."""
        file = await self._file(instance_id, parcel.name)
        if parcel.base_sha256:
            raise Invalid(
                f"{parcel.name} goes on from image {parcel.base_sha256[:12]}, which a disk of vSphere cannot",
                f"instance/{instance_id}", fix="carry it as one whole disk",
            )  # fmt: skip
        if await self._is_there(instance_id, parcel):
            return False
        await self._files.make_folder(await self._folder.of(instance_id))
        checked = whole(content, parcel, f"instance/{instance_id}")
        if parcel.name == SEED:
            await self._take_seed(file, parcel, checked)
        else:
            await self._take_disk(instance_id, file, parcel, checked)
        return True

    async def _is_there(self, instance_id: str, parcel: Parcel) -> bool:
        try:
            size = await self._size(instance_id, parcel.name)
            return size == parcel.size_bytes and await self._parcel(instance_id, parcel.name) == parcel
        except NotFound:
            return False

    async def _size(self, instance_id: str, name: str) -> int | None:
        file = await self._file(instance_id, name)
        if name != SEED:
            return await self._folder.size_bytes(file)
        return (await self._files.list(await self._folder.of(instance_id))).get(SEED_FILE)

    async def _take_seed(self, file: str, parcel: Parcel, content: AsyncIterator[bytes]) -> None:
        if parcel.size_bytes > _SEED_BYTES:
            raise Invalid(f"a {SEED} of {parcel.size_bytes} bytes is none", file)
        data = b"".join([chunk async for chunk in content])
        half = half_of(file)
        await self._files.put(half, data)
        await self._files.move(half, file)

    async def _take_disk(self, instance_id: str, file: str, parcel: Parcel, content: AsyncIterator[bytes]) -> None:
        if parcel.size_bytes <= 0 or parcel.size_bytes % _KIB:
            raise Invalid(
                f"{parcel.name} of {parcel.size_bytes} bytes is no disk of whole KiB", f"instance/{instance_id}"
            )
        await self._folder.require_room(parcel.size_bytes // MIB)
        half = half_of(file)
        await self._files.delete_disk(half)
        await self._files.make_disk(half, parcel.size_bytes // _KIB)
        await self._files.put(flat_of(half), content, parcel.size_bytes)
        await self._require_kept(half, parcel)
        await self._files.move_disk(half, file)

    async def _require_kept(self, half: str, parcel: Parcel) -> None:
        """Read back what was written. Raise HostFault: the source may go once this was well."""
        digest = hashlib.sha256()
        async with closing(self._files.read(flat_of(half))) as content:
            async for chunk in content:
                digest.update(chunk)
        if digest.hexdigest() != parcel.sha256:
            raise HostFault(
                f"{self._folder.host} keeps {parcel.name} otherwise than it was sent", f"host/{self._folder.host}",
                {"sent": parcel.sha256, "kept": digest.hexdigest(), "file": half}, "look at that datastore",
            )  # fmt: skip

    # -- from one datastore to another

    async def take_from(self, source: Carrier, instance_id: str) -> int | None:
        """Have vSphere copy the disks. Raise Busy (it runs), Conflict (it has snapshots), HostFault (full)."""
        if not isinstance(source, VmfsCarrier) or not await self._is_same_vsphere(source):
            return None
        there = await source._files.list(await source._folder.of(instance_id))
        disks, moved = sorted(disk for disk in map(_disk_of, there) if disk), 0
        if disks:
            await source._require_at_rest(instance_id)
            await self._files.make_folder(await self._folder.of(instance_id))
        for disk in disks:
            moved += await self._copy(source, instance_id, disk)
        if SEED_FILE in there:
            parcel = await source._parcel(instance_id, SEED)
            moved += parcel.size_bytes * await self.write(instance_id, parcel, source.read(instance_id, parcel))
        return moved

    async def _copy(self, source: VmfsCarrier, instance_id: str, disk: str) -> int:
        """Copy a disk; return its bytes, 0 if it is there: only one of the same size is read to know that."""
        name = f"{disk}.raw"
        size = await source._size(instance_id, name)
        if size == await self._size(instance_id, name) and await self._is_there(
            instance_id, await source._parcel(instance_id, name)
        ):
            return 0
        await self._folder.require_room((size or 0) // MIB)
        file = await self._file(instance_id, name)
        half, centre = half_of(file), source._folder.transport.place.datacenter
        await self._files.delete_disk(half)
        await self._files.copy_disk(await source._file(instance_id, name), half, centre=centre)
        await self._files.move_disk(half, file)
        return size or 0

    async def _is_same_vsphere(self, other: VmfsCarrier) -> bool:
        """Say whether one server, or one vCenter, sees both datastores."""
        mine, theirs = self._folder.transport, other._folder.transport
        same = (mine.endpoint.address, mine.endpoint.port) == (theirs.endpoint.address, theirs.endpoint.port)
        return same and mine.place.is_vcenter == theirs.place.is_vcenter

    async def drop(self, instance_id: str) -> bool:
        """Take everything of the instance away."""
        return await self._files.delete(await self._folder.of(instance_id))


def _disk_of(file: str) -> str:
    """Return the name of the disk that a file is the descriptor of, "" for all others, as copies and halves are."""
    name = file.removesuffix(".vmdk")
    is_disk = name != file and not name.endswith(_NOT_A_DISK) and _DISK.fullmatch(f"{name}.raw")
    return name if is_disk else ""


async def sized(content: AsyncIterator[bytes], size_bytes: int | None) -> AsyncIterator[bytes]:
    """Yield content up to a size, and zeros for what is missing at its end: a disk's size is what its descriptor says.

    None: as it comes.
    """
    left = size_bytes
    async for chunk in content:
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
    while left:
        yield _ZEROS[: min(left, MIB)]
        left -= min(left, MIB)


async def whole(content: AsyncIterator[bytes], parcel: Parcel, subject: str) -> AsyncIterator[bytes]:
    """Yield content and, before its last piece, see whether it is all there. Raise Invalid."""
    digest, done = hashlib.sha256(), 0
    held = b""  # a piece behind: who is sent all of it might take it for good
    async for chunk in content:
        digest.update(chunk)
        done += len(chunk)
        if done > parcel.size_bytes:
            break
        if held:
            yield held
        held = chunk
    if (done, digest.hexdigest()) != (parcel.size_bytes, parcel.sha256):
        raise Invalid(
            f"{parcel.name} came with other content", subject,
            {"wanted": parcel.sha256, "found": digest.hexdigest(), "bytes": done, "of": parcel.size_bytes},
            "it changed or was cut short on its way: carry it again",
        )  # fmt: skip
    yield held
