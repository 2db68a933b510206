"""Steps that keep what is on an instance's disks: snapshots, images, backups, and the way back."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from control import backups, images, snapshots
from control.operations import steps_of
from core.errors import Invalid
from core.states import InstanceKind
from drivers.carrier import Parcel
from drivers.hypervisor.powers import BacksUp, SavesImages, Snapshots
from drivers.storage.sources import fetch
from tasks.disks import bring
from tasks.ledger import Seen
from tasks.work import Work

WHOLE = "instance"  # a file that holds all of a container

# snapshots


async def snapshot(w: Work) -> Seen:
    """Snapshot all disks, with memory if wanted; or one disk of an instance that is off."""
    given, host = w.op.parameters, await w.host()
    name, disk, memory = str(given["snapshot"]), str(given.get("disk") or ""), bool(given.get("memory"))
    if disk:
        changed = await w.storage(host).snapshot_volume(w.view.id, disk, name)
    else:
        changed = await w.power(host, Snapshots, "snapshot").snapshot(w.name, name, memory=memory)
    return Seen(changed, {"snapshot": name}, lambda c: snapshots.record(c, w.op, name, disk, memory))


async def revert(w: Work) -> Seen:
    """Go back to a snapshot."""
    name, disk, host = str(w.op.parameters["snapshot"]), w.op.parameters.get("disk"), await w.host()
    if disk:
        return Seen(await w.storage(host).revert_volume(w.view.id, str(disk), name))
    changed = await w.power(host, Snapshots, "revert").revert(w.name, name)
    if w.in_pool(host) and not w.view.host_name:  # a call that was killed may have left the size and NICs of that time
        await bring(w, w.view)
    return Seen(changed)


async def drop_snapshot(w: Work) -> Seen:
    """Take a snapshot away."""
    name, disk, host = str(w.op.parameters["snapshot"]), w.op.parameters.get("disk"), await w.host()
    if disk:
        changed = await w.storage(host).drop_volume_snapshot(w.view.id, str(disk), name)
    else:
        changed = await w.power(host, Snapshots, "drop the snapshot of").drop_snapshot(w.name, name)
    return Seen(changed, None, lambda c: snapshots.forget(c, w.op, name))


# files on their way to the front-end


async def copy_disk(w: Work) -> Seen:
    """Write an image of its disk, or of a container, to a file on the host."""
    host = await w.host()
    storage = w.storage(host)
    folder = await storage.ensure_scratch(w.view.id)
    if w.view.kind is InstanceKind.CONTAINER and isinstance(host.hypervisor, SavesImages):
        path = f"{folder}/{w.op.id}.tar"
        await host.hypervisor.save_image(w.name, path)
    else:
        hypervisor: BacksUp = w.power(host, BacksUp, "copy the disk of")
        disk = str(w.op.parameters["disk"])
        (file,) = await hypervisor.backup(w.name, folder, checkpoint=w.op.id, disks=[disk])
        await hypervisor.drop_checkpoint(w.name, w.op.id)
        path = file.path
    return Seen(True, {"path": path})


async def fetch_image(w: Work) -> Seen:
    """Bring the file into the front-end's store of images."""
    storage = w.storage(await w.host())
    path = await _evidence(w, "copy-disk", "path")
    parcel = await storage.scratch_file(path)
    name = f"{w.op.id}.image"
    await w.vault.take(w.op.id, name, storage.read_scratch(path), sha256=parcel.sha256, size=parcel.size_bytes)
    local = w.vault.path(w.op.id, name)
    file = await fetch(
        str(local), w.rt.settings.paths.images_dir, sha256=None, fmt="auto", kind=w.view.kind, progress=None
    )
    await w.vault.remove(w.op.id)
    image_id = str(w.op.parameters["image_id"])

    def record(c: Any) -> None:
        images.record_imported(
            c, w.op, image_id, sha256=file.sha256, format=file.format, size_bytes=file.size_bytes,
            virtual_size_mib=file.virtual_size_mib,
        )  # fmt: skip

    return Seen(True, {"sha256": file.sha256, "bytes": file.size_bytes}, record)


async def drop_image(w: Work) -> Seen:
    """Take what was fetched away again; content that became an image stays one."""
    return Seen(await w.vault.remove(w.op.id))


async def backup(w: Work) -> Seen:
    """Write copies of its disks to files on the host; only what changed since the last backup where that can be."""
    host = await w.host()
    folder = await w.storage(host).ensure_scratch(w.view.id)
    hypervisor: BacksUp = w.power(host, BacksUp, "back up")
    since, here = str(w.op.parameters.get("since") or ""), str(w.op.parameters["backup_id"])
    files = await hypervisor.backup(w.name, folder, checkpoint=here, since=since)
    return Seen(True, {"files": [[f.disk, f.path, f.format, f.since] for f in files]})


