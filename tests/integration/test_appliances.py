"""Virtual appliances as images: OVA and OVF made here, right ones, broken ones and hostile ones."""

from __future__ import annotations

import functools
import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.errors import Invalid, NotFound
from drivers.storage.base import ImageFile
from drivers.storage.sources import fetch

SPACE = "http://schemas.dmtf.org/ovf/envelope/1"
DISK = '<Disk ovf:diskId="vmdisk1" ovf:fileRef="file1" ovf:capacity="4" ovf:capacityAllocationUnits="byte * 2^20"/>'
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk of 4 MiB that looks as if it booted."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    content = bytearray(hashlib.sha256(b"appliance").digest() * 2**15) + bytearray(3 * 2**20)
    content[510:512] = b"\x55\xaa"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def vmdk(raw: Path) -> bytes:
    out = raw.with_suffix(".vmdk")
    subprocess.run(
        ["qemu-img", "convert", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, out], check=True
    )
    return out.read_bytes()


def descriptor(vmdk: bytes, *, href: str = "disk1.vmdk", disks: str = DISK, more: str = "", before: str = "") -> bytes:
    return (
        f'<?xml version="1.0"?>{before}<Envelope xmlns="{SPACE}" xmlns:ovf="{SPACE}"><References>'
        f'<File ovf:id="file1" ovf:href="{href}" ovf:size="{len(vmdk)}" {more}/></References>'
        f"<DiskSection><Info>disks</Info>{disks}</DiskSection></Envelope>"
    ).encode()


def manifest(files: Files, kind: str = "sha256") -> bytes:
    lines = [f"{kind.upper()}({name})= {hashlib.new(kind, data).hexdigest()}" for name, data in files.items()]
    return ("\n".join(lines) + "\n").encode()


def appliance(vmdk: bytes, **how: str) -> Files:
    files = {"web.ovf": descriptor(vmdk, **how), "disk1.vmdk": vmdk}
    return {"web.ovf": files["web.ovf"], "web.mf": manifest(files), "disk1.vmdk": vmdk}


def ova(folder: Path, files: Files, form: int = tarfile.USTAR_FORMAT) -> Path:
    path = folder / "web.ova"
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1.5  # pax keeps the half second in a header before the file's
            tar.addfile(info, io.BytesIO(data))
    return path


async def get(source: object, folder: Path, fmt: str = "auto") -> ImageFile:
    return await fetch(str(source), folder / "store", sha256=None, fmt=fmt, kind="vm", progress=None)


def store_of(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "store").iterdir())


def require_disk(found: ImageFile, raw: Path, folder: Path) -> None:
    assert (found.format, found.virtual_size_mib) == ("qcow2", 4)
    assert store_of(folder) == [f"{found.sha256}.qcow2"]
    subprocess.run(["qemu-img", "convert", "-O", "raw", found.path, folder / "back"], check=True)
    assert (folder / "back").read_bytes() == raw.read_bytes()


@pytest.mark.parametrize("fmt", ["auto", "ova"])
async def test_an_ova(vmdk: bytes, raw: Path, tmp_path: Path, fmt: str) -> None:
    require_disk(await get(ova(tmp_path, appliance(vmdk)), tmp_path, fmt), raw, tmp_path)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
async def test_other_forms_of_tar(vmdk: bytes, raw: Path, tmp_path: Path, form: int) -> None:
    require_disk(await get(ova(tmp_path, appliance(vmdk), form), tmp_path), raw, tmp_path)


@pytest.mark.parametrize("kind", ["", "sha1", "sha512"])
async def test_other_manifests_and_none(vmdk: bytes, raw: Path, tmp_path: Path, kind: str) -> None:
    files = {"web.ovf": descriptor(vmdk), "disk1.vmdk": vmdk}
    found = files | ({"web.mf": manifest(files, kind)} if kind else {})
    require_disk(await get(ova(tmp_path, found), tmp_path), raw, tmp_path)


async def test_an_ovf_with_its_files_beside_it(vmdk: bytes, raw: Path, tmp_path: Path) -> None:
    for name, data in appliance(vmdk).items():
        (tmp_path / name).write_bytes(data)
    require_disk(await get(tmp_path / "web.ovf", tmp_path), raw, tmp_path)
    (tmp_path / "disk1.vmdk").write_bytes(vmdk[:-1] + b"x")
    await refused(tmp_path / "web.ovf", tmp_path / "other", "another checksum")
    (tmp_path / "disk1.vmdk").unlink()
    with pytest.raises(NotFound, match=r"disk1\.vmdk"):
        await get(tmp_path / "web.ovf", tmp_path / "third")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    (tmp_path / "www").mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path / "www"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


