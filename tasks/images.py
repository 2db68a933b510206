"""Images: into the front-end's store, and from there to the hosts that need them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from prefect import task

from control import hosts as host_rows
from control import images as image_rows
from control import operations
from control.hosts import HostRecord
from control.images import ImageRecord
from control.operations import Operation
from core.errors import Invalid
from core.states import OperationState, Verb
from drivers.hosts import Host
from drivers.storage.base import ImageFile
from drivers.storage.sources import WORK_FILES, fetch
from tasks.backups import as_source
from tasks.copies import ensure_on_host, keeper_of, reporter
from tasks.ledger import Seen, finish, load, run_step
from tasks.runtime import Runtime, runtime
from tasks.settle import each

IMAGE_DEADLINE_S = 3600.0
LEFT_FOR_S = 3600.0  # content that no image names; younger, it may be about to get one
CUT_OFF_FOR_S = 24 * 3600.0  # what an import was writing; younger, it may be gone on with


@task(name="import", task_run_name="import images", persist_result=False)
async def import_images(ids: Sequence[str]) -> list[str]:
    """Fetch, verify and convert the images of a batch into the front-end's store."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        image_id = op.subject_id
        image = await rt.store.read(lambda c: image_rows.get(c, image_id))
        fetched: list[ImageFile] = []

        def note(c: Any, done: int, total: int) -> None:
            operations.note_step(c, op, 1, {"bytes_done": done, "bytes_total": total})

        async def bring(_: Operation) -> Seen:
            spec = image.spec
            async with as_source(rt, image.source, op.id) as source:
                fetched.append(await fetch(
                    source, rt.settings.paths.images_dir, sha256=spec.get("sha256"), fmt=spec.get("format", "auto"),
                    kind=image.kind, progress=reporter(rt, note),
                ))  # fmt: skip
            return Seen(
                True, {"sha256": fetched[-1].sha256, "bytes": fetched[-1].size_bytes, "format": fetched[-1].format}
            )

        def record(c: Any, _: Seen) -> None:
            file = fetched[-1]
            image_rows.record_imported(
                c,
                op,
                image_id,
                sha256=file.sha256,
                format=file.format,
                size_bytes=file.size_bytes,
                virtual_size_mib=file.virtual_size_mib,
            )
            finish(c, op, OperationState.DONE)

        return await run_step(op, 1, "fetch", "", bring, deadline_s=IMAGE_DEADLINE_S, also=record)

    return await each("", [o for o in await load(ids) if o.verb is Verb.IMPORT], work)


@task(name="stage", task_run_name="stage images to hosts", persist_result=False)
async def stage_to_hosts(ids: Sequence[str]) -> list[str]:
    """Copy images to the hosts asked for (all that could run them when none are named), in parallel."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        image_id = op.subject_id
        image = await rt.store.read(lambda c: image_rows.get(c, image_id))
        targets = await rt.store.read(lambda c: host_rows.targets(c, image.kind, op.parameters.get("hosts") or []))

        if not targets:
            return await run_step(op, 1, "copy", "", _no_target)

        async def to(index: int, record: HostRecord, datastore: tuple[str, str]) -> bool:
            async def bring(_: Operation) -> Seen:
                changed = await ensure_on_host(rt, await rt.host(record), record, *datastore, image)
                return Seen(changed, {"sha256": image.sha256})

            return await run_step(op, index, "copy", record.name, bring, deadline_s=IMAGE_DEADLINE_S)

        if not all(await asyncio.gather(*(to(i, r, d) for i, (r, d) in enumerate(targets, 1)))):
            return False
        await rt.store.write(lambda c: finish(c, op, OperationState.DONE))
        return True

    return await each("", [o for o in await load(ids) if o.verb is Verb.STAGE], work)


@task(name="remove", task_run_name="remove images", persist_result=False)
async def remove_images(ids: Sequence[str]) -> list[str]:
    """Take images away from every host that has a copy, then from the front-end's store."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        image_id = op.subject_id
        image = await rt.store.read(lambda c: image_rows.get(c, image_id))
        copies = await rt.store.read(lambda c: image_rows.copies_to_remove(c, image))
        done = True
        for index, (record, path) in enumerate(copies, 1):

            async def drop(_: Operation, record: HostRecord = record, path: str = path) -> Seen:
                return Seen(await _drop(await rt.host(record), path, image))

            def forget(c: Any, _: Seen, record: HostRecord = record) -> None:
                image_rows.forget_copy(c, image.sha256, record.id)

            done = await run_step(op, index, "remove-copy", record.name, drop, also=forget) and done
        if not done:
            return False

        async def unlink(_: Operation) -> Seen:
            shared = await rt.store.read(lambda c: image_rows.others_with(c, image))
            if image.sha256 and not shared:
                await asyncio.to_thread(_unlink, rt.settings.paths.images_dir, image.sha256)
            return Seen(True)

        def gone(c: Any, _: Seen) -> None:
            image_rows.mark_deleted(c, op, image_id)
            finish(c, op, OperationState.DONE)

        return await run_step(op, len(copies) + 1, "remove", "", unlink, also=gone)

    return await each("", [o for o in await load(ids) if o.verb is Verb.REMOVE], work)


async def sweep_store(rt: Runtime) -> int:
    """Take away content that no image names, and what imports left half-way long ago; return of how many images."""
    folder = rt.settings.paths.images_dir
    old = await asyncio.to_thread(_old_content, folder)
    await asyncio.to_thread(_unlink_old_parts, folder)
    going = await rt.store.read(lambda c: image_rows.unnamed(c, old))
    for sha256 in going:
        await asyncio.to_thread(_unlink, folder, sha256)
    return len(going)


def _old_content(folder: Path) -> set[str]:
    before = time.time() - LEFT_FOR_S
    return {f.stem for f in folder.glob("*.*") if len(f.stem) == 64 and f.stat().st_mtime < before}


def _unlink_old_parts(folder: Path) -> None:
    before = time.time() - CUT_OFF_FOR_S
    for file in (file for pattern in WORK_FILES for file in folder.glob(pattern)):
        with suppress(FileNotFoundError):  # it was just named, or another worker was here
            if file.stat().st_mtime < before:
                file.unlink()


def _unlink(folder: Path, sha256: str) -> None:
    for file in folder.glob(f"{sha256}.*"):
        file.unlink(missing_ok=True)


async def _no_target(op: Operation) -> Seen:
    raise Invalid(
        f"there is no enrolled host for image {op.subject_name}", op.subject, fix="enroll a host that runs its kind"
    )


async def _drop(host: Host, path: str, image: ImageRecord) -> bool:
    changed = await host.storage(path).delete_image(image.sha256)
    keeper = keeper_of(host, image.kind)
    if keeper is not None:
        changed = await keeper.delete_image(image.sha256) or changed
    return changed
