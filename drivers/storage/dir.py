"""A datastore that is a folder on the host: images by content, volumes as files on top of them.

    PATH/images/SHA256.FORMAT             verified content, readable by QEMU, never written
    PATH/images/.SHA256.FORMAT.copied     complete but not verified yet (and .part: being copied)
    PATH/instances/ID/NAME.qcow2          a writable disk; NAME.qcow2.base is a hard link to the image it is backed by

The hard link counts the users of an image: it is made before the volume and goes with the instance's folder, so an
image with one link left has no user, whatever was killed in between.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Sequence

from core.errors import Conflict, HostFault, Invalid, NotFound
from core.ids import from_host, on_host
from drivers.hypervisor.base import DiskAttachment
from drivers.storage import dir_scripts as scripts
from drivers.storage.base import ImageFile, SeedSpec, Storage, StorageCapacity, VolumeSpec
from drivers.storage.seed import seed_iso
from drivers.transport.base import Progress, Result, Transport

_SPARE_BYTES = 64 * 2**20  # left free when an image is copied
_SLOWEST_BYTES_PER_S = 2 * 2**20  # of copying and of checking, for their deadlines
_MIB = 2**20


class DirStorage(Storage):
    """One folder on one host. Each verb is one command on the host, or two."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = path.rstrip("/")
        self._host = transport.endpoint.name
        self._copying: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._image_mib: dict[str, int] = {}  # virtual sizes; content never changes

    # -- the folder

    async def prepare(self) -> bool:
        """Ensure the folders: group kvm, inherited by what is made in them, so that QEMU (not root) gets in."""
        return (await self._script(scripts.PREPARE, self._path)).stdout.strip() == scripts.CHANGED

    async def capacity(self) -> StorageCapacity:
        """Return the size of the file system, and what is free in it. Raise NotFound before prepare()."""
        total, free = await self._bytes()
        return StorageCapacity(total // _MIB, free // _MIB)

    async def _bytes(self) -> tuple[int, int]:
        argv = ["df", "--block-size=1", "--output=size,avail", self._path]
        found = await self._transport.run(argv, sudo=True, check=False)
        if found.exit_code != 0:
            raise NotFound(
                f"there is no datastore {self._path} on {self._host}", f"host/{self._host}",
                {"seen": found.stderr.strip()}, "enroll the host again",
            )
        total, free = found.stdout.split()[-2:]
        return int(total), int(free)

    # -- images

    def image_path(self, sha256: str, format: str) -> str:
        """Return where an image lies, or would lie."""
        return f"{self._path}/images/{sha256}.{format}"

    async def images(self) -> list[str]:
        """Return the sha256 of every verified image here."""
        names = await self._list(f"{self._path}/images")
        return sorted({name.split(".")[0] for name in names if len(name.split(".")[0]) == 64})

    async def _list(self, folder: str) -> list[str]:
        found = await self._transport.run(["ls", "-1", folder], sudo=True, check=False)
        return found.stdout.split() if found.exit_code == 0 else []

    async def ensure_image(self, image: ImageFile, *, progress: Progress | None = None) -> bool:
        """Copy (resumable), verify on the host, make visible. Raise HostFault (full), Invalid (wrong content)."""
        async with self._copying[image.sha256]:
            if image.sha256 in await self.images():
                return False
            target = self.image_path(image.sha256, image.format)
            copied = f"{self._path}/images/.{image.sha256}.{image.format}.copied"
            limit_s = 60 + image.size_bytes / _SLOWEST_BYTES_PER_S
            await self._require_room(image, copied)
            await self._transport.put(
                image.path, copied, mode=0o644, resume=True, sudo=True, progress=progress, timeout_s=limit_s
            )
            await self._verify(image, copied, target, limit_s)
            return True

    async def _require_room(self, image: ImageFile, copied: str) -> None:
        _, free = await self._bytes()
        part = await self._transport.run(["stat", "-c", "%s", f"{copied}.part"], sudo=True, check=False)
        missing = image.size_bytes - (int(part.stdout) if part.exit_code == 0 else 0)
        if missing + _SPARE_BYTES > free:
            raise HostFault(
                f"datastore {self._path} on {self._host} is full: {free // _MIB} MiB free, "
                f"{(missing + _SPARE_BYTES) // _MIB} MiB needed for an image",
                f"host/{self._host}",
                {"path": self._path, "free_bytes": free, "needed_bytes": missing + _SPARE_BYTES},
                "remove images or instances there, or add a datastore",
            )

    async def _verify(self, image: ImageFile, copied: str, target: str, limit_s: float) -> None:
        found = await self._script(scripts.VERIFY, copied, target, image.sha256, check=False, timeout_s=limit_s)
        if found.exit_code == scripts.WRONG:
            raise Invalid(
                f"the copy of image {image.sha256[:12]} on {self._host} has other content and was thrown away",
                f"image/{image.sha256}", {"wanted": image.sha256, "found": found.stdout.strip()},
                "the file in the front-end's store may be damaged: import the image again",
            )
        self._require_done(found, f"image/{image.sha256}")

    async def delete_image(self, sha256: str) -> bool:
        """Take a copy away, also a partial one. Raise Conflict while a volume is backed by it."""
        found = await self._script(scripts.DELETE_IMAGE, self._path, sha256, check=False)
        if found.exit_code == scripts.IN_USE:
            users = found.stdout.split()
            raise Conflict(
                f"image {sha256[:12]} on {self._host} is in use by {len(users)} instances", f"image/{sha256}",
                {"instances": users}, "delete these instances first",
            )
        self._require_done(found, f"image/{sha256}")
        self._image_mib.pop(sha256, None)
        return found.stdout.strip() == scripts.CHANGED

    # -- volumes

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        """Make a disk unless it is there. Raise NotFound (no image), Invalid (smaller than its image), HostFault."""
        folder = self._folder(spec.instance_id)
        file = f"{folder}/{spec.name}.{spec.format}"
        size_mib = await self._size_mib(spec)
        base = self.image_path(spec.image_sha256, spec.image_format) if spec.image_sha256 else ""
        found = await self._script(
            scripts.VOLUME, folder, file, spec.format, str(size_mib), base, spec.image_format, check=False,
            timeout_s=600 if base and spec.format == "raw" else 60,
        )  # fmt: skip
        if found.exit_code == scripts.NO_IMAGE:
            self._image_mib.pop(spec.image_sha256, None)
            raise self._no_image(spec)
        self._require_done(found, f"instance/{spec.instance_id}")
        return DiskAttachment(spec.name, "file", file, spec.format, size_mib)

    async def _size_mib(self, spec: VolumeSpec) -> int:
        if not spec.image_sha256:
            return spec.size_mib
        if spec.image_sha256 not in self._image_mib:
            argv = ["qemu-img", "info", "--output=json", self.image_path(spec.image_sha256, spec.image_format)]
            found = await self._transport.run(argv, sudo=True, check=False)
            if found.exit_code != 0 and "No such file" in found.stderr:
                raise self._no_image(spec)
            self._require_done(found, f"instance/{spec.instance_id}")
            self._image_mib[spec.image_sha256] = -(-int(json.loads(found.stdout)["virtual-size"]) // _MIB)
        least = self._image_mib[spec.image_sha256]
        if 0 < spec.size_mib < least:
            raise Invalid(
                f"disk {spec.name} of {spec.size_mib} MiB is smaller than its image ({least} MiB)",
                f"instance/{spec.instance_id}", {"size_mib": spec.size_mib, "image_mib": least},
                f"ask for at least {least} MiB",
            )
        return spec.size_mib or least

    def _no_image(self, spec: VolumeSpec) -> NotFound:
        return NotFound(
            f"image {spec.image_sha256[:12]} is not in datastore {self._path} on {self._host}",
            f"instance/{spec.instance_id}", {"sha256": spec.image_sha256}, "stage the image to this host",
        )

    async def ensure_seed(self, spec: SeedSpec) -> DiskAttachment:
        """Write the cloud-init seed anew; it may hold secrets, so only QEMU's group may read it."""
        folder = self._folder(spec.instance_id)
        iso, file = seed_iso(spec), f"{folder}/seed.iso"
        try:
            await self._transport.put(iso, file, mode=0o640, sudo=True)
        except HostFault:  # there is no folder yet
            await self._transport.run(["mkdir", "-p", "-m", "2770", folder], sudo=True)
            await self._transport.put(iso, file, mode=0o640, sudo=True)
        return DiskAttachment("seed", "file", file, "raw", read_only=True)

    async def volumes(self) -> list[str]:
        """Return the instance ids that have a folder of volumes here."""
        return [name for name in await self._list(f"{self._path}/instances") if from_host(on_host(name))]

    async def delete_volumes(self, instance_id: str) -> bool:
        """Take away all volumes and the seed of an instance; absent is fine."""
        found = await self._script(scripts.DELETE_VOLUMES, self._folder(instance_id))
        return found.stdout.strip() == scripts.CHANGED

    # -- what the verbs share

    def _folder(self, instance_id: str) -> str:
        if from_host(on_host(instance_id)) is None:  # it becomes part of a path that is deleted whole
            raise Invalid(f"{instance_id!r} is not the id of an instance", f"instance/{instance_id}")
        return f"{self._path}/instances/{instance_id}"

    async def _script(
        self, script: str, *arguments: str, check: bool = True, timeout_s: float = 60.0
    ) -> Result:
        argv: Sequence[str] = ["sh", "-c", script, "rackflow", *arguments]
        return await self._transport.run(argv, sudo=True, check=check, timeout_s=timeout_s)

    def _require_done(self, found: Result, subject: str) -> None:
        if found.exit_code == 0:
            return
        seen = found.stderr.strip() or f"exit code {found.exit_code}"
        raise HostFault(
            f"datastore {self._path} on {self._host}: {seen.splitlines()[-1]}", subject,
            {"path": self._path, "seen": seen}, "make room there" if "No space left" in seen else "see the evidence",
        )
