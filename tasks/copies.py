"""Bring one image to one host, once, whoever asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from control import datastores
from control import images as image_rows
from control.hosts import HostRecord
from control.images import ImageRecord
from core.errors import RackflowError
from core.states import CopyState, InstanceKind
from drivers.hosts import Host
from drivers.hypervisor.powers import KeepsImages
from drivers.storage.base import ImageFile
from drivers.transport.base import Progress
from tasks.runtime import Runtime

REPORT_EVERY_S = 1.0


def local_file(rt: Runtime, image: ImageRecord) -> ImageFile:
    """Return where an image's content lies in the front-end's store."""
    path = rt.settings.paths.images_dir / f"{image.sha256}.{image.format}"
    return ImageFile(image.sha256, image.format, image.size_bytes, path, image.virtual_size_mib)


def keeper_of(host: Host, kind: str) -> KeepsImages | None:
    """Return the hypervisor if it keeps the images and root disks of this kind of instance itself, as LXD does."""
    if kind == InstanceKind.CONTAINER and isinstance(host.hypervisor, KeepsImages):
        return host.hypervisor
    return None


async def ensure_on_host(
    rt: Runtime, host: Host, record: HostRecord, datastore_id: str, datastore_path: str, image: ImageRecord
) -> bool:
    """Bring an image to a host unless it is there; return whether it was brought. One copy at a time per host."""
    async with rt.copying(record.name, image.sha256):
        keeper = keeper_of(host, image.kind)
        storage = host.storage(datastore_path)
        there = [i.fingerprint for i in await keeper.images()] if keeper else await storage.images()
        changed = image.sha256 not in there
        if not changed and (record.name, image.sha256) in rt.copied:
            return False

        def copying(c: Any, done: int, _: int) -> None:
            image_rows.record_copy(c, image.sha256, record.id, datastore_id, CopyState.COPYING, done)

        if changed:  # written before, so that a copy that is cut off is known, and goes when its image goes
            await rt.store.write(lambda c: copying(c, 0, 0))
            async with rt.copying(await _place(rt, record, datastore_id), image.sha256):
                await storage.ensure_image(local_file(rt, image), progress=reporter(rt, copying))
        if changed and keeper:  # the hypervisor keeps its own copy, so the datastore's would be a second one
            await keeper.import_image(storage.image_path(image.sha256, image.format), image.sha256, name=image.name)
            await storage.delete_image(image.sha256)
        await rt.store.write(
            lambda c: image_rows.record_copy(
                c, image.sha256, record.id, datastore_id, CopyState.READY, image.size_bytes
            )
        )
        rt.copied.add((record.name, image.sha256))
        return changed


async def _place(rt: Runtime, record: HostRecord, datastore_id: str) -> str:
    """Return what a copy goes to: a datastore that hosts share is one place for all of them."""
    store = (await rt.store.read(lambda c: datastores.by_id(c, [datastore_id])))[datastore_id]
    return f"datastore/{store.id}" if store.shared else f"{record.name}/{store.id}"


def reporter(rt: Runtime, change: Callable[[Any, int, int], None]) -> Progress:
    """Return a progress callback, good in any thread, that runs change(c, done, total) at most once a second.

    What it cannot write is left out: progress is for people who watch.
    """
    last = time.monotonic()
    loop = asyncio.get_running_loop()
    pending: set[asyncio.Task[None]] = set()

    async def write(done: int, total: int) -> None:
        with suppress(RackflowError):
            await rt.store.write(lambda c: change(c, done, total))

    def begin(done: int, total: int) -> None:
        job = loop.create_task(write(done, total))
        pending.add(job)
        job.add_done_callback(pending.discard)

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_EVERY_S and done < total:
            last = time.monotonic()
            loop.call_soon_threadsafe(begin, done, total)

    return report
