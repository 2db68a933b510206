"""An instance's disks on their way to another kind of host: converted on the front-end, compared, then carried on.

vSphere's datastores take disks as the bytes that a guest sees (raw), those of Linux hosts qcow2. The cloud-init seed is
not carried: the target makes its own from the record. Content streams through files in a work folder that are as sparse
as the disk is; qemu-img converts outside of this process, so memory does not grow with a disk.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from core.errors import HostFault, Invalid, NotFound, Unsupported
from drivers.carrier import Carrier, Parcel, closing
from drivers.storage.recognise import run_tool

_CHUNK_BYTES = 2**20
_BLOCK = bytes(2**16)  # holes are found in such pieces
_MEMORY = "memory.save"
_WORK, _LEFT_FOR_S = ".converted", 24 * 3600.0


@dataclass(frozen=True)
class Shape:
    """What an instance's files look like on hosts of a kind."""

    disk: str
    seed: str


SHAPES = {"kvm": Shape("qcow2", "seed.iso"), "esxi": Shape("raw", "seed.guestinfo")}


def differs(parcels: Sequence[Parcel], kind: str) -> bool:
    """Say whether files come from another kind of host than the one they are to go to. Pure."""
    others = {shape.seed for name, shape in SHAPES.items() if name != kind}
    return kind in SHAPES and any(parcel.name in others for parcel in parcels)


