"""Bring an image from where it is into the front-end's store: download or copy, verify, recognise, convert."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit
from weakref import WeakValueDictionary

import httpx

from core.errors import Denied, HostFault, Invalid, NotFound, RackflowError, Unreachable
from drivers.storage import appliance
from drivers.storage.base import ImageFile
from drivers.storage.recognise import Found, convert, recognise
from drivers.transport.base import Progress

_CHUNK_BYTES = 2**20
_TIMEOUTS = httpx.Timeout(30.0, connect=10.0)
WORK_FILES = (".*.part", ".*.qcow2")  # in the store, while it is brought and converted
_FETCHING: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()  # one at a time writes a .part
_STATUS: dict[int, type[RackflowError]] = {401: Denied, 403: Denied, 404: NotFound, 410: NotFound}


async def fetch(
    source: str, store_dir: Path, *, sha256: str | None, fmt: str, kind: str, progress: Progress | None
) -> ImageFile:
    """Return the image as it stands in the store, as STORE/SHA256.FORMAT.

    sha256: of the source, before any conversion; fmt: auto or what it must be; kind: vm or container. A download that
    was cut goes on where it ended when asked again. Raise Invalid (checksum, cut short, no image), NotFound, Denied,
    Unreachable, HostFault (disk full).
    """
    key = hashlib.sha256(source.encode()).hexdigest()[:24]
    work = store_dir / f".{key}.part"
    async with _FETCHING.setdefault(str(work), asyncio.Lock()):
        with _disk_errors(source, store_dir):
            known = await asyncio.to_thread(_in_store, store_dir, sha256)
            if known is not None:
                found = await recognise(known, fmt=fmt, kind=kind, source=source)
                return await asyncio.to_thread(_described, known, str(sha256).lower(), found)
            await _bring(source, work, progress)
            digest = await asyncio.to_thread(_sha256, work)
            if sha256 and digest != sha256.lower():
                raise await _thrown_away(work, Invalid(
                    f"{source} has another checksum than asked for", f"image/{source}",
                    {"wanted": sha256, "found": digest}, "correct sha256, or find out who changed the file",
                ))  # fmt: skip
            return await _into_store(work, store_dir, digest, fmt, kind, source)


def _in_store(store: Path, sha256: str | None) -> Path | None:
    """Return the file with that content, if the store has it: what bears a checksum as its name was verified."""
    store.mkdir(parents=True, exist_ok=True)
    return next(iter(store.glob(f"{sha256.lower()}.*")), None) if sha256 else None


async def _bring(source: str, work: Path, progress: Progress | None) -> None:
    if source.startswith(("http://", "https://")):
        await _download(source, work, progress)
    else:
        await asyncio.to_thread(_copy, _local(source), work, source, progress)


async def _thrown_away(work: Path, error: Invalid) -> Invalid:
    await asyncio.to_thread(work.unlink)
    return error


async def _into_store(work: Path, store: Path, digest: str, fmt: str, kind: str, source: str) -> ImageFile:
    try:
        if kind != "container" and await _took_disk(work, fmt, source):
            fmt, digest = "auto", await asyncio.to_thread(_sha256, work)
        found = await recognise(work, fmt=fmt, kind=kind, source=source)
        if found.needs_conversion:
            out = work.with_suffix(".qcow2")
            await convert(work, found.format, out)
            await asyncio.to_thread(out.replace, work)
            found = Found("qcow2", found.virtual_size_mib)
            digest = await asyncio.to_thread(_sha256, work)
    except Invalid as error:
        raise await _thrown_away(work, error) from error
    target = store / f"{digest}.{found.format}"
    await asyncio.to_thread(_keep, work, target)
    return await asyncio.to_thread(_described, target, digest, found)


async def _took_disk(work: Path, fmt: str, source: str) -> bool:
    """Put the disk of a virtual appliance in the place of what was brought, if that is one. Raise Invalid."""
    disk = work.with_suffix(".disk.part")
    try:
        if await asyncio.to_thread(appliance.is_ova, work):
            await asyncio.to_thread(appliance.unpack, work, disk, source)
        elif await asyncio.to_thread(appliance.is_ovf, work):
            await appliance.beside(work, source, disk, lambda one, target: _bring(one, target, None))
        elif fmt == "ova":
            raise Invalid(f"{source} cannot be used: it is no OVA or OVF", f"image/{source}", {}, "name another file")
        else:
            return False
        if fmt not in ("auto", "", "ova"):
            raise Invalid(
                f"{source} cannot be used: it is ova, not {fmt}", f"image/{source}", {"found": "ova", "wanted": fmt},
                "leave its format out",
            )  # fmt: skip
        await asyncio.to_thread(disk.replace, work)
        return True
    finally:
        await asyncio.to_thread(disk.unlink, missing_ok=True)


def _keep(work: Path, target: Path) -> None:
    work.chmod(0o644)
    with work.open("rb") as file:
        os.fsync(file.fileno())
    work.replace(target)


def _described(path: Path, digest: str, found: Found) -> ImageFile:
    return ImageFile(digest, found.format, path.stat().st_size, path, found.virtual_size_mib)


# -- from the front-end's own disk


def _local(source: str) -> Path:
    return Path(unquote(urlsplit(source).path)) if source.startswith("file://") else Path(source)


def _copy(path: Path, work: Path, source: str, progress: Progress | None) -> None:
    if not path.is_file():
        raise NotFound(
            f"there is no file {path} on the front-end" if not path.is_dir() else f"{path} is a folder, not a file",
            f"image/{source}", {"path": str(path)},
            "name a file of the machine that rackflow runs on, or a URL",
        )
    size, done = path.stat().st_size, 0
    with path.open("rb") as reader, work.open("wb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            writer.write(chunk)
            done += len(chunk)
            if progress:
                progress(done, size)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# -- from the network


async def _download(url: str, work: Path, progress: Progress | None) -> None:
    """Write what the URL gives to a file, from where the file ends. Raise NotFound, Denied, Invalid, Unreachable."""
    mark = work.with_suffix(".etag")  # of the content that the file is a part of
    start, condition = await asyncio.to_thread(_resume_at, work, mark)
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers |= {"Range": f"bytes={start}-", "If-Range": condition}
    async with _answer(url, headers) as answer:
        if answer.status_code == 416:  # nothing is left to be sent
            return
        _note(mark, answer)
        await _receive(answer, work, start if answer.status_code == 206 else 0, progress)
    await asyncio.to_thread(mark.unlink, missing_ok=True)


def _resume_at(work: Path, mark: Path) -> tuple[int, str]:
    """Return how many bytes are there, and the condition under which they are still good."""
    return (work.stat().st_size, mark.read_text()) if work.exists() and mark.exists() else (0, "")


def _note(mark: Path, answer: httpx.Response) -> None:
    """Keep what proves later that the content is still the same; a weak ETag proves nothing (RFC 9110, 13.1.5)."""
    tag = answer.headers.get("etag", "")
    known = tag if tag and not tag.startswith("W/") else answer.headers.get("last-modified", "")
    if known:
        mark.write_text(known)
    else:
        mark.unlink(missing_ok=True)


async def _receive(answer: httpx.Response, work: Path, start: int, progress: Progress | None) -> None:
    length = int(answer.headers.get("content-length", 0))
    total, done = start + length, start
    free = shutil.disk_usage(work.parent).free
    if length > free:
        raise OSError(errno.ENOSPC, f"{free} bytes free, {length} needed")
    with await asyncio.to_thread(work.open, "ab" if start else "wb") as writer:
        async for chunk in answer.aiter_raw(_CHUNK_BYTES):
            await asyncio.to_thread(writer.write, chunk)
            done += len(chunk)
            if progress:
                progress(done, max(total, done))


@asynccontextmanager
async def _answer(url: str, headers: dict[str, str]) -> AsyncIterator[httpx.Response]:
    """Open a URL; httpx's errors become ours, also those in the middle of the body."""
    try:
        async with (
            httpx.AsyncClient(follow_redirects=True, timeout=_TIMEOUTS) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code >= 400 and answer.status_code != 416:
                raise _refused(url, answer.status_code)
            yield answer
    except httpx.HTTPError as error:
        seen = str(error) or type(error).__name__
        raise Unreachable(
            f"{url} could not be read: {seen}", f"image/{url}", {"seen": seen},
            "try again: the download goes on where it ended",
        ) from error
    except (httpx.InvalidURL, ValueError) as error:
        raise Invalid(f"{url} is no URL: {error}", f"image/{url}") from error


def _refused(url: str, status: int) -> RackflowError:
    kind = _STATUS.get(status, Unreachable if status >= 500 or status == 429 else Invalid)
    return kind(f"{url} answered {status}", f"image/{url}", {"status": status}, "check the URL in a browser")


@contextmanager
def _disk_errors(source: str, store: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        full = error.errno == errno.ENOSPC
        raise HostFault(
            f"the image store {store} {'is full' if full else 'cannot be written'}: {error}", f"image/{source}",
            {"errno": error.errno, "path": str(store)}, "make room there" if full else "check the folder",
        ) from error


