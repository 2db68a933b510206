"""Backups at the front-end: read and put together again, to see that they are sound; made an image of; deleted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from prefect import task

from control import backups as rows
from control import instances
from control.backups import BackupRecord
from control.operations import Operation
from core.errors import Conflict, Invalid
from core.states import InstanceKind, OperationState, Verb
from drivers.hypervisor.powers import BacksUp
from drivers.storage.chains import merge
from drivers.storage.recognise import recognise
from drivers.storage.vault import Vault
from tasks.ledger import Seen, finish, load, run_step
from tasks.runtime import Runtime, runtime
from tasks.settle import each

DEADLINE_S = 6 * 3600.0
SOURCE = "backup:"  # an image's source that is a backup: backup:ID


@task(name="test-backup", task_run_name="test backups", persist_result=False)
async def test_backups(ids: Sequence[str]) -> list[str]:
    """Read every file of backups and of what they go on from, and put their disks together. Raise nothing."""
    rt = runtime()

    async def work(op: Operation) -> bool:
        chain = await rt.store.read(lambda c: rows.chain(c, op.subject_id))

        async def check(_: Operation) -> Seen:
            return Seen(False, {"files": await _check(_store(rt), chain)})

        async def put_together(_: Operation) -> Seen:
            for file in chain[-1].files:
                if file["format"] == "qcow2":
                    async with merged(rt, chain, file["disk"], op.id) as disk:
                        await recognise(disk, fmt="qcow2", kind=InstanceKind.VM, source=chain[-1].name)
            return Seen(False, {"disks": [file["disk"] for file in chain[-1].files]})

        def sound(c: Any, _: Seen) -> None:
            rows.mark_verified(c, op.subject_id, None)
            finish(c, op, OperationState.DONE)

        return await run_step(op, 1, "check", "", check, deadline_s=DEADLINE_S) and await run_step(
            op, 2, "put-together", "", put_together, deadline_s=DEADLINE_S, also=sound
        )

    return await each("", [o for o in await load(ids) if o.verb is Verb.TEST_BACKUP], work)


@task(name="drop-backup", task_run_name="delete backups", persist_result=False)
async def drop_backups(ids: Sequence[str]) -> list[str]:
    """Take backups away, and the checkpoints that they left on their instances."""
    rt = runtime()
    # one after the other, newest first: what goes on from another goes before it
    ops = sorted((o for o in await load(ids) if o.verb is Verb.DROP_BACKUP), key=lambda o: o.subject_id, reverse=True)
    backups = await rt.store.read(lambda c: rows.by_ids(c, {o.subject_id for o in ops}))

    async def work(op: Operation) -> bool:
        one = backups[op.subject_id]

        async def forget_checkpoint(_: Operation) -> Seen:
            view = (await rt.store.read(lambda c: instances.deployables(c, [one.instance_id])))[one.instance_id]
            if view.host is None:
                return Seen(False)
            hypervisor = (await rt.host(view.host)).hypervisor
            if not isinstance(hypervisor, BacksUp):
                return Seen(False)
            return Seen(await hypervisor.drop_checkpoint(view.on_host, one.id))

        async def drop(_: Operation) -> Seen:
            return Seen(await _store(rt).remove(one.id))

        def gone(c: Any, _: Seen) -> None:
            rows.forget(c, [one.id])
            finish(c, op, OperationState.DONE)

        return await run_step(op, 1, "drop-checkpoint", "", forget_checkpoint) and await run_step(
            op, 2, "drop", "", drop, also=gone
        )

    return await each("", ops, work)


def _store(rt: Runtime) -> Vault:
    return Vault(rt.settings.paths.backups_dir)


async def _check(store: Vault, chain: Sequence[BackupRecord]) -> int:
    """Read all files of a chain; return how many. Raise Invalid naming those that are damaged."""
    damaged = [f"{one.name}/{name}" for one in chain for name in await store.verify(one.id)]
    for one in chain:
        there = {parcel.name for parcel in await store.parcels(one.id)}
        damaged += [f"{one.name}/{file['name']}" for file in one.files if file["name"] not in there]
    if damaged:
        raise Invalid(
            f"{', '.join(damaged)} is gone or damaged", f"backup/{chain[-1].id}", {"files": damaged},
            "make a new backup; restore from an older one",
        )  # fmt: skip
    return sum(len(one.files) for one in chain)


@asynccontextmanager
async def merged(rt: Runtime, chain: Sequence[BackupRecord], disk: str, mark: str) -> AsyncIterator[Path]:
    """Give a qcow2 of one disk of a backup, on its own; it is gone when the context is left. Raise Invalid."""
    folder = rt.settings.paths.images_dir
    target = folder / f".{mark}.{disk}.merged"
    files = [_store(rt).path(one.id, f["name"]) for one in chain for f in one.files if f["disk"] == disk]
    if any(f["format"] != "qcow2" for one in chain for f in one.files if f["disk"] == disk) or not files:
        raise Conflict(
            f"backup {chain[-1].name} has no disk {disk} that an image could be made of", f"backup/{chain[-1].id}", {},
            "restore it in place",
        )  # fmt: skip
    await asyncio.to_thread(folder.mkdir, parents=True, exist_ok=True)
    try:
        await merge(files, target)
        yield target
    finally:
        await asyncio.to_thread(target.unlink, missing_ok=True)


@asynccontextmanager
async def as_source(rt: Runtime, source: str, mark: str) -> AsyncIterator[str]:
    """Give the path of what an image is imported from: its source, or the root disk of the backup that it names."""
    if not source.startswith(SOURCE):
        yield source
        return
    backup_id = source.removeprefix(SOURCE)
    chain = await rt.store.read(lambda c: rows.chain(c, backup_id))
    await _check(_store(rt), chain)
    async with merged(rt, chain, "root", mark) as disk:
        yield str(disk)