@asynccontextmanager
async def fitting(
    source: Carrier, instance_id: str, kind: str, images: Path, work: Path, *, of: str = ""
) -> AsyncIterator[Carrier]:
    """Yield what hands on an instance's files as hosts of a kind take them: the source itself where they are so.

    images: the front-end's store, where disks have their images; work: where to convert, cleared at the end.
    of: the kind of host that the source is on; else its parcels are looked at, which may have it read them all.
    """
    foreign = of != kind if of else kind in SHAPES and differs(await source.parcels(instance_id), kind)
    if kind not in SHAPES or (of and of not in SHAPES) or not foreign:
        yield source
        return
    folder = work / f".{instance_id}{_WORK}"
    await asyncio.to_thread(_clear_left, work, folder)
    await asyncio.to_thread(folder.mkdir, parents=True)
    try:
        yield Reshaped(source, SHAPES[kind].disk, images, folder)
    finally:
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class Reshaped(Carrier):
    """Another carrier's disks in another format. Only handed on, never taken in."""

    def __init__(self, source: Carrier, format: str, images: Path, folder: Path) -> None:
        self._source = source
        self._format = format
        self._images = images
        self._folder = folder
        self._ready: dict[str, Parcel] = {}

    async def parcels(self, instance_id: str) -> list[Parcel]:
        """Convert all disks; return them. Raise Unsupported (saved memory), Invalid, HostFault (the front-end is full).

        A disk is handed on only when qemu-img finds it to be the same, byte for byte, as what it was made from.
        """
        found = await self._source.parcels(instance_id)
        if any(parcel.name == _MEMORY for parcel in found):
            raise Unsupported(
                "saved memory goes on only on the kind of host that it comes from", f"instance/{instance_id}",
                fix="start it there",
            )  # fmt: skip
        for parcel in found:
            name, _, format = parcel.name.rpartition(".")
            if format in ("qcow2", "raw") and f"{name}.{self._format}" not in self._ready:
                self._ready[f"{name}.{self._format}"] = await self._convert(instance_id, parcel, name, format)
        return [self._ready[name] for name in sorted(self._ready)]

    async def _convert(self, instance_id: str, parcel: Parcel, name: str, format: str) -> Parcel:
        came, made = self._folder / f"came-{name}", self._folder / f"{name}.{self._format}"
        try:
            await self._fetch(instance_id, parcel, came)
            if parcel.base_sha256:
                await self._rest_on(parcel, came, instance_id)
            await _qemu_img(instance_id, "convert", "-f", format, "-O", self._format, str(came), str(made))
            if self._format == "raw":
                await asyncio.to_thread(_fill_up, made)
            await _qemu_img(instance_id, "compare", "-f", format, "-F", self._format, str(came), str(made))
            await asyncio.to_thread(came.unlink)
            size, digest = await asyncio.to_thread(_sized, made)
        except OSError as error:
            raise _full(self._folder, error, instance_id) from error
        return Parcel(made.name, size, digest)

    async def _fetch(self, instance_id: str, parcel: Parcel, came: Path) -> None:
        """Write what the source has to a file with holes where it is empty. Raise Invalid (it came otherwise)."""
        digest, done = hashlib.sha256(), 0
        with await asyncio.to_thread(came.open, "wb") as file:
            async with closing(self._source.read(instance_id, parcel)) as content:
                async for chunk in content:
                    digest.update(chunk)
                    done += len(chunk)
                    await asyncio.to_thread(_write_sparse, file, chunk)
            await asyncio.to_thread(file.truncate, done)
        if (done, digest.hexdigest()) != (parcel.size_bytes, parcel.sha256):
            raise Invalid(
                f"{parcel.name} came with other content", f"instance/{instance_id}",
                {"wanted": parcel.sha256, "found": digest.hexdigest()}, "it changed or was cut short: try again",
            )  # fmt: skip

    async def _rest_on(self, parcel: Parcel, came: Path, instance_id: str) -> None:
        """Let an overlay find its image in the front-end's store. Raise NotFound."""
        base = self._images / f"{parcel.base_sha256}.{parcel.base_format}"
        if not await asyncio.to_thread(base.exists):
            raise NotFound(
                f"{parcel.name} goes on from image {parcel.base_sha256[:12]}, which the front-end has no more",
                f"instance/{instance_id}", {"sha256": parcel.base_sha256}, "import that image again",
            )  # fmt: skip
        await _qemu_img(
            instance_id, "rebase", "-u", "-f", "qcow2", "-b", str(base), "-F", parcel.base_format, str(came)
        )

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Yield a disk that `parcels` has made. Raise NotFound."""
        if self._ready.get(parcel.name) != parcel:
            raise NotFound(f"{parcel.name} was not made ready", f"instance/{instance_id}")
        with await asyncio.to_thread((self._folder / parcel.name).open, "rb") as file:
            while chunk := await asyncio.to_thread(file.read, _CHUNK_BYTES):
                yield chunk

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        """Raise Unsupported."""
        raise Unsupported("files are converted on their way to a host only", f"instance/{instance_id}")

    async def drop(self, instance_id: str) -> bool:
        """Nothing of it stays."""
        return False


def _clear_left(work: Path, folder: Path) -> None:
    """Take away what workers that were killed have left: of this instance, and of others a day ago."""
    before = time.time() - _LEFT_FOR_S
    for left in work.glob(f".*{_WORK}"):
        if left == folder or left.stat().st_mtime < before:
            shutil.rmtree(left, ignore_errors=True)


def _write_sparse(file: BinaryIO, chunk: bytes) -> None:
    for at in range(0, len(chunk), len(_BLOCK)):
        piece = chunk[at : at + len(_BLOCK)]
        if piece == _BLOCK:
            file.seek(len(piece), 1)
        else:
            file.write(piece)


def _fill_up(raw: Path) -> None:
    """Make a disk whole MiB long, as volumes are: vSphere counts in KiB, others in sectors."""
    size = raw.stat().st_size
    if size % _CHUNK_BYTES:
        with raw.open("r+b") as file:
            file.truncate(size + _CHUNK_BYTES - size % _CHUNK_BYTES)


def _sized(file: Path) -> tuple[int, str]:
    with file.open("rb") as content:
        return file.stat().st_size, hashlib.file_digest(content, "sha256").hexdigest()


async def _qemu_img(instance_id: str, *words: str) -> None:
    code, out, err = await run_tool(["qemu-img", words[0], "-q", *words[1:]])
    if code == 0:
        return
    said = (err.strip() or out.strip())[-300:]
    if "No space left" in said:
        raise HostFault(
            "the front-end is full while a disk is converted", f"instance/{instance_id}", {"seen": said},
            "make room in its data folder",
        )  # fmt: skip
    raise Invalid(f"a disk cannot be converted: qemu-img {words[0]}: {said}", f"instance/{instance_id}")


def _full(folder: Path, error: OSError, instance_id: str) -> HostFault:
    is_full = error.errno == errno.ENOSPC
    return HostFault(
        f"{folder.parent} on the front-end {'is full' if is_full else 'cannot be written'}: {error}",
        f"instance/{instance_id}", {"errno": error.errno}, "make room there" if is_full else "check the folder",
    )  # fmt: skip
