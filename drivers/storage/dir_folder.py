"""A datastore's folder on a host, as the parts of the dir driver see it: paths, checked names, scripts, errors."""

from __future__ import annotations

import json
import re
from typing import Any

from core.errors import Busy, HostFault, Invalid, NotFound, RackflowError
from core.ids import from_host, on_host
from drivers.transport.base import Result, Transport

SPARE_BYTES = 64 * 2**20  # left free when something is copied or made
_SLOWEST_BYTES_PER_S = 2 * 2**20  # of copying and of checking, for their deadlines
MIB = 2**20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")
FORMATS = ("qcow2", "raw")


def limit_s(size_bytes: int) -> float:
    """Return the deadline for copying or checking that much."""
    return 60 + size_bytes / _SLOWEST_BYTES_PER_S


class Folder:
    """Where a datastore lies, and how things are run there."""

    def __init__(self, transport: Transport, path: str) -> None:
        self.transport = transport
        self.path = path.rstrip("/")
        self.host = transport.endpoint.name

    def of(self, instance_id: str) -> str:
        """Return an instance's folder. Raise Invalid: it becomes part of a path that is deleted whole."""
        if from_host(on_host(instance_id)) is None:
            raise Invalid(f"{instance_id!r} is not the id of an instance", f"instance/{instance_id}")
        return f"{self.path}/instances/{instance_id}"

    def named(self, instance_id: str, name: str) -> str:
        """Return the path of a disk without its format. Raise Invalid."""
        if _NAME.fullmatch(name) is None:
            raise Invalid(f"{name!r} is not the name of a disk", f"instance/{instance_id}")
        return f"{self.of(instance_id)}/{name}"

    def image(self, sha256: str, format: str) -> str:
        """Return where an image lies, or would lie."""
        return f"{self.path}/images/{sha256}.{format}"

    async def files(self, folder: str) -> dict[str, int]:
        """Return the files right in a folder, with their sizes in bytes; none if there is no folder."""
        argv = ["find", folder, "-maxdepth", "1", "-type", "f", "-printf", r"%s %f\n"]
        found = await self.transport.run(argv, sudo=True, check=False)
        rows = [line.partition(" ") for line in found.stdout.splitlines()]
        return {name: int(size) for size, _, name in rows}

    async def disk(self, instance_id: str, name: str) -> tuple[str, str]:
        """Return a disk's file and format. Raise NotFound."""
        path = self.named(instance_id, name)
        there = await self.files(self.of(instance_id))
        for format in FORMATS:
            if f"{name}.{format}" in there:
                return f"{path}.{format}", format
        raise NotFound(
            f"there is no disk {name} of {instance_id} in datastore {self.path} on {self.host}",
            f"instance/{instance_id}", {"files": sorted(there)},
        )

    async def script(self, script: str, *arguments: str, check: bool = True, timeout_s: float = 60.0) -> Result:
        """Run one of the fixed scripts as root."""
        argv = ["sh", "-c", script, "rackflow", *arguments]
        return await self.transport.run(argv, sudo=True, check=check, timeout_s=timeout_s)

    async def qemu_img(self, *words: str, subject: str, timeout_s: float = 60.0) -> Result:
        """Run qemu-img as root. Raise Busy when another process has the file open, HostFault."""
        found = await self.transport.run(["qemu-img", *words], sudo=True, check=False, timeout_s=timeout_s)
        if is_locked(found):
            raise Busy(
                f"a disk in datastore {self.path} on {self.host} is in use", subject, {"seen": found.stderr.strip()},
                "stop what uses it",
            )
        self.require_done(found, subject)
        return found

    async def info(self, file: str, format: str, subject: str, *, shared: bool = True) -> dict[str, Any]:
        """Return `qemu-img info` of a file. shared: also of one in use, else that is Busy."""
        words = ["info", *(["-U"] if shared else []), "-f", format, "--output=json", file]
        found: dict[str, Any] = json.loads((await self.qemu_img(*words, subject=subject)).stdout)
        return found

    async def room(self) -> tuple[int, int]:
        """Return the size of the file system and what is free in it, in bytes. Raise NotFound before prepare()."""
        argv = ["df", "--block-size=1", "--output=size,avail", f"{self.path}/instances"]  # there since prepare()
        found = await self.transport.run(argv, sudo=True, check=False)
        if found.exit_code != 0:
            raise NotFound(
                f"there is no datastore {self.path} on {self.host}", f"host/{self.host}",
                {"seen": found.stderr.strip()}, "enroll the host again",
            )
        total, free = found.stdout.split()[-2:]
        return int(total), int(free)

    async def require_room(self, needed_bytes: int, what: str) -> None:
        """Raise HostFault unless that much and some spare is free. what: "an image", for the message."""
        _, free = await self.room()
        needed_bytes += SPARE_BYTES
        if needed_bytes > free:
            raise self.full(free, needed_bytes, what)

    def full(self, free_bytes: int, needed_bytes: int, what: str) -> HostFault:
        """Return the error for what has no room there."""
        return HostFault(
            f"datastore {self.path} on {self.host} is full: {free_bytes // MIB} MiB free, "
            f"{needed_bytes // MIB} MiB needed for {what}",
            f"host/{self.host}", {"path": self.path, "free_bytes": free_bytes, "needed_bytes": needed_bytes},
            "remove images or instances there, or add a datastore",
        )

    def fault(self, seen: str, subject: str) -> HostFault:
        """Return the error for what the host said."""
        return HostFault(
            f"datastore {self.path} on {self.host}: {seen.splitlines()[-1]}", subject,
            {"path": self.path, "seen": seen}, "make room there" if "No space left" in seen else "see the evidence",
        )

    def require_done(self, found: Result, subject: str) -> None:
        """Raise HostFault unless a command ended well."""
        if found.exit_code != 0:
            raise self.fault(found.stderr.strip() or f"exit code {found.exit_code}", subject)

    def no_image(self, sha256: str, subject: str) -> RackflowError:
        """Return the error for an image that is not staged."""
        return NotFound(
            f"image {sha256[:12]} is not in datastore {self.path} on {self.host}", subject, {"sha256": sha256},
            "stage the image to this host",
        )


def is_locked(found: Result) -> bool:
    """Say whether qemu-img failed because another process has the file open (QEMU's own lock)."""
    return found.exit_code != 0 and "Failed to get" in found.stderr and "lock" in found.stderr
