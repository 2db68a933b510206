"""Virtual appliances as a source of images: an OVA (a tar), or an OVF descriptor with its files beside it.

All is checked before it counts: names, sizes, and the checksums of the manifest where there is one (a certificate
is not looked at). Signed or not, what comes out is one disk, which is recognised and converted as any other.
"""

from __future__ import annotations

import asyncio
import hashlib
import tarfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote, urljoin

from core.errors import Invalid, NotFound
from drivers.storage import ovf

_CHUNK_BYTES = 2**20
_MAX_MEMBERS = 1000
Bring = Callable[[str, Path], Awaitable[None]]  # source, target


def is_ova(path: Path) -> bool:
    """Say whether a file is a tar whose first member is a descriptor, as the standard has it."""
    with path.open("rb") as file:
        if file.read(512)[257:262] != b"ustar":
            return False
    try:
        with tarfile.open(path, "r:") as tar:  # reads one header, and what pax puts before it
            first = tar.next()
    except tarfile.TarError:
        return False
    return first is not None and first.name.lower().endswith(".ovf")


def is_ovf(path: Path) -> bool:
    """Say whether a file may be a descriptor."""
    with path.open("rb") as file:
        head = file.read(4096)
    return head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") and b"Envelope" in head


def unpack(ova: Path, target: Path, source: str) -> None:
    """Write the disk of an OVA to a file. Raise Invalid (unsafe names, checksums, cut short, several disks)."""
    try:
        with tarfile.open(ova, "r:") as tar:
            members = _members(tar, source)
            descriptor = next(iter(members))
            text = _text(tar, members[descriptor], source)
            disk = ovf.disk_of(text, source)
            if disk.file not in members:
                raise _invalid(source, f"it has no file {disk.file}")
            wanted = _manifest(tar, members, source)
            seen = _copy(tar, members[disk.file], target, source)
    except tarfile.TarError as error:
        raise _invalid(source, f"it is cut short or damaged: {error}") from error
    require_size(disk, target, source)
    if wanted is not None:
        ovf.require_same(descriptor, digests(text), wanted, source)
        ovf.require_same(disk.file, seen, wanted, source)


def _members(tar: tarfile.TarFile, source: str) -> dict[str, tarfile.TarInfo]:
    """Return name -> member, in their order. Raise Invalid unless all are plain files with plain, unlike names."""
    found: dict[str, tarfile.TarInfo] = {}
    for member in tar:
        name = ovf.plain(member.name.removeprefix("./"), source)
        if not member.isreg() or member.issparse() or name in found:
            raise _invalid(source, f"{name[:80]!r} in it is no plain file, or is there twice")
        found[name] = member
        if len(found) > _MAX_MEMBERS:
            raise _invalid(source, f"it has more than {_MAX_MEMBERS} files")
    return found


def _opened(tar: tarfile.TarFile, member: tarfile.TarInfo, source: str) -> IO[bytes]:
    file = tar.extractfile(member)
    if file is None:
        raise _invalid(source, f"{member.name} in it is no plain file")
    return file


def _text(tar: tarfile.TarFile, member: tarfile.TarInfo, source: str) -> bytes:
    if member.size > ovf.MAX_TEXT_BYTES:
        raise _invalid(source, f"{member.name} of {member.size} bytes is too large to be a descriptor or a manifest")
    return _opened(tar, member, source).read()


def _manifest(
    tar: tarfile.TarFile, members: Mapping[str, tarfile.TarInfo], source: str
) -> dict[str, ovf.Digest] | None:
    name = next((one for one in members if one.lower().endswith(".mf")), None)
    return None if name is None else ovf.manifest(_text(tar, members[name], source), source)


def _copy(tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path, source: str) -> dict[str, str]:
    """Write a member to a file; return its digests by algorithm."""
    sums = {name: hashlib.new(name) for name in ovf.ALGORITHMS}
    with _opened(tar, member, source) as reader, target.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            for one in sums.values():
                one.update(chunk)
    return {name: one.hexdigest() for name, one in sums.items()}


async def beside(descriptor: Path, source: str, target: Path, bring: Bring) -> None:
    """Bring the disk of a descriptor from beside it. Raise Invalid (names, checksums, size), and what bring raises."""
    text = await asyncio.to_thread(_small, descriptor, source)
    disk = ovf.disk_of(text, source)
    listed = target.with_name(f"{target.name}.mf.part")
    try:
        await bring(_sibling(source, f"{_stem(source)}.mf"), listed)
        wanted = ovf.manifest(await asyncio.to_thread(_small, listed, source), source)
    except NotFound:
        wanted = None
    finally:
        await asyncio.to_thread(listed.unlink, missing_ok=True)
    await bring(_sibling(source, disk.file), target)
    await asyncio.to_thread(require_size, disk, target, source)
    if wanted is not None:
        ovf.require_same(_name(source), digests(text), wanted, source)
        ovf.require_same(disk.file, await asyncio.to_thread(digests_of, target), wanted, source)


def _small(file: Path, source: str) -> bytes:
    if file.stat().st_size > ovf.MAX_TEXT_BYTES:
        raise _invalid(source, "it, or its manifest, is too large to be a text")
    return file.read_bytes()


def require_size(disk: ovf.Disk, file: Path, source: str) -> None:
    """Raise Invalid when a disk is not as large as its descriptor says."""
    found = file.stat().st_size
    if disk.size_bytes is not None and disk.size_bytes != found:
        raise _invalid(source, f"{disk.file} has {found} bytes, and its descriptor says {disk.size_bytes}")


def digests(text: bytes) -> dict[str, str]:
    """Return algorithm -> digest of a text."""
    return {name: hashlib.new(name, text).hexdigest() for name in ovf.ALGORITHMS}


def digests_of(file: Path) -> dict[str, str]:
    """Return algorithm -> digest of a file."""
    found = {}
    for name in ovf.ALGORITHMS:
        with file.open("rb") as content:
            found[name] = hashlib.file_digest(content, name).hexdigest()
    return found


def _name(source: str) -> str:
    return source.partition("?")[0].rpartition("/")[2]


def _stem(source: str) -> str:
    return _name(source).rpartition(".")[0]


def _sibling(source: str, name: str) -> str:
    """Return the source of a file beside another: a path or a URL, as that one is."""
    if "://" in source:
        return urljoin(source, quote(name))
    return str(Path(source).with_name(name))


def _invalid(source: str, why: str) -> Invalid:
    return Invalid(f"{source} cannot be used: {why}", f"image/{source}", {}, "name another file")
