"""Contract of what holds an instance's files and can hand them on, file by file, with checksums."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from drivers.transport.base import Progress


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


@runtime_checkable
class TakesDirectly(Protocol):
    """A carrier that can have an instance's files copied where they lie, so that they do not pass through here."""

    async def take_from(self, source: Carrier, instance_id: str) -> int | None:
        """Take all of an instance from another carrier as `write` does; return bytes moved, None: not from that one."""
        ...


@asynccontextmanager
async def closing(content: AsyncIterator[bytes]) -> AsyncIterator[AsyncIterator[bytes]]:
    """End a stream when the context is left, and with it the command that it comes from."""
    try:
        yield content
    finally:
        if isinstance(content, AsyncGenerator):
            await content.aclose()


async def carry(source: Carrier, target: Carrier, instance_id: str, progress: Progress | None = None) -> int:
    """Copy all files of an instance, one after the other; return the bytes that were moved, not those there already.

    Run again after it was killed, it goes on with the file that is missing. The source keeps its own.
    Raise as the carriers do; NotFound of the target: stage the image first.
    """
    if isinstance(target, TakesDirectly) and (moved := await target.take_from(source, instance_id)) is not None:
        if progress is not None:
            progress(moved, moved)
        return moved
    parcels = await source.parcels(instance_id)
    total, done, moved = sum(parcel.size_bytes for parcel in parcels), 0, 0
    for parcel in parcels:
        async with closing(source.read(instance_id, parcel)) as content:
            passed = _told(content, done, total, progress)
            async with closing(passed):
                if await target.write(instance_id, parcel, passed):
                    moved += parcel.size_bytes
        done += parcel.size_bytes
        if progress is not None:
            progress(done, total)
    return moved


async def _told(
    content: AsyncIterator[bytes], done: int, total: int, progress: Progress | None
) -> AsyncGenerator[bytes, None]:
    async for chunk in content:
        done += len(chunk)
        if progress is not None:
            progress(done, total)
        yield chunk
