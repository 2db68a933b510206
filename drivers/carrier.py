"""Contract of what holds an instance's files and can hand them on, file by file, with checksums."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Parcel:
    """One file of an instance, to be carried elsewhere. base_sha256: the image that it is an overlay of."""

    name: str  # root.qcow2, seed.iso, memory.save, instance.tar.gz
    size_bytes: int
    sha256: str
    base_sha256: str = ""
    base_format: str = ""


class Carrier(Protocol):
    """Holds an instance's files: a datastore on a host, LXD itself, or the front-end's vault. The instance is off."""

    async def parcels(self, instance_id: str) -> list[Parcel]:
        """Return all that has to be carried, with checksums; made ready where need be. [] = nothing is here."""
        ...

    def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Yield a parcel's content."""
        ...

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        """Take a parcel in: whole, synced and with the right checksum, or not at all. There already: False, unread.

        Raise Invalid (checksum), NotFound (the image that it is an overlay of), HostFault (full).
        """
        ...

    async def drop(self, instance_id: str) -> bool:
        """Take everything of the instance away; absent is fine."""
        ...
