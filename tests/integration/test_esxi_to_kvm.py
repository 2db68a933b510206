"""Disks between an ESXi host and a folder of a Linux host, converted on the front-end by the real qemu-img."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from core.errors import HostFault, Invalid, NotFound, Unsupported
from core.ids import new_id
from core.settings import DriverSettings
from drivers.carrier import Carrier, Parcel, carry
from drivers.storage import reshape
from drivers.storage.base import ImageFile, SeedSpec, VolumeSpec
from drivers.storage.dir import DirStorage
from drivers.storage.reshape import fitting
from drivers.storage.vault import Vault
from drivers.storage.vmfs import VmfsStorage
from drivers.transport.ssh import connect as connect_ssh
from drivers.transport.vsphere import connect as connect_vsphere
from tests.integration.sshd import sshd
from tests.vcsim import SETTINGS, Vcsim, vcsim

SIZE = 2**20 * 6


def tool(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True)


def left_in(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()] if folder.exists() else []


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vcsim"), "-esx") as found:
        yield found


@dataclass
class Two:
    """An instance's image, staged on both hosts from one file, and what it is as raw bytes."""

    esxi: VmfsStorage
    kvm: DirStorage
    image: ImageFile
    raw: bytes
    store: Path
    work: Path
    instance_id: str

    @property
    def spec(self) -> VolumeSpec:
        return VolumeSpec(self.instance_id, "root", 0, self.image.sha256, "qcow2")

    async def moved(self, source: Carrier, target: Carrier, kind: str) -> int:
        of = "" if isinstance(source, Vault) else {"kvm": "esxi", "esxi": "kvm"}[kind]
        async with fitting(source, self.instance_id, kind, self.store, self.work, of=of) as found:
            return await carry(found, target, self.instance_id)

    def left(self) -> list[str]:
        return left_in(self.work)


@pytest.fixture
async def two(tmp_path: Path, sim: Vcsim) -> AsyncIterator[Two]:
    raw = (b"one content " * 2**15).ljust(2**21, b"\0") + b"and more " * 2**10
    raw = raw.ljust(SIZE, b"\0")
    plain, store = tmp_path / "plain", tmp_path / "images"
    plain.write_bytes(raw)
    store.mkdir()
    tool("qemu-img", "convert", "-O", "qcow2", plain, tmp_path / "qcow2")
    content = (tmp_path / "qcow2").read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    image = ImageFile(digest, "qcow2", len(content), store / f"{digest}.qcow2")
    image.path.write_bytes(content)
    folder = tmp_path / "store"
    for one in ("images", "instances"):
        (folder / one).mkdir(parents=True)
    async with sshd(tmp_path) as endpoint:
        ssh, api = await connect_ssh(endpoint, DriverSettings()), await connect_vsphere(sim.endpoint(), SETTINGS)
        esxi, kvm = VmfsStorage(api, f"[LocalDS_0] {new_id()[-8:]}"), DirStorage(ssh, str(folder))
        await esxi.prepare()
        for storage in (esxi, kvm):
            await storage.ensure_image(image)
        yield Two(esxi, kvm, image, raw, store, tmp_path / "work", new_id())
        await ssh.close()
        await api.close()


def bytes_of(file: str, format: str = "qcow2") -> bytes:
    """Return what a guest sees of a disk on this machine."""
    out = Path(file).with_suffix(".seen")
    tool("qemu-img", "convert", "-f", format, "-O", "raw", file, out)
    return out.read_bytes()


async def on_esxi(two: Two) -> bytes:
    found = [chunk async for chunk in two.esxi.carrier().read(two.instance_id, Parcel("root.raw", 0, ""))]
    return b"".join(found)


async def test_an_image_staged_once_is_one_content_on_both(two: Two) -> None:
    vmdk, qcow2 = await two.esxi.ensure_volume(two.spec), await two.kvm.ensure_volume(two.spec)
    assert (vmdk.format, qcow2.format) == ("vmdk", "qcow2")
    assert await two.esxi.images() == await two.kvm.images() == [two.image.sha256]
    assert await on_esxi(two) == bytes_of(qcow2.source) == two.raw


