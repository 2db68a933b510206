"""A disk of a dir datastore made anew from copies of it: a whole one, and what changed since.

    .NAME.restore/N.qcow2      the copies, as they came
    NAME.qcow2.before          hard link to the disk as it was; with it stays NAME.qcow2.base, which it lies on
    .NAME.qcow2.restored       which copies the disk was made from, and what file it was then (inode, size, time)

The new disk gets its name by one rename, after the old one has got its second name: killed anywhere, one of the two is
NAME.qcow2.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from typing import Any

from core.errors import Invalid, NotFound
from drivers.carrier import Parcel, closing
from drivers.storage import dir_scripts as scripts
from drivers.storage.dir_carrier import DirCarrier
from drivers.storage.dir_folder import Folder, limit_s


def on_top(files: Sequence[str]) -> str:
    """Return the pseudo-protocol name under which QEMU reads files, each on top of the one before, as one disk.

    What the files themselves say of what they lie on does not count (docs: qemu-block-drivers, "json:").
    """
    node: dict[str, Any] | None = None
    for file in files:
        node = {"driver": "qcow2", "file": {"driver": "file", "filename": file}, "backing": node}
    return "json:" + json.dumps(node)


class DirRestore:
    """Makes disks from copies, and keeps what was there."""

    def __init__(self, folder: Folder, carrier: DirCarrier) -> None:
        self._folder = folder
        self._carrier = carrier

    async def restore(
        self, instance_id: str, name: str, chain: Sequence[Parcel], content: Callable[[Parcel], AsyncIterator[bytes]]
    ) -> bool:
        """Make a disk anew, unless it is what was made from these copies before."""
        subject, folder = f"instance/{instance_id}", self._folder.of(instance_id)
        if not chain:
            raise Invalid(f"nothing to make disk {name} from", subject)
        file, format = await self._there(instance_id, name)
        mark = hashlib.sha256(" ".join(parcel.sha256 for parcel in chain).encode()).hexdigest()
        found = await self._folder.script(scripts.RESTORED, folder, f"{name}.{format}", mark)
        if found.stdout.strip() == "same":
            return False
        if file:
            await self._folder.info(file, format, subject, shared=False)  # in use: Busy
        work = f"{folder}/.{name}.restore"
        made = await self._merged(work, chain, content, format, subject)
        await self._folder.script(scripts.SWAP, folder, f"{name}.{format}", made, mark, work, timeout_s=600)
        return True

    async def _there(self, instance_id: str, name: str) -> tuple[str, str]:
        try:
            return await self._folder.disk(instance_id, name)
        except NotFound:
            return "", "qcow2"

    async def _merged(
        self, work: str, chain: Sequence[Parcel], content: Callable[[Parcel], AsyncIterator[bytes]], format: str,
        subject: str,
    ) -> str:  # fmt: skip
        """Bring the copies and return a file of that format made of them."""
        alone = len(chain) == 1 and format == "qcow2"
        size = sum(parcel.size_bytes for parcel in chain)
        there = await self._folder.files(work)
        await self._folder.require_room(size * (1 if alone else 2) - sum(there.values()), "a restored disk")
        files = [f"{work}/{number}.qcow2" for number in range(len(chain))]
        for number, parcel in enumerate(chain):
            named = replace(parcel, name=f"{number}.qcow2", base_sha256="", base_format="")
            async with closing(content(parcel)) as pieces:
                await self._carrier.take(work, named, pieces, subject)
        await self._require_whole(files[0], chain[0], subject)
        if alone:
            return files[0]
        made = f"{work}/made.{format}"
        words = ["convert", "-q", "-O", format, on_top(files), made]
        await self._folder.qemu_img(*words, subject=subject, timeout_s=limit_s(2 * size))
        return made

    async def _require_whole(self, file: str, parcel: Parcel, subject: str) -> None:
        backing = (await self._folder.info(file, "qcow2", subject)).get("backing-filename")
        if backing:
            raise Invalid(
                f"copy {parcel.name} is not whole: it goes on from {backing}", subject,
                {"name": parcel.name, "backing": backing}, "begin the chain with a whole copy",
            )

    async def undo(self, instance_id: str, name: str) -> bool:
        """Put the kept disk back."""
        return await self._kept(scripts.PUT_BACK, instance_id, name)

    async def drop_before(self, instance_id: str, name: str) -> bool:
        """Take the kept disk away, and the link to an image that only it lay on."""
        return await self._kept(scripts.DROP_BEFORE, instance_id, name)

    async def _kept(self, script: str, instance_id: str, name: str) -> bool:
        self._folder.named(instance_id, name)
        found = await self._folder.script(script, self._folder.of(instance_id), name)
        return found.stdout.strip() == scripts.CHANGED
