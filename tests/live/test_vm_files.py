"""A VM's files leave its host and come back: backups to a disk that it boots from, a parked VM to another host."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.ids import new_id
from drivers.carrier import Parcel, carry
from drivers.hypervisor.base import InstanceSpec
from drivers.storage.base import Storage
from drivers.storage.vault import Vault
from tests.labs import Lab
from tests.live.kvm import DATASTORE, tiny
from tests.live.kvm_powers import Pair, pair_of


@pytest.fixture
async def pair(lab: Lab) -> AsyncIterator[Pair]:
    async with pair_of(lab) as found:
        yield found


async def write(pair: Pair, spec: InstanceSpec, content: str) -> None:
    await pair.source.exec(spec.name, ["tee", "/kept"], stdin=content.encode())
    await pair.source.exec(spec.name, ["sync"])


async def taken(pair: Pair, spec: InstanceSpec, vault: Vault, checkpoint: str, since: str = "") -> tuple[str, Parcel]:
    """Back the root disk up into the vault; return the backup's id and what is kept of it."""
    storage, backup_id = pair.here.host.storage(DATASTORE), new_id()
    folder = await storage.ensure_scratch(spec.id)
    (file,) = await pair.source.backup(spec.name, folder, checkpoint=checkpoint, since=since)
    assert file.since == since
    found = await storage.scratch_file(file.path)
    await vault.take(backup_id, "root.qcow2", storage.read_scratch(file.path), found.sha256, found.size_bytes)
    await storage.delete_scratch(spec.id)
    return backup_id, Parcel(f"{backup_id}/root.qcow2", found.size_bytes, found.sha256)


async def booted(pair: Pair, spec: InstanceSpec) -> str:
    await pair.source.start(spec.name)
    await pair.here.ready(spec.name)
    found = (await pair.source.exec(spec.name, ["cat", "/kept"])).stdout
    await pair.source.stop(spec.name, grace_s=0)
    return found


@pytest.mark.slow
async def test_a_vm_is_restored_from_an_increment_and_taken_back(pair: Pair, tmp_path: Path) -> None:
    spec, vault = await pair.running(), Vault(tmp_path)
    storage: Storage = pair.here.host.storage(DATASTORE)
    await write(pair, spec, "one")
    backups = [await taken(pair, spec, vault, "c1")]
    await write(pair, spec, "two")
    backups.append(await taken(pair, spec, vault, "c2", "c1"))
    await write(pair, spec, "three")
    await pair.source.stop(spec.name, grace_s=20)
    chain = [parcel for _, parcel in backups]
    assert chain[1].size_bytes < chain[0].size_bytes / 2
    ids = {parcel.sha256: backup_id for backup_id, parcel in backups}

    def content(parcel: Parcel) -> AsyncIterator[bytes]:
        backup_id = ids[parcel.sha256]
        return vault.read(backup_id, Parcel("root.qcow2", parcel.size_bytes, parcel.sha256))

    assert await storage.restore_volume(spec.id, "root", chain, content) is True
    assert await booted(pair, spec) == "two"
    assert await storage.undo_restore(spec.id, "root") is True
    assert await booted(pair, spec) == "three"
    assert await storage.restore_volume(spec.id, "root", chain[:1], content) is True
    assert await storage.drop_before(spec.id, "root") is True
    assert await booted(pair, spec) == "one"


@pytest.mark.slow
async def test_a_parked_vm_goes_on_elsewhere(pair: Pair, tmp_path: Path) -> None:
    """With its memory: it has not booted in between."""
    spec, vault = await pair.running(), Vault(tmp_path)
    here, there = pair.here.host.storage(DATASTORE), pair.there.host.storage(DATASTORE)
    await write(pair, spec, "one")
    boot = ["cat", "/proc/sys/kernel/random/boot_id"]
    before = (await pair.source.exec(spec.name, boot)).stdout
    assert await pair.source.save(spec.name, here.state_path(spec.id)) is True
    assert await carry(here.carrier(), vault, spec.id) > 0
    assert await vault.verify(spec.id) == []
    await pair.source.undefine(spec.name)
    assert await here.carrier().drop(spec.id) is True
    pair.there.made.append(spec.id)
    await there.prepare()
    await there.ensure_image(tiny(pair.here.lab))
    assert await carry(vault, there.carrier(), spec.id) > 0
    await pair.target.define(spec)
    assert await pair.target.restore(spec.name, there.state_path(spec.id)) is True
    await pair.there.ready(spec.name)
    assert (await pair.target.exec(spec.name, boot)).stdout == before
    assert (await pair.target.exec(spec.name, ["cat", "/kept"])).stdout == "one"
