"""An operating system onto a machine's disk, by the ramdisk that it booted from the network, over SSH.

The image of a whole disk is fetched by the machine itself (http, https) or streamed to it, unpacked as it comes (zstd,
gzip, or as it is), and its checksum is that of what came. What is half written does not boot: its first MiB is wiped.
The image's root is the first partition with ext4 that holds /etc.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from core.errors import HostFault, Invalid, RackflowError
from drivers.baremetal.first_boot import FirstBoot, HostKey, archive, files
from drivers.baremetal.inventory import Disk
from drivers.transport.base import Transport

LEAST_BYTES = 4 * 2**30  # as Ironic's default root device: smaller ones are sticks and cards
WRITE_S = 3600.0
_SMALL_S = 120.0
_CHUNK = 2**20
_UNPACK = {".zst": "zstd -dc", ".gz": "gzip -dc"}  # by the end of the image's name
Told = Callable[[int], Awaitable[None]]  # MiB that stand on the disk

# Prints size in bytes, serial, and "empty" or what is on it. $1: sda, $2: bytes, $3: serial; both as inspected.
_LOOK = """set -eu
path=/sys/block/$1
fail() { echo "disk $1 $2 when it was inspected" >&2; exit 3; }
[ -d "$path" ] || fail "$1" "was there"
[ "$(($(cat "$path/size") * 512))" = "$2" ] || fail "$1" "had another size"
serial=$(tr -d ' ' < "$path/serial" 2>/dev/null || :)
[ -z "$3" ] || [ -z "$serial" ] || [ "$serial" = "$3" ] || fail "$1" "had the serial $3, not $serial,"
parts=$(ls -d "$path/$1"* 2>/dev/null | wc -l)
used=$(dd if="/dev/$1" bs=1M count=4 2>/dev/null | tr -d '\\0' | head -c 1 | wc -c)
[ "$parts$used" = 00 ] && echo empty || echo "$parts partitions"
"""
# $1: /dev/sda, $2: unpacker, $3: sha256, $4: URL, "" = standard input
_WRITE = """set -u -o pipefail
rm -f /run/copy; mkfifo /run/copy
sha256sum < /run/copy > /run/sum & summing=$!
if [ -n "$4" ]; then wget -q -O - "$4"; else cat; fi | tee /run/copy | $2 |
  dd of="$1" bs=1M iflag=fullblock oflag=direct conv=fsync 2> /run/dd
code=$?
wait $summing
seen=$(cut -d' ' -f1 /run/sum)
if [ $code = 0 ] && [ "$seen" = "$3" ]; then exit 0; fi
dd if=/dev/zero of="$1" bs=1M count=1 conv=fsync 2> /dev/null
[ $code = 0 ] && { echo "the image has the checksum $seen" >&2; exit 65; }
echo "writing ended with $code: $(tail -n 1 /run/dd)" >&2; exit 74
"""
# $1: sda; a tar comes on standard input
_GIVE = """set -eu
blockdev --rereadpt "/dev/$1" 2> /dev/null || :
sleep 1; mkdir -p /mnt
for part in /sys/block/$1/$1*; do
  mount -t ext4 "/dev/${part##*/}" /mnt 2> /dev/null || continue
  if [ -d /mnt/etc ]; then tar -x -C /mnt; sync; umount /mnt; exit 0; fi
  umount /mnt
done
echo "no partition of the image holds an ext4 root file system" >&2; exit 65
"""


@dataclass(frozen=True)
class ImageSource:
    """A disk's image. place: http(s)://…, or a path on the front-end; sha256: of that file as it is."""

    place: str
    sha256: str

    @property
    def url(self) -> str:
        """Return where the machine fetches it itself, "" where it is streamed."""
        return self.place if self.place.startswith(("http://", "https://")) else ""

    @property
    def unpacker(self) -> str:
        return next((command for end, command in _UNPACK.items() if self.place.endswith(end)), "cat")


def choose_disk(disks: Sequence[Disk], wanted: str, subject: str) -> Disk:
    """Return the disk with that name, serial or WWN; by default the smallest of at least 4 GiB. Raise HostFault."""
    if wanted:
        fit = [one for one in disks if wanted in (one.name, _short(one), one.serial, one.wwn)]
    else:
        large = [one for one in disks if one.size_bytes >= LEAST_BYTES]
        fit = sorted(large, key=lambda one: (one.size_bytes, one.name))
    if fit:
        return fit[0]
    raise HostFault(
        f"no disk is {wanted}" if wanted else "no disk has 4 GiB or more", subject,
        {"disks": [f"{one.name} {one.serial} {one.size_bytes // 2**20} MiB" for one in disks]},
        "name one of them by its serial (install: disk)",
    )  # fmt: skip


async def contents(t: Transport, disk: Disk) -> str:
    """Return "" for an empty disk, else what is on it. Raise HostFault (it is not the one that was inspected)."""
    argv = ["sh", "-c", _LOOK, "sh", _short(disk), str(disk.size_bytes), disk.serial.replace(" ", "")]
    said = (await t.run(argv, timeout_s=_SMALL_S)).stdout.strip()
    return "" if said == "empty" else said


async def write(t: Transport, disk: Disk, image: ImageSource, told: Told) -> None:
    """Write an image over all of a disk. Raise Invalid (checksum, no such file), HostFault, Unreachable."""
    argv = ["sh", "-c", _WRITE, "sh", disk.name, image.unpacker, image.sha256, image.url]
    telling = asyncio.ensure_future(_tell(t, disk, told))
    try:
        if image.url:
            done = await t.run(argv, timeout_s=WRITE_S, check=False)
        else:
            done = await t.write(_read(Path(image.place)), argv, timeout_s=WRITE_S)
    finally:
        telling.cancel()
        with suppress(asyncio.CancelledError, RackflowError):
            await telling
    if done.exit_code == 65:
        raise Invalid(
            f"{image.place} is not the image that was asked for: {done.stderr.strip()}", f"host/{t.endpoint.name}",
            {"wanted": image.sha256}, "correct sha256, or put the right file there",
        )  # fmt: skip
    if done.exit_code != 0:
        raise HostFault(
            f"{t.endpoint.name}: {done.stderr.strip() or 'writing the image failed'}", f"host/{t.endpoint.name}",
            {"exit_code": done.exit_code, "disk": disk.name, "image": image.place}, "see that the disk is sound",
        )  # fmt: skip


async def give(t: Transport, disk: Disk, want: FirstBoot, key: HostKey) -> None:
    """Put onto a written disk what its first start needs. Raise HostFault."""
    await t.run(
        ["sh", "-c", _GIVE, "sh", _short(disk)], stdin=archive(files(want, key)), timeout_s=_SMALL_S
    )


async def _tell(t: Transport, disk: Disk, told: Told) -> None:
    """Say every few seconds how much was written."""
    while True:
        await asyncio.sleep(3)
        seen = (await t.run(["cat", f"/sys/block/{_short(disk)}/stat"], timeout_s=30, check=False)).stdout.split()
        if len(seen) > 6:
            await told(int(seen[6]) * 512 // 2**20)


async def _read(path: Path) -> AsyncIterator[bytes]:
    try:
        file = await asyncio.to_thread(path.open, "rb")
    except OSError as error:
        fix = "name a file on the front-end, or http(s)://…"
        raise Invalid(f"{path} cannot be read: {error.strerror}", "image", {}, fix) from error
    with file:
        while chunk := await asyncio.to_thread(file.read, _CHUNK):
            yield chunk


def _short(disk: Disk) -> str:
    return disk.name.rpartition("/")[2]
