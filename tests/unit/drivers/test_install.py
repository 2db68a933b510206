"""Which disk is written; and the scripts of the ramdisk, run for real by this machine's shell on a file."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from core.errors import HostFault
from drivers.baremetal import install
from drivers.baremetal.install import ImageSource, choose_disk
from drivers.baremetal.inventory import Disk

GIB = 2**30
STICK, SMALL = Disk("/dev/sda", 2 * GIB, serial="U1"), Disk("/dev/sdb", 8 * GIB, wwn="W2")
LARGE = Disk("/dev/sdc", 9 * GIB)


@pytest.mark.parametrize(("wanted", "found"), [
    ("", SMALL), ("U1", STICK), ("W2", SMALL), ("sdc", LARGE), ("/dev/sdc", LARGE),
])  # fmt: skip
def test_the_disk_that_is_meant(wanted: str, found: Disk) -> None:
    assert choose_disk([STICK, LARGE, SMALL], wanted, "machine/m") == found


@pytest.mark.parametrize(("disks", "wanted", "words"), [
    ([STICK], "", "no disk has 4 GiB"), ([SMALL], "S9", "no disk is S9"), ([], "", "no disk"),
])  # fmt: skip
def test_no_such_disk(disks: list[Disk], wanted: str, words: str) -> None:
    with pytest.raises(HostFault, match=words):
        choose_disk(disks, wanted, "machine/m")


def test_what_the_machine_fetches_and_what_is_streamed() -> None:
    fetched = ImageSource("https://x/y.raw.zst", "")
    streamed = ImageSource("/srv/y.raw", "")
    assert (fetched.url, fetched.unpacker) == ("https://x/y.raw.zst", "zstd -dc")
    assert (streamed.url, streamed.unpacker) == ("", "cat")


def write(disk: Path, image: bytes, sha256: str, unpacker: str, run: Path) -> subprocess.CompletedProcess[bytes]:
    """Run the ramdisk's script on a file (which takes no direct writes) instead of a disk."""
    script = install._WRITE.replace("/run/", f"{run}/").replace(" oflag=direct", "")
    return subprocess.run(
        ["bash", "-c", script, "sh", str(disk), unpacker, sha256, ""], input=image, capture_output=True, check=False
    )


def test_an_image_is_unpacked_onto_the_disk(tmp_path: Path) -> None:
    disk, content = tmp_path / "disk", b"boot" * 2**20
    disk.write_bytes(b"\x55" * 2**21)
    packed = subprocess.run(["gzip", "-c"], input=content, capture_output=True, check=True).stdout
    done = write(disk, packed, hashlib.sha256(packed).hexdigest(), "gzip -dc", tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert disk.read_bytes().startswith(content)


def test_another_image_than_was_asked_for_does_not_boot(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    done = write(disk, b"boot" * 2**20, "0" * 64, "cat", tmp_path)
    assert done.returncode == 65
    assert b"the image has the checksum" in done.stderr
    assert disk.read_bytes()[: 2**20] == bytes(2**20)


def test_an_image_that_is_cut_short_does_not_boot(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(b"")
    packed = subprocess.run(["gzip", "-c"], input=b"boot" * 2**20, capture_output=True, check=True).stdout[:-20]
    done = write(disk, packed, hashlib.sha256(packed).hexdigest(), "gzip -dc", tmp_path)
    assert done.returncode == 74
    assert disk.read_bytes()[: 2**20] == bytes(2**20)
