"""An instance's files in a dir datastore, taken in and handed on with their checksums.

What comes is streamed into .NAME.MARK.part, checked on the host, synced and renamed by one command there. A connection
that is cut looks like the end of the content, so that it fails the check. An overlay's path to its image is rewritten
where the datastore lies elsewhere, which changes the checksum; .NAME.taken keeps the one it came with, for the file as
it was then (inode, size, time), so that a second try leaves it alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import AsyncIterator
from pathlib import PurePosixPath

from core.errors import Busy, HostFault, Invalid, RackflowError, Unsupported
from drivers.carrier import Carrier, Parcel
from drivers.storage import dir_scripts as scripts
from drivers.storage.dir_folder import FORMATS, Folder, limit_s

_CARRIED = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*\.(?:qcow2|raw)|seed\.iso|memory\.save")
_IMAGE = re.compile(r"([0-9a-f]{64})\.(\w+)")


class DirCarrier(Carrier):
    """Moves an instance's disks, seed and saved memory; the instance is off."""

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def parcels(self, instance_id: str) -> list[Parcel]:
        """Return disks, seed and saved memory. Raise Busy (in use), Unsupported (a disk on something but an image)."""
        folder = self._folder.of(instance_id)
        there = await self._folder.files(folder)
        return [
            await self._parcel(instance_id, name, there[name]) for name in sorted(there) if _CARRIED.fullmatch(name)
        ]

    async def _parcel(self, instance_id: str, name: str, size_bytes: int) -> Parcel:
        file = f"{self._folder.of(instance_id)}/{name}"
        base = PurePosixPath(await self._backing(file, instance_id))
        image = _IMAGE.fullmatch(base.name)
        if base.name and image is None:
            raise Unsupported(
                f"disk {name} lies on top of {base}, which is no image of the datastore", f"instance/{instance_id}",
                {"file": file, "backing": str(base)}, "let qemu-img convert make one file of them",
            )
        parcel = await self.described(file, size_bytes)
        return Parcel(name, size_bytes, parcel.sha256, *(image.groups() if image else ()))

    async def _backing(self, file: str, instance_id: str) -> str:
        format = file.rpartition(".")[2]
        if format not in FORMATS:
            return ""
        found = await self._folder.info(file, format, f"instance/{instance_id}", shared=False)
        return str(found.get("backing-filename", ""))

    async def described(self, file: str, size_bytes: int) -> Parcel:
        """Return a file's size and checksum (name: its path)."""
        found = await self._folder.transport.run(["sha256sum", file], sudo=True, timeout_s=limit_s(size_bytes))
        return Parcel(file, size_bytes, found.stdout.split()[0].lstrip("\\"))

    def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Yield a file's content. Raise HostFault (also: it is gone), Unreachable."""
        return self.content(self._file(instance_id, parcel.name), parcel.size_bytes)

    def content(self, file: str, size_bytes: int) -> AsyncIterator[bytes]:
        """Yield the content of any file on the host."""
        return self._folder.transport.read(["cat", file], sudo=True, timeout_s=limit_s(size_bytes))

    def _file(self, instance_id: str, name: str) -> str:
        if _CARRIED.fullmatch(name) is None:
            raise Invalid(
                f"a dir datastore holds no {name!r}", f"instance/{instance_id}", {"name": name},
                "carry it to a host of the kind that it comes from",
            )
        return f"{self._folder.of(instance_id)}/{name}"

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        """Take a file in. Raise Invalid (checksum, name), NotFound (image), HostFault (full), Unreachable."""
        file = PurePosixPath(self._file(instance_id, parcel.name))
        return await self.take(str(file.parent), parcel, content, f"instance/{instance_id}")

    async def take(self, folder: str, parcel: Parcel, content: AsyncIterator[bytes], subject: str) -> bool:
        """Take a file into any folder of the datastore, as `write` does."""
        image = self._folder.image(parcel.base_sha256, parcel.base_format) if parcel.base_sha256 else ""
        words = [folder, parcel.name, parcel.sha256, str(parcel.size_bytes), image]
        limit = limit_s(parcel.size_bytes)
        found = await self._folder.script(scripts.LOOK, *words, check=False, timeout_s=limit)
        if found.exit_code == scripts.NO_IMAGE:
            raise self._folder.no_image(parcel.base_sha256, subject)
        self._folder.require_done(found, subject)
        if found.stdout.strip() == "same":
            return False
        await self._folder.require_room(parcel.size_bytes, parcel.name)
        argv = ["sh", "-c", scripts.TAKE, "rackflow", *words, parcel.base_format, secrets.token_hex(4)]
        try:
            done = await self._folder.transport.write(content, argv, sudo=True, timeout_s=2 * limit)
        except HostFault as error:
            raise self._folder.fault(str(error.evidence.get("stderr") or error.message), subject) from error
        word, _, seen = done.stdout.strip().partition(" ")
        if word != "taken":
            raise self._refused(parcel, word, seen, subject)
        return True

    def _refused(self, parcel: Parcel, word: str, seen: str, subject: str) -> RackflowError:
        if word == "no-image":
            return self._folder.no_image(parcel.base_sha256, subject)
        if word == "gone":
            return Busy(
                f"another writes {parcel.name} to {self._folder.host} as well", subject, {"name": parcel.name}
            )
        return Invalid(
            f"{parcel.name} came to {self._folder.host} with other content and was thrown away", subject,
            {"wanted": parcel.sha256, "found": seen, "size_bytes": parcel.size_bytes},
            "it changed or was cut short on its way: carry it again",
        )

    async def drop(self, instance_id: str) -> bool:
        """Take everything of the instance away."""
        found = await self._folder.script(scripts.DELETE_VOLUMES, self._folder.of(instance_id))
        return found.stdout.strip() == scripts.CHANGED