async def fetch_backup(w: Work) -> Seen:
    """Bring the copies into the front-end's store of backups, each with its checksum."""
    storage, backup_id = w.storage(await w.host()), str(w.op.parameters["backup_id"])
    kept: list[dict[str, Any]] = []
    for disk, path, form, since in await _evidence(w, "backup", "files"):
        parcel, name = await storage.scratch_file(path), f"{disk}.{form}"
        await w.backup_store.take(
            backup_id, name, storage.read_scratch(path), sha256=parcel.sha256, size=parcel.size_bytes
        )
        kept.append({"disk": disk, "name": name, "format": form, "size_bytes": parcel.size_bytes,
                     "sha256": parcel.sha256, "since": since})  # fmt: skip
    total = sum(file["size_bytes"] for file in kept)
    return Seen(True, {"bytes": total}, lambda c: backups.record(c, w.op, backup_id, kept))


async def drop_backup(w: Work) -> Seen:
    """Take the copies away from the front-end again."""
    backup_id = str(w.op.parameters["backup_id"])
    return Seen(await w.backup_store.remove(backup_id), None, lambda c: backups.forget_files(c, w.op, backup_id))


async def drop_scratch(w: Work) -> Seen:
    """Take the files on their way away from the host."""
    if w.view.host is None or w.view.datastore is None:
        return Seen(False)
    host = await w.host()
    if w.op.verb == "save-image" and isinstance(host.hypervisor, BacksUp):
        await host.hypervisor.drop_checkpoint(w.name, w.op.id)  # of a copy that was cut off
    return Seen(await w.storage(host).delete_scratch(w.view.id))


async def prune(w: Work) -> Seen:
    """Take away backups beyond the number to keep, and their checkpoints."""
    keep = w.op.parameters.get("keep")
    if keep is None:
        return Seen(False)
    going = await w.rt.store.read(lambda c: backups.superfluous(c, w.view.id, int(keep)))
    hypervisor: BacksUp = w.power(await w.host(), BacksUp, "back up")
    for one in going:
        await w.backup_store.remove(one.id)
        await hypervisor.drop_checkpoint(w.name, one.id)
    gone = [one.id for one in going]
    return Seen(bool(gone), {"removed": [one.name for one in going]}, lambda c: backups.forget(c, gone))


async def restore_volumes(w: Work) -> Seen:
    """Make its disks anew from a backup; those that were there are kept beside them."""
    wanted = str(w.op.parameters["backup_id"])
    chain = await w.rt.store.read(lambda c: backups.chain(c, wanted))
    changed = False
    for disk in [file["disk"] for file in chain[-1].files]:
        where: dict[str, tuple[str, Parcel]] = {}  # name on the host -> backup, file there
        for place, one in enumerate(chain):
            for f in one.files:
                if f["disk"] == disk:
                    parcel = Parcel(f["name"], f["size_bytes"], f["sha256"])
                    where[f"{place}-{f['name']}"] = (one.id, parcel)
        restore = _container if disk == WHOLE else _disk
        changed = await restore(w, disk, where) or changed
    return Seen(changed, {"backup": chain[-1].name, "files": len(chain[-1].files)})


async def _disk(w: Work, disk: str, where: dict[str, tuple[str, Parcel]]) -> bool:
    def content(parcel: Parcel) -> AsyncIterator[bytes]:
        backup_id, kept = where[parcel.name]
        return w.backup_store.read(backup_id, kept)

    parts = [Parcel(name, kept.size_bytes, kept.sha256) for name, (_, kept) in where.items()]
    return await w.storage(await w.host()).restore_volume(w.view.id, disk, parts, content)


async def _container(w: Work, disk: str, where: dict[str, tuple[str, Parcel]]) -> bool:
    """Put a container's archive in its place: checked at the front-end first, for its hypervisor keeps one only."""
    backup_id, parcel = list(where.values())[-1]
    damaged = await w.backup_store.verify(backup_id)
    if damaged:
        raise Invalid(
            f"the backup of {w.view.name} is damaged: {', '.join(damaged)}", w.op.subject, {"files": damaged},
            "restore another one",
        )  # fmt: skip
    carrier = w.carrier(await w.host())
    await carrier.drop(w.view.id)
    return await carrier.write(w.view.id, parcel, w.backup_store.read(backup_id, parcel))


async def keeps_none_before(w: Work) -> bool:
    """Say whether what it was before a restore is gone: a hypervisor that holds its disks itself keeps one only."""
    return w.in_pool(await w.host())


async def restore_before(w: Work) -> Seen:
    """Put back the disks that were kept."""
    return Seen(any([await storage.undo_restore(w.view.id, disk) for storage, disk in await _kept(w)]))


async def drop_before(w: Work) -> Seen:
    """Take the disks away that were kept."""
    return Seen(any([await storage.drop_before(w.view.id, disk) for storage, disk in await _kept(w)]))


async def _kept(w: Work) -> list[tuple[Any, str]]:
    host = await w.host()
    if w.in_pool(host):
        return []
    storage = w.storage(host)
    return [(storage, disk) for disk in ("root", *(d.name for d in w.view.spec.disks))]


async def _evidence(w: Work, step: str, key: str) -> Any:
    """Return what an earlier step of the operation left as evidence."""

    steps = (await w.rt.store.read(lambda c: steps_of(c, [w.op.id])))[w.op.id]
    return next((s.evidence or {})[key] for s in steps if s.name == step)
