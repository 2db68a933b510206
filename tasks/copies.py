"""Bring one image to one host, once, whoever asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from control import images as image_rows
from control.hosts import HostRecord
from control.images import ImageRecord
from core.states import CopyState, InstanceKind
from drivers.hosts import Host
from drivers.hypervisor.base import KeepsImages
from drivers.storage.base import ImageFile
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
        if image.sha256 in there:
            return False
        report = _reporter(rt, image.sha256, record.id, datastore_id)
        await storage.ensure_image(local_file(rt, image), progress=report)
        if keeper:  # the hypervisor keeps its own copy, so the datastore's would be a second one
            await keeper.import_image(storage.image_path(image.sha256, image.format), image.sha256, name=image.name)
            await storage.delete_image(image.sha256)
        await rt.store.write(
            lambda c: image_rows.record_copy(
                c, image.sha256, record.id, datastore_id, CopyState.READY, image.size_bytes
            )
        )
        return True


def _reporter(rt: Runtime, sha256: str, host_id: str, datastore_id: str) -> Callable[[int, int], None]:
    """Return a progress callback that writes to the record at most once a second."""
    last = 0.0
    loop = asyncio.get_running_loop()
    pending: set[Any] = set()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last < REPORT_EVERY_S or done >= total:
            return
        last = time.monotonic()

        def write() -> None:
            job = loop.create_task(rt.store.write(
                lambda c: image_rows.record_copy(c, sha256, host_id, datastore_id, CopyState.COPYING, done)
            ))  # fmt: skip
            pending.add(job)
            job.add_done_callback(pending.discard)

        loop.call_soon_threadsafe(write)

    return report
