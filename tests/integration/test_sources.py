"""Images from files and from a real HTTP server that cuts, changes and refuses, with real qemu-img and tar."""

from __future__ import annotations

import asyncio
import hashlib
import io
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from core.errors import Denied, HostFault, Invalid, NotFound, RackflowError, Unreachable
from drivers.storage.base import ImageFile
from drivers.storage.sources import fetch


def qemu_img(*words: object) -> None:
    subprocess.run(["qemu-img", *map(str, words)], check=True, capture_output=True)


def content(path: Path) -> bytes:
    return path.read_bytes()


def sha256(path: Path) -> str:
    return hashlib.sha256(content(path)).hexdigest()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A raw disk of 4 MiB with a boot signature and something in it."""
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    content = bytearray(hashlib.sha256(b"x").digest() * 2**17)
    content[510:512] = b"\x55\xaa"
    path.write_bytes(content)
    return path


@pytest.fixture(scope="module")
def qcow2(disk: Path) -> Path:
    path = disk.with_suffix(".qcow2")
    qemu_img("convert", "-O", "qcow2", disk, path)
    return path


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


async def get(
    source: object, store: Path, *, sha256: str | None = None, fmt: str = "auto", kind: str = "vm"
) -> ImageFile:  # fmt: skip
    return await fetch(str(source), store, sha256=sha256, fmt=fmt, kind=kind, progress=None)


def files(store: Path) -> list[str]:
    return sorted(path.name for path in store.iterdir())


class TestFiles:
    @pytest.mark.parametrize("scheme", ["", "file://"])
    async def test_a_qcow2_is_kept_as_it_is(self, qcow2: Path, store: Path, scheme: str) -> None:
        found = await get(f"{scheme}{qcow2}", store, sha256=sha256(qcow2))
        assert (found.sha256, found.format, found.virtual_size_mib) == (sha256(qcow2), "qcow2", 4)
        assert sha256(found.path) == found.sha256
        assert files(store) == [f"{found.sha256}.qcow2"]
        assert found.size_bytes == len(content(qcow2))

    @pytest.mark.parametrize("fmt", ["raw", "vmdk", "vdi", "vpc"])
    async def test_other_formats_are_converted(self, disk: Path, store: Path, tmp_path: Path, fmt: str) -> None:
        source = tmp_path / "source"
        qemu_img("convert", "-O", fmt, disk, source)
        found = await get(source, store, sha256=sha256(source))
        assert found.format == "qcow2"
        assert sha256(found.path) == found.sha256
        assert files(store) == [f"{found.sha256}.qcow2"]
        qemu_img("convert", "-O", "raw", found.path, tmp_path / "back")
        assert content(tmp_path / "back")[: 4 * 2**20] == content(disk)

    async def test_the_same_content_is_stored_once(self, qcow2: Path, store: Path, tmp_path: Path) -> None:
        other = write(tmp_path / "copy.img", content(qcow2))
        found = [await get(path, store) for path in (qcow2, other, qcow2)]
        assert len({one.sha256 for one in found}) == len(files(store)) == 1

    async def test_what_the_store_has_is_not_read_again(self, qcow2: Path, store: Path) -> None:
        await get(qcow2, store)
        found = await get("/nowhere/at/all", store, sha256=sha256(qcow2))
        assert (found.sha256, found.virtual_size_mib) == (sha256(qcow2), 4)

    async def refused(self, source: Path, store: Path, says: str, **more: str) -> None:
        with pytest.raises(Invalid, match=says):
            await get(source, store, **more)
        assert files(store) == []

    async def test_a_wrong_checksum(self, qcow2: Path, store: Path) -> None:
        await self.refused(qcow2, store, "another checksum", sha256="0" * 64)

    async def test_a_cut_file(self, qcow2: Path, store: Path, tmp_path: Path) -> None:
        cut = write(tmp_path / "cut.qcow2", content(qcow2)[: 2 * 2**20])
        await self.refused(cut, store, "cut short or damaged")

    async def test_no_image_at_all(self, store: Path, tmp_path: Path) -> None:
        page = tmp_path / "page.img"
        page.write_text("<html>not found</html>" * 100)
        await self.refused(page, store, "no disk image")
        await self.refused(page, store, "Archive|archive", kind="container")

    async def test_another_format_than_said(self, qcow2: Path, store: Path) -> None:
        await self.refused(qcow2, store, "it is qcow2, not vmdk", fmt="vmdk")

    async def test_a_raw_disk_without_boot_sector_if_one_says_so(self, store: Path, tmp_path: Path) -> None:
        blank = tmp_path / "blank"
        blank.write_bytes(bytes(2**20))
        assert (await get(blank, store, fmt="raw")).format == "qcow2"

    async def test_an_image_that_reads_another_file(self, qcow2: Path, store: Path, tmp_path: Path) -> None:
        thief = tmp_path / "thief.qcow2"
        qemu_img("create", "-f", "qcow2", "-b", "/etc/passwd", "-F", "raw", thief)
        await self.refused(thief, store, "refers to another file")
        flat = tmp_path / "flat.vmdk"
        qemu_img("convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", qcow2, flat)
        await self.refused(flat, store, "refers to another file|cannot be used")

    async def test_containers(self, store: Path, tmp_path: Path) -> None:
        good, cut, other = tmp_path / "good.tar.gz", tmp_path / "cut.tar.gz", tmp_path / "other.tar.gz"
        for path, names in ((good, ("metadata.yaml", "rootfs/a")), (other, ("readme", "rootfs/a"))):
            with tarfile.open(path, "w:gz") as tar:
                for name in names:
                    info = tarfile.TarInfo(name)
                    info.size = 100_000
                    tar.addfile(info, io.BytesIO(hashlib.sha256(name.encode()).digest() * 3125))
        write(cut, content(good)[:-200])
        found = await get(good, store, kind="container")
        assert (found.format, found.sha256) == ("tar", sha256(good))
        found.path.unlink()
        await self.refused(cut, store, "cannot be used", kind="container")
        await self.refused(other, store, "no LXD image", kind="container")

    async def test_no_such_file(self, store: Path) -> None:
        with pytest.raises(NotFound):
            await get("/nowhere/at/all.qcow2", store)

    async def test_a_store_that_cannot_be_written(self, qcow2: Path) -> None:
        with pytest.raises(HostFault, match="cannot be written"):
            await get(qcow2, Path("/proc/store"))


@dataclass
class Server:
    """Serves one file at /image. cut: bytes after which each answer breaks off, in turn; 0 = whole."""

    content: bytes
    etag: str = '"one"'
    cut: list[int] = field(default_factory=list)
    ranges: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(qcow2: Path) -> Iterator[Server]:
    told = Server(qcow2.read_bytes())

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            told.asked.append((self.path, self.headers.get("Range", "")))
            if self.path != "/image":
                code = int(self.path.strip("/"))
                self.send_response(code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            begin = 0
            if told.ranges and self.headers.get("If-Range") == told.etag:
                begin = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
            body = told.content[begin:]
            self.send_response(206 if begin else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", told.etag)
            self.end_headers()
            limit = told.cut.pop(0) if told.cut else 0
            self.wfile.write(body[:limit] if limit else body)
            self.close_connection = bool(limit)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{http.server_port}/image"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield told
    http.shutdown()
    http.server_close()


class TestDownloads:
    async def test_with_progress(self, server: Server, store: Path) -> None:
        seen: list[tuple[int, int]] = []
        digest = hashlib.sha256(server.content).hexdigest()
        found = await fetch(
            server.url, store, sha256=digest, fmt="auto", kind="vm", progress=lambda *now: seen.append(now)
        )
        assert found.sha256 == digest
        assert seen == sorted(seen)
        assert seen[-1] == (len(server.content), len(server.content))
        assert files(store) == [f"{digest}.qcow2"]

    async def test_a_cut_one_goes_on_where_it_ended(self, server: Server, store: Path) -> None:
        server.cut = [2**20, 2**20]
        for _ in range(2):
            with pytest.raises(Unreachable, match="could not be read"):
                await get(server.url, store)
        found = await get(server.url, store)
        assert found.sha256 == hashlib.sha256(server.content).hexdigest()
        assert [asked for _, asked in server.asked] == ["", "bytes=1048576-", "bytes=2097152-"]
        assert files(store) == [f"{found.sha256}.qcow2"]

    async def test_one_that_changed_meanwhile_begins_anew(self, server: Server, store: Path) -> None:
        server.cut = [2**20]
        with pytest.raises(Unreachable):
            await get(server.url, store)
        server.etag = '"two"'
        assert (await get(server.url, store)).sha256 == hashlib.sha256(server.content).hexdigest()

    async def test_a_server_without_ranges(self, server: Server, store: Path) -> None:
        server.cut, server.ranges = [2**20], False
        with pytest.raises(Unreachable):
            await get(server.url, store)
        assert (await get(server.url, store)).sha256 == hashlib.sha256(server.content).hexdigest()

    async def test_killed_in_the_middle(self, server: Server, store: Path) -> None:
        for delay_s in (0.0, 0.01, 0.03):
            task = asyncio.ensure_future(get(server.url, store))
            await asyncio.sleep(delay_s)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        found = await get(server.url, store)
        assert content(found.path) == server.content
        assert files(store) == [f"{found.sha256}.qcow2"]

    async def test_the_same_by_several_at_once(self, server: Server, store: Path) -> None:
        found = await asyncio.gather(*(get(server.url, store) for _ in range(4)))
        assert len({one.path for one in found}) == 1
        assert content(found[0].path) == server.content

    @pytest.mark.parametrize(
        ("path", "kind"),
        [("/404", NotFound), ("/410", NotFound), ("/403", Denied), ("/500", Unreachable), ("/429", Unreachable),
         ("/400", Invalid)],
    )  # fmt: skip
    async def test_a_refusal(self, server: Server, store: Path, path: str, kind: type[RackflowError]) -> None:
        with pytest.raises(kind, match=path.strip("/")):
            await get(server.url.replace("/image", path), store)

    async def test_nobody_there(self, store: Path) -> None:
        with pytest.raises(Unreachable):
            await get("http://127.0.0.1:1/image", store)
        with pytest.raises(Invalid, match="no URL"):
            await get("http://host:port/image", store)
