"""The front-end's own store of files: parked instances and backups.

    ROOT/ID/NAME           content; ID is an instance's or a backup's
    ROOT/ID/NAME.json      its checksum, written last: what has none does not count
    ROOT/ID/.NAME.MARK.part, ROOT/.ID.going

Content is hashed while it is written, and reaches the disk before it gets its name. File work is done in threads, a
chunk at a time, so that a call can be cancelled between two.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, ParamSpec, TypeVar

from core.errors import Busy, HostFault, Invalid, NotFound
from drivers.carrier import Carrier, Parcel

_CHUNK_BYTES = 2**20
_SPARE_BYTES = 64 * 2**20
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")

P = ParamSpec("P")
T = TypeVar("T")


class Vault(Carrier):
    """A folder of the front-end, made when first written to; only its owner may look into it (seeds hold secrets)."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def path(self, folder_id: str, name: str) -> Path:
        """Return where a file lies, or would lie. Raise Invalid: both become parts of a path."""
        if not _WORD.fullmatch(name) or name.endswith(".json"):
            raise Invalid(f"{name!r} is not the name of a file in the vault", f"instance/{folder_id}")
        return self._folder(folder_id) / name

    def _folder(self, folder_id: str) -> Path:
        if not _WORD.fullmatch(folder_id):
            raise Invalid(f"{folder_id!r} is not the id of an instance or a backup", f"instance/{folder_id}")
        return self._root / folder_id

    async def folders(self) -> list[str]:
        """Return the ids of all that something is kept of."""
        return await self._disk(_folders, self._root)

    def put_aside(self, folder_id: str) -> bool:
        """Rename what is kept of one, at once, so that it does not count; `clear_aside` deletes it. False: not now."""
        folder = self._folder(folder_id)
        going = _going(folder)
        if going.exists() or not folder.exists():
            return False
        folder.rename(going)
        _sync(self._root)
        return True

    async def clear_aside(self) -> None:
        """Delete what was put aside, also by a call that was killed in the middle of it."""
        await self._disk(_clear_aside, self._root)

    async def parcels(self, instance_id: str) -> list[Parcel]:
        """Return what is kept, with the checksums that it came with; `verify` looks whether it still has them."""
        return await self._disk(_kept, self._folder(instance_id))

    async def verify(self, folder_id: str) -> list[str]:
        """Read everything; return the names of files that are gone or not as they came. [] = all is well."""
        damaged = []
        for parcel in await self.parcels(folder_id):
            digest = hashlib.sha256()
            try:
                async for chunk in self.read(folder_id, parcel):
                    await asyncio.to_thread(digest.update, chunk)
            except NotFound:
                digest = hashlib.sha256(b"gone")
            if digest.hexdigest() != parcel.sha256:
                damaged.append(parcel.name)
        return damaged

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        """Yield a file's content, 1 MiB at a time. Raise NotFound, HostFault."""
        path = self.path(instance_id, parcel.name)
        try:
            file = await self._disk(_opened, path)
        except FileNotFoundError as error:
            raise NotFound(
                f"there is no {parcel.name} of {instance_id} in the vault", f"instance/{instance_id}",
                {"path": str(path)},
            ) from error
        try:
            while chunk := await self._disk(file.read, _CHUNK_BYTES):
                yield chunk
        finally:
            await asyncio.to_thread(file.close)

    async def write(self, instance_id: str, parcel: Parcel, content: AsyncIterator[bytes]) -> bool:
        """Take a file in. Raise Invalid (checksum, name), HostFault (full), Busy (another writes it too)."""
        target = self.path(instance_id, parcel.name)
        if await self._disk(_is_there, target, parcel):
            return False
        part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
        incoming = await self._disk(_begin, self._root, target, part, parcel)
        try:
            await self._pour(content, incoming, parcel)
            self._require_same(instance_id, parcel, incoming)
            await self._disk(_settle, part, target, parcel)
        except FileNotFoundError as error:
            raise Busy(f"another writes {parcel.name} of {instance_id} as well", f"instance/{instance_id}") from error
        finally:
            await asyncio.to_thread(incoming.discard)
        return True

    async def take(self, folder_id: str, name: str, content: AsyncIterator[bytes], sha256: str, size: int) -> bool:
        """Take a backup's file in, size in bytes. Raise as `write`."""
        return await self.write(folder_id, Parcel(name, size, sha256), content)

    async def _pour(self, content: AsyncIterator[bytes], incoming: _Incoming, parcel: Parcel) -> None:
        waiting = bytearray()
        async for data in content:
            waiting += data
            if len(waiting) >= _CHUNK_BYTES:
                await self._disk(incoming.add, bytes(waiting))
                waiting.clear()
            if incoming.size_bytes > parcel.size_bytes:  # it would only fill the disk
                return
        await self._disk(incoming.finish, bytes(waiting))

    def _require_same(self, folder_id: str, parcel: Parcel, incoming: _Incoming) -> None:
        found = incoming.digest.hexdigest()
        if (found, incoming.size_bytes) != (parcel.sha256, parcel.size_bytes):
            raise Invalid(
                f"{parcel.name} of {folder_id} came to the vault with other content and was thrown away",
                f"instance/{folder_id}",
                {"wanted": parcel.sha256, "found": found, "bytes": incoming.size_bytes, "of": parcel.size_bytes},
                "it changed or was cut short on its way: carry it again",
            )

    async def drop(self, instance_id: str) -> bool:
        """Take everything of an instance or a backup away; absent is fine."""
        return await self._disk(_remove, self._folder(instance_id))

    async def remove(self, folder_id: str) -> bool:
        """Do as `drop`: for backups."""
        return await self.drop(folder_id)

    async def _disk(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        with _disk_errors(self._root):
            return await asyncio.to_thread(call, *args, **kwargs)


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise HostFault(
            f"the vault {root} on the front-end {'is full' if full else 'cannot be used'}: {error}", "",
            {"errno": error.errno, "path": str(root)}, "make room there" if full else "check the folder",
        ) from error


# -- what is done in threads


class _Incoming:
    """A file that is being written, hashed on the way."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("xb")
        self.digest = hashlib.sha256()
        self.size_bytes = 0

    def add(self, data: bytes) -> None:
        """Write the next piece."""
        self._file.write(data)
        self.digest.update(data)
        self.size_bytes += len(data)

    def finish(self, data: bytes) -> None:
        """Write the last piece, and see it on the disk."""
        self.add(data)
        self._file.flush()
        os.fsync(self._file.fileno())

    def discard(self) -> None:
        """Close it, and take it away unless it has got its name."""
        try:
            self._file.close()
        except OSError:  # what could not be written is not wanted any more
            pass
        finally:
            self._path.unlink(missing_ok=True)


def _begin(root: Path, target: Path, part: Path, parcel: Parcel) -> _Incoming:
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.parent.mkdir(mode=0o700, exist_ok=True)
    for left in target.parent.glob(f".{target.name}.*.part"):  # by one that was killed
        left.unlink(missing_ok=True)
    free = shutil.disk_usage(root).free
    if parcel.size_bytes + _SPARE_BYTES > free:
        raise OSError(errno.ENOSPC, f"{free} bytes free, {parcel.size_bytes + _SPARE_BYTES} needed")
    return _Incoming(part)


def _settle(part: Path, target: Path, parcel: Parcel) -> None:
    note = _note(target)
    note.unlink(missing_ok=True)  # of other content under that name: it would vouch for this one
    part.replace(target)
    fresh = part.with_suffix(".json.part")
    with fresh.open("w") as file:
        json.dump(asdict(parcel), file)
        file.flush()
        os.fsync(file.fileno())
    _sync(target.parent)
    fresh.replace(note)
    _sync(target.parent)
    _sync(target.parent.parent)


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _is_there(target: Path, parcel: Parcel) -> bool:
    if parcel not in _kept(target.parent) or not target.is_file() or target.stat().st_size != parcel.size_bytes:
        return False
    _sync(target.parent)  # who brought it may have been killed before its name was on the disk
    _sync(target.parent.parent)
    return True


def _kept(folder: Path) -> list[Parcel]:
    return [Parcel(**json.loads(note.read_text())) for note in sorted(folder.glob("*.json"))]


def _folders(root: Path) -> list[str]:
    return sorted(path.name for path in root.iterdir() if path.name[0] != ".") if root.is_dir() else []


def _opened(path: Path) -> BinaryIO:
    return path.open("rb")


def _remove(folder: Path) -> bool:
    """Rename it first, so that it is never there in part."""
    going = _going(folder)
    left = going.exists()
    if left:
        shutil.rmtree(going, onerror=_unless_gone)
    if not folder.exists():
        return left
    folder.rename(going)
    _sync(folder.parent)
    shutil.rmtree(going, onerror=_unless_gone)
    return True


def _going(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.going")


def _clear_aside(root: Path) -> None:
    for going in root.glob(".*.going"):
        shutil.rmtree(going, onerror=_unless_gone)


def _unless_gone(_call: object, _path: str, seen: tuple[type[BaseException], BaseException, object]) -> None:
    """Raise what rmtree met, unless the thread of a call that was cancelled has been there first."""
    if not isinstance(seen[1], FileNotFoundError):
        raise seen[1]
