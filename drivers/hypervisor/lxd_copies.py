"""LXD: archives and images of containers, by way of a copy that lives for as long as it takes.

The copy has no NICs: LXD refuses to import an archive whose addresses do not belong to the networks of the new host.
And LXD freezes what runs only while it copies it, and thaws it itself, whatever becomes of us.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from core.errors import Invalid, Unsupported
from core.ids import from_host, on_host
from drivers.hypervisor import lxd_passing, lxd_scripts
from drivers.hypervisor.lxd_core import COPY_S, LxdCore, subject_of
from drivers.hypervisor.lxd_passing import passing_name
from drivers.hypervisor.powers import BacksUp, BackupFile, SavesImages

_BACKUP = "rackflow"


class LxdCopies(LxdCore, BacksUp, SavesImages):
    """Part of LxdHypervisor."""

    async def backup(
        self, name: str, folder: str, *, checkpoint: str, since: str = "", disks: Sequence[str] = ()
    ) -> list[BackupFile]:
        """Write one archive of all of it, always whole: LXD knows no checkpoints. Raise NotFound, Unsupported."""
        found = await self._get(name)
        self.refuse_further_disks(found)
        await self.archive(found, lxd_scripts.argv(lxd_scripts.COPY, folder, "instance.tar.gz"), snapshots=False)
        return [BackupFile("instance", f"{folder}/instance.tar.gz", "tar")]

    async def drop_checkpoint(self, name: str, checkpoint: str) -> bool:
        """There are none."""
        return False

    async def save_image(self, name: str, path: str) -> bool:
        """Publish a copy of a container and write the image (a unified tarball) to path. Raise NotFound."""
        found = await self._get(name)
        copy, made = passing_name(self._id(found), "copy"), False
        if (await self._transport.run(["test", "-e", path], sudo=True, check=False)).exit_code != 0:
            await self._publish(found, copy, path)
            made = True
        await self._unpublish(copy)  # also of a call that was killed just before that
        await self._settle(copy)
        await self._delete(copy)
        return made

    async def _publish(self, found: dict[str, Any], copy: str, path: str) -> None:
        await self._copied(found, copy, snapshots=False)
        await self._unpublish(copy)
        body = {"source": {"type": "instance", "name": copy}, "aliases": [{"name": copy}], "public": False}
        subject, doing = subject_of(found["name"]), f"publish {found['name']}"
        made = await self._api.change("post", "images", json=body, subject=subject, doing=doing, timeout_s=COPY_S)
        folder, _, file = path.rpartition("/")
        image = f"{self._folder}/images/{made['metadata']['fingerprint']}"
        await self._on_host(lxd_scripts.argv(lxd_scripts.COPY, folder or "/", file, image))

    async def _unpublish(self, alias: str) -> None:
        """Delete the image that bears an alias, also one that LXD makes still for a worker that has died."""
        await self._wait_for(lambda one: not one.get("resources"), subject_of(alias))  # LXD does not say of what it is
        found = await self._api.find("images", "aliases", alias)
        if found is not None:
            await self._api.change("delete", "images", found["target"], doing=f"delete image {alias}")

    async def archive(self, found: dict[str, Any], argv: Sequence[str], *, snapshots: bool) -> str:
        """Let LXD pack a copy of an instance, and hand the file to a command as its last argument; return its words."""
        copy = passing_name(self._id(found), "copy")
        await self._copied(found, copy, snapshots=snapshots)
        body = {"name": _BACKUP, "instance_only": not snapshots, "compression_algorithm": "gzip"}
        await self._change(copy, "post", "backups", json=body, doing="pack", timeout_s=COPY_S)
        printed = await self._on_host([*argv, f"{self._folder}/backups/instances/{copy}/{_BACKUP}"])
        await self._delete(copy)
        return printed

    async def _copied(self, found: dict[str, Any], copy: str, *, snapshots: bool) -> None:
        """Copy an instance anew."""

        async def attempt() -> None:
            await self._settle(copy)
            await self._delete(copy)
            await self._api.change(
                "post", "instances", json=lxd_passing.copy_of(found, copy, snapshots=snapshots),
                subject=subject_of(found["name"]), doing=f"copy {found['name']}", timeout_s=COPY_S,
            )  # fmt: skip

        await self._persist(copy, attempt)

    async def _on_host(self, argv: Sequence[str]) -> str:
        return (await self._transport.run(argv, sudo=True, timeout_s=COPY_S)).stdout.strip()

    def refuse_further_disks(self, found: dict[str, Any]) -> None:
        """Raise Unsupported if an archive would not be all of it."""
        if further := lxd_passing.further_disks(found):
            name = found["name"]
            raise Unsupported(
                f"LXD packs only the root disk of {name}, not {', '.join(further)}", subject_of(name),
                {"disks": further}, "take them away first",
            )  # fmt: skip

    async def clear_passing(self, instance_id: str) -> bool:
        """Take away what verbs that were killed have left of an instance: copies, imports, images, archives."""
        copy = passing_name(instance_id, "copy")
        names, image, printed = await asyncio.gather(
            self._api.get("instances"), self._api.find("images", "aliases", copy),
            self._on_host(lxd_scripts.argv(lxd_scripts.CLEAR, spool(instance_id))),
        )  # fmt: skip
        mine = {copy, *(passing_name(instance_id, purpose) for purpose in lxd_passing.IMPORTS)}
        left = mine & {url.rpartition("/")[2] for url in names}
        for name in left:
            await self._settle(name)
            await self._delete(name)
        if left or image:
            await self._unpublish(copy)
        return bool(left or image or printed)


def spool(instance_id: str) -> str:
    """Return the folder on the host of an instance's archives. Raise Invalid: it is deleted whole."""
    if from_host(on_host(instance_id)) is None:
        raise Invalid(f"{instance_id!r} is not the id of an instance", f"instance/{instance_id}")
    return f"{lxd_scripts.SPOOL}/{instance_id}"