async def test_from_esxi_to_kvm_and_back(two: Two) -> None:
    await two.esxi.ensure_volume(two.spec)
    await two.esxi.ensure_volume(VolumeSpec(two.instance_id, "data1", 3))
    await two.esxi.ensure_seed(SeedSpec(two.instance_id, "a: b\n", "#cloud-config\n", "version: 2\n"))
    source, target = two.esxi.carrier(), two.kvm.carrier()
    assert await two.moved(source, target, "kvm") > 0
    assert await two.moved(source, target, "kvm") == 0, "what is there already is not sent again"
    assert {one.name for one in await target.parcels(two.instance_id)} == {"root.qcow2", "data1.qcow2"}
    disk = await two.kvm.ensure_volume(two.spec)
    assert (disk.size_mib, bytes_of(disk.source)) == (SIZE // 2**20, two.raw)
    assert two.left() == []
    tool("qemu-io", "-f", "qcow2", "-c", "write -q -P 7 4M 64k", disk.source)
    await two.kvm.ensure_seed(SeedSpec(two.instance_id, "a: b\n", "#cloud-config\n", "version: 2\n"))
    assert await two.esxi.delete_volumes(two.instance_id) is True
    assert await two.moved(target, source, "esxi") > 0
    changed = bytearray(two.raw)
    changed[2**22 : 2**22 + 2**16] = b"\7" * 2**16
    assert await on_esxi(two) == bytes(changed)
    assert (await two.esxi.ensure_volume(two.spec)).size_mib == SIZE // 2**20


async def test_an_overlay_becomes_a_whole_disk(two: Two) -> None:
    """Of a Linux host's disk only what differs from its image is there: the front-end has the rest."""
    disk = await two.kvm.ensure_volume(two.spec)
    await two.kvm.ensure_seed(SeedSpec(two.instance_id, "a: b\n", "#cloud-config\n", "version: 2\n"))
    parcels = {one.name: one for one in await two.kvm.carrier().parcels(two.instance_id)}
    assert parcels["root.qcow2"].base_sha256 == two.image.sha256
    await two.moved(two.kvm.carrier(), two.esxi.carrier(), "esxi")
    assert await on_esxi(two) == two.raw
    two.image.path.unlink()
    await two.esxi.delete_volumes(two.instance_id)
    with pytest.raises(NotFound, match="the front-end has no more"):
        await two.moved(two.kvm.carrier(), two.esxi.carrier(), "esxi")
    assert (two.left(), await two.esxi.carrier().parcels(two.instance_id)) == ([], [])
    assert disk.source.endswith("root.qcow2")


async def test_what_was_parked_goes_on_on_the_other_kind(two: Two, tmp_path: Path) -> None:
    vault = Vault(tmp_path / "parked")
    await two.esxi.ensure_volume(two.spec)
    await two.esxi.ensure_seed(SeedSpec(two.instance_id, "a: b\n", "#cloud-config\n", "version: 2\n"))
    await carry(two.esxi.carrier(), vault, two.instance_id)
    async with fitting(vault, two.instance_id, "esxi", two.store, two.work) as same:
        assert same is vault
    await two.moved(vault, two.kvm.carrier(), "kvm")
    assert bytes_of((await two.kvm.ensure_volume(two.spec)).source) == two.raw


class Given(Carrier):
    """Hands on what it was given, said to be what it is not, if need be."""

    def __init__(self, files: dict[str, bytes], wrong: str = "") -> None:
        self.files = files
        self.wrong = wrong

    async def parcels(self, instance_id: str) -> list[Parcel]:
        return [
            Parcel(name, len(data), "0" * 64 if name == self.wrong else hashlib.sha256(data).hexdigest())
            for name, data in self.files.items()
        ]

    async def read(self, instance_id: str, parcel: Parcel) -> AsyncIterator[bytes]:
        yield self.files[parcel.name]


async def refused(given: Given, folder: Path, kind: str = "kvm") -> Exception:
    with pytest.raises((Invalid, Unsupported, HostFault)) as found:
        async with fitting(given, "i", kind, folder, folder) as source:
            await source.parcels("i")
    assert left_in(folder) == [], "what was converted is cleared"
    return found.value


async def test_what_cannot_be_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed, disk = {"seed.guestinfo": b"{}"}, {"root.raw": bytes(2**20)}
    assert "other content" in str(await refused(Given(seed | disk, "root.raw"), tmp_path))
    memory = Given({"seed.iso": b"", "root.qcow2": b"", "memory.save": b"m"})
    assert "saved memory" in str(await refused(memory, tmp_path, "esxi"))
    broken = Given({"seed.iso": b"", "root.qcow2": b"no qcow2 at all" * 100})
    assert "cannot be converted" in str(await refused(broken, tmp_path, "esxi"))

    async def differing(argv: list[str]) -> tuple[int, str, str]:
        return (1, "Content mismatch at offset 0!", "") if argv[1] == "compare" else await real(argv)

    real = reshape.run_tool
    monkeypatch.setattr(reshape, "run_tool", differing)
    assert "Content mismatch" in str(await refused(Given(seed | disk), tmp_path))