async def test_an_ovf_from_the_network(vmdk: bytes, raw: Path, tmp_path: Path, server: str) -> None:
    files = {"web.ovf": descriptor(vmdk, href="my disk.vmdk"), "my disk.vmdk": vmdk}
    for name, data in files.items():
        (tmp_path / "www" / name).write_bytes(data)
    require_disk(await get(f"{server}/web.ovf", tmp_path), raw, tmp_path)


async def refused(source: Path, folder: Path, says: str, fmt: str = "auto") -> None:
    with pytest.raises(Invalid, match=says):
        await get(source, folder, fmt)
    assert store_of(folder) == []


ENTITY = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
LAUGHS = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;">]>'
Change = Callable[[bytes], Mapping[str, bytes]]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda v: appliance(v, href="../../etc/passwd"), "could lie anywhere"),
        (lambda v: appliance(v, href="/etc/passwd"), "could lie anywhere"),
        (lambda v: appliance(v, href="http://other/disk.vmdk"), "could lie anywhere"),
        (lambda v: {**appliance(v), "../evil": b"x"}, "could lie anywhere"),
        (lambda v: appliance(v, before=ENTITY), "document type of its own"),
        (lambda v: appliance(v, before=LAUGHS), "document type of its own"),
        (lambda v: appliance(v, disks=""), "0 disks with content"),
        (lambda v: appliance(v, disks=DISK + DISK.replace("file1", "file2")), "2 disks with content"),
        (lambda v: appliance(v, more='ovf:compression="gzip"'), "compressed once more"),
        (lambda v: appliance(v, more='ovf:chunkSize="4"'), "cut into chunks"),
        (lambda v: {**appliance(v), "disk1.vmdk": v[:-4] + b"evil"}, "another checksum"),
        (lambda v: {**appliance(v), "disk1.vmdk": v + b"more"}, "its descriptor says"),
        (lambda v: {**appliance(v), "web.mf": b"MD5(web.ovf)= 00\n"}, "cannot be read"),
        (lambda v: {**appliance(v), "web.mf": manifest({"web.ovf": descriptor(v)})}, r"does not name disk1\.vmdk"),
        (lambda v: {**appliance(v), "web.ovf": descriptor(v) + b" "}, r"web\.ovf has another checksum"),
        (lambda v: {k: d for k, d in appliance(v).items() if k != "disk1.vmdk"}, r"no file disk1\.vmdk"),
        (lambda v: {"web.ovf": b"<Envelope/>", "disk1.vmdk": v}, "no OVF envelope"),
        (lambda v: {"web.ovf": b"<Envelope", "disk1.vmdk": v}, "no XML"),
        (lambda v: {"web.ovf": bytes(2**22 + 1), "disk1.vmdk": v}, "too large"),
        (lambda v: {**appliance(v), **{f"f{n}": b"" for n in range(1001)}}, "more than 1000 files"),
    ],
)  # fmt: skip
async def test_what_is_refused(vmdk: bytes, tmp_path: Path, change: Change, says: str) -> None:
    await refused(ova(tmp_path, dict(change(vmdk))), tmp_path, says)


async def test_links_and_cut_ones_are_refused(vmdk: bytes, tmp_path: Path) -> None:
    path = ova(tmp_path, appliance(vmdk))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(vmdk) // 2])
    await refused(path, tmp_path, "cut short or damaged|its descriptor says|no file")
    link = tarfile.TarInfo("disk1.vmdk")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with tarfile.open(path, "w") as tar:
        text = descriptor(vmdk)
        info = tarfile.TarInfo("web.ovf")
        info.size = len(text)
        tar.addfile(info, io.BytesIO(text))
        tar.addfile(link)
    await refused(path, tmp_path, "no plain file")


async def test_a_format_that_it_is_not(vmdk: bytes, raw: Path, tmp_path: Path) -> None:
    await refused(ova(tmp_path, appliance(vmdk)), tmp_path, "it is ova, not qcow2", fmt="qcow2")
    await refused(raw, tmp_path, "no OVA or OVF", fmt="ova")
