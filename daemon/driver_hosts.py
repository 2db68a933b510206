"""Which host a driver is tried on: one of the record, a machine that is not enrolled, or a simulated one."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from control import hosts, images, instances_on
from control.hosts import HostRecord
from control.store import Store
from core.errors import Conflict, CredentialRejected, Invalid
from core.settings import Settings
from core.states import HostState
from drivers.conformance.on_host import Where
from drivers.identity import show
from drivers.storage.base import ImageFile
from drivers.transport.base import Endpoint
from tasks.runtime import endpoint_of

FAKE = "fake"
SMALL_BYTES = 80_000  # of content in the image that datastores are tried with
QUIET = (HostState.DISABLED, HostState.MAINTENANCE)


async def where(asked: Mapping[str, Any], settings: Settings, folder: Path) -> Where:
    """Return what the kit is to use. folder: for an image that it makes.

    Raise NotFound (host, image), Invalid, Conflict (the host is in use), CredentialRejected (a host not enrolled).
    """
    kind = asked["name"]
    if kind != FAKE and not asked["host"]:
        raise Invalid(f"which host is driver {kind} to be tried on?", fix="name one with --host")
    ends = [await _endpoint(asked, name, settings) for name in (asked["host"], asked["other"]) if name]
    if kind == FAKE:
        ends = [Endpoint(name, "192.0.2.1") for name in ("conformance-1", "conformance-2")]
    return Where(
        kind, ends[0], settings.drivers, datastore=asked["datastore"], bridge=_bridge(asked),
        image=await _image(asked["image"], settings) if asked["image"] else None,
        store_image=await asyncio.to_thread(small_image, folder), other=ends[1] if len(ends) > 1 else None,
    )  # fmt: skip


def _bridge(asked: Mapping[str, Any]) -> str:
    return str(asked["bridge"] or ("br0" if asked["name"] == FAKE else ""))


async def _endpoint(asked: Mapping[str, Any], name: str, settings: Settings) -> Endpoint:
    """Return how to reach a host, by its name in the record or, with a key file, by its address."""
    if asked["key"]:
        return await _stranger(name, asked["name"], Path(asked["key"]), asked["fingerprints"])
    record, held = await _look(settings, lambda c: _found(c, name))
    if record.driver != asked["name"]:
        message = f"{name} is a host of driver {record.driver or 'none yet'}, not {asked['name']}"
        raise Invalid(message, f"host/{name}", fix="rackflow host list shows them")
    if held and record.state not in QUIET and not asked["in_use"]:
        message = f"{name} holds {len(held)} instances, such as {held[0]}: the kit loads a host, and cuts calls off"
        raise Conflict(message, f"host/{name}", fix=f"rackflow host disable {name}, another host, or --in-use")
    return endpoint_of(record, settings)


def _found(c: Any, name: str) -> tuple[HostRecord, list[str]]:
    record = hosts.get(c, name)
    return record, list(instances_on.names_on(c, record.id))


async def _stranger(name: str, kind: str, key: Path, known: Sequence[str]) -> Endpoint:
    """Return [USER@]ADDRESS[:PORT] as an endpoint, its key pinned if it is one of those that were said."""
    user, _, place = name.rpartition("@")
    address, _, port = place.partition(":")
    if port and not port.isdigit():
        raise Invalid(f"{name} is no [USER@]ADDRESS[:PORT]", fix="name a host so, or one of the record without --key")
    seen = await show(kind, address, int(port or 22))
    if seen.fingerprint and seen.fingerprint not in known:
        raise CredentialRejected(
            f"the host key of {address} is {seen.fingerprint}, which is not known", f"host/{address}",
            fix=f"if that is the machine meant: --fingerprint {seen.fingerprint}",
        )  # fmt: skip
    return Endpoint(address, address, int(port or 22), user or "root", key, seen.public)


async def _look(settings: Settings, look: Any) -> Any:
    store = Store(settings.database_url)
    try:
        return await store.read(look)
    finally:
        await store.close()


async def _image(name: str, settings: Settings) -> ImageFile:
    """Return a file on this machine, or an image of the record. Raise NotFound."""
    path = Path(name)
    if await asyncio.to_thread(path.is_file):
        return await asyncio.to_thread(_file, path)
    found = await _look(settings, lambda c: images.get(c, name))
    local = settings.paths.images_dir / f"{found.sha256}.{found.format}"
    return ImageFile(found.sha256, found.format, found.size_bytes, local, found.virtual_size_mib)


def _file(path: Path) -> ImageFile:
    content = path.read_bytes()
    format = "qcow2" if content[:4] == b"QFI\xfb" else "tar"
    return ImageFile(hashlib.sha256(content).hexdigest(), format, len(content), path)


def small_image(folder: Path) -> ImageFile | None:
    """Make a small qcow2 image with something in it; None where there is no qemu-img."""
    tool = shutil.which("qemu-img")
    if tool is None:
        return None
    raw, path = folder / "raw", folder / "small.qcow2"
    raw.write_bytes(b"content" * (SMALL_BYTES // 7) + bytes(2**23))
    subprocess.run([tool, "convert", "-O", "qcow2", raw, path], check=True)
    raw.unlink()
    return _file(path)
