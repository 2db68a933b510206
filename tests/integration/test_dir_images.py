"""Images in a dir datastore, after calls that were killed between two commands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.errors import Invalid
from core.settings import DriverSettings
from drivers.storage.base import ImageFile
from drivers.storage.dir import DirStorage
from drivers.transport.ssh import connect
from tests.integration.sshd import sshd

CONTENT = b"whole" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """The datastore's folder of images."""
    for folder in ("images", "instances"):
        (tmp_path / "store" / folder).mkdir(parents=True)
    return tmp_path / "store" / "images"


@pytest.fixture
def image(tmp_path: Path) -> ImageFile:
    (tmp_path / "source").write_bytes(CONTENT)
    return ImageFile(SHA256, "qcow2", len(CONTENT), tmp_path / "source")


@pytest.fixture
async def storage(tmp_path: Path, images: Path) -> AsyncIterator[DirStorage]:
    async with sshd(tmp_path) as endpoint:
        transport = await connect(endpoint, DriverSettings())
        yield DirStorage(transport, str(images.parent))
        await transport.close()


def names(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir()]


async def sent(storage: DirStorage, image: ImageFile) -> int:
    """Stage an image; return how much of it was sent."""
    done: list[int] = []
    assert await storage.ensure_image(image, progress=lambda now, _: done.append(now))
    return done[-1] if done else 0


async def test_a_copy_that_was_complete_is_not_sent_again(
    storage: DirStorage, images: Path, image: ImageFile
) -> None:  # fmt: skip
    (images / f".{SHA256}.qcow2.copied").write_bytes(CONTENT)
    assert await sent(storage, image) == 0
    assert names(images) == [f"{SHA256}.qcow2"]
    assert (images / f"{SHA256}.qcow2").read_bytes() == CONTENT


@pytest.mark.parametrize("left", [b"wrong" * 100_000, b"short"])
async def test_what_is_left_of_other_content_is_sent_anew(
    storage: DirStorage, images: Path, image: ImageFile, left: bytes
) -> None:  # fmt: skip
    (images / f".{SHA256}.qcow2.copied").write_bytes(left)
    assert await sent(storage, image) == len(CONTENT)
    assert names(images) == [f"{SHA256}.qcow2"]
    assert (images / f"{SHA256}.qcow2").read_bytes() == CONTENT


async def test_wrong_content_is_thrown_away(storage: DirStorage, images: Path, image: ImageFile) -> None:
    image.path.write_bytes(b"wrong" * 100_000)
    with pytest.raises(Invalid, match="other content"):
        await storage.ensure_image(image)
    assert names(images) == []


async def test_hosts_that_share_the_folder_verify_the_same_copy(tmp_path: Path, images: Path, image: ImageFile) -> None:
    async with sshd(tmp_path) as endpoint:
        transports = [await connect(endpoint, DriverSettings()) for _ in range(6)]
        hosts = [DirStorage(one, str(images.parent)) for one in transports]
        copied = images / f".{SHA256}.qcow2.copied"
        for _ in range(5):
            copied.write_bytes(CONTENT)
            found = await asyncio.gather(*(one._wrong(image, str(copied)) for one in hosts))
            assert set(found) == {""}
            assert names(images) == [f"{SHA256}.qcow2"]
            (images / f"{SHA256}.qcow2").unlink()
        for transport in transports:
            await transport.close()
