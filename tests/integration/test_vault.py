"""The vault on a real disk: the suite of carriers, and what a crash or a full disk leaves."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import HostFault, Invalid, NotFound
from core.ids import new_id
from drivers.carrier import Parcel, carry
from drivers.conformance.carrier import CarrierRig
from drivers.storage.vault import Vault
from tests.contract.suites import CarrierContract
from tests.labs import ROOT


def parcel_of(data: bytes, name: str = "root.qcow2") -> Parcel:
    return Parcel(name, len(data), hashlib.sha256(data).hexdigest())


async def pieces(data: bytes, size: int = 50_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


def parts(root: Path) -> list[Path]:
    return list(root.rglob("*.part"))


async def filled(root: Path) -> tuple[Vault, str]:
    vault, instance_id = Vault(root), new_id()
    for name, data in {"root.qcow2": os.urandom(6 * 2**20), "data1.raw": b"", "seed.iso": b"seed" * 999}.items():
        await vault.write(instance_id, parcel_of(data, name), pieces(data))
    return vault, instance_id


class TestVault(CarrierContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> CarrierRig:
        source, instance_id = await filled(tmp_path / "one")
        return CarrierRig(source, Vault(tmp_path / "two"), instance_id, (0.0, 0.001, 0.005, 0.02))


async def test_backups_are_kept_listed_verified_and_read(tmp_path: Path) -> None:
    vault, data, backup_id = Vault(tmp_path / "vault"), os.urandom(3 * 2**20 + 7), new_id()
    wanted = parcel_of(data)
    assert await vault.folders() == []
    assert await vault.take(backup_id, "root.qcow2", pieces(data), wanted.sha256, len(data)) is True
    assert await vault.take(backup_id, "root.qcow2", pieces(data), wanted.sha256, len(data)) is False
    assert (await vault.folders(), await vault.parcels(backup_id)) == ([backup_id], [wanted])
    assert vault.path(backup_id, "root.qcow2").read_bytes() == data
    assert b"".join([chunk async for chunk in vault.read(backup_id, wanted)]) == data
    assert await vault.remove(backup_id) is True
    assert await vault.remove(backup_id) is False
    with pytest.raises(NotFound):
        await anext(vault.read(backup_id, wanted))


async def test_damage_is_found(tmp_path: Path) -> None:
    vault, instance_id = await filled(tmp_path)
    assert await vault.verify(instance_id) == []
    with vault.path(instance_id, "root.qcow2").open("r+b") as file:
        file.seek(2**20)
        file.write(b"x" * 9)
    vault.path(instance_id, "seed.iso").unlink()
    assert await vault.verify(instance_id) == ["root.qcow2", "seed.iso"]
    with pytest.raises(Invalid):
        await carry(vault, Vault(tmp_path / "other"), instance_id)


async def test_nobody_else_may_look_into_it(tmp_path: Path) -> None:
    vault, instance_id = await filled(tmp_path / "vault")
    for folder in (tmp_path / "vault", vault.path(instance_id, "seed.iso").parent):
        assert folder.stat().st_mode & 0o077 == 0


async def test_new_content_under_a_known_name(tmp_path: Path) -> None:
    vault, instance_id = await filled(tmp_path)
    assert await vault.write(instance_id, parcel_of(b"new"), pieces(b"new")) is True
    assert parcel_of(b"new") in await vault.parcels(instance_id)
    assert await vault.verify(instance_id) == []


async def test_more_than_was_said_does_not_fill_the_disk(tmp_path: Path) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 2**20
            yield bytes(2**20)

    with pytest.raises(Invalid):
        await asyncio.wait_for(Vault(tmp_path).write(new_id(), parcel_of(b"small"), endless()), 10)
    assert taken <= 2**22
    assert parts(tmp_path) == []


KILLED = """
import asyncio, sys
from pathlib import Path
from drivers.carrier import Parcel
from drivers.storage.vault import Vault

async def content():
    while chunk := sys.stdin.buffer.read(65536):
        yield chunk

root, instance_id, size, sha256 = sys.argv[1:]
asyncio.run(Vault(Path(root)).write(instance_id, Parcel("root.qcow2", int(size), sha256), content()))
"""


async def test_a_process_killed_in_the_middle(tmp_path: Path) -> None:
    data, instance_id = os.urandom(5 * 2**20), new_id()
    wanted = parcel_of(data)
    argv = [sys.executable, "-c", KILLED, str(tmp_path), instance_id, str(len(data)), wanted.sha256]
    process = await asyncio.create_subprocess_exec(*argv, stdin=subprocess.PIPE, cwd=ROOT)
    assert process.stdin is not None
    process.stdin.write(data[: 3 * 2**20])
    await process.stdin.drain()
    while not parts(tmp_path):
        await asyncio.sleep(0.02)
    process.kill()
    await process.wait()
    assert parts(tmp_path)
    vault = Vault(tmp_path)
    assert await vault.parcels(instance_id) == []
    assert await vault.write(instance_id, wanted, pieces(data)) is True
    assert await vault.verify(instance_id) == []
    assert parts(tmp_path) == []


@pytest.mark.parametrize("said", [2**50, 100])
async def test_a_full_disk(tmp_path: Path, said: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before copying when it is known, else in the middle (/dev/full says what a full disk says)."""
    if said == 100:
        monkeypatch.setattr("drivers.storage.vault._Incoming.__init__", _into_dev_full)
    with pytest.raises(HostFault) as caught:
        await Vault(tmp_path).write(new_id(), Parcel("root.qcow2", said, "0" * 64), pieces(bytes(100)))
    assert caught.value.evidence["errno"] == 28
    assert "make room" in caught.value.fix
    assert str(tmp_path) in str(caught.value)


def _into_dev_full(self: object, path: Path) -> None:
    with Path("/dev/full").open("wb", buffering=0) as full:
        file = os.fdopen(os.dup(full.fileno()), "wb")
    vars(self).update(_path=path, _file=file, digest=hashlib.sha256(), size_bytes=0)
