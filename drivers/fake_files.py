"""What simulated disks look like as files, where they leave the simulation: in parcels, backups and saved memory.

A disk is a boot sector (so that qemu-img and the image import take it for a raw disk) and a line of JSON behind it,
which is still found when the disk was converted.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import AsyncGenerator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.states import InstanceKind
from drivers.fake_things import FakeInstance, FakeVolume, Kept
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.storage.base import SeedSpec, VolumeSpec

_SECTOR = bytes(510) + b"\x55\xaa"
_MAGIC = b'{"simulated disk": '
_SMALL_BYTES = 2**22  # larger files are not looked into
_PIECES, _PIECE_BYTES = 4, 2**18  # a piece is at most so large
_KEPT = "rootfs/kept"  # a container's file


def pack_volume(volume: FakeVolume, *, whole: bool = False, since: str = "") -> bytes:
    """Return a volume's file. whole: without its image below and without snapshots, as a backup is."""
    spec = None if whole or volume.spec is None else asdict(volume.spec)
    kept = {} if whole else {name: asdict(one) for name, one in sorted(volume.snapshots.items())}
    facts = {
        "name": volume.name, "size_mib": volume.size_mib, "content": volume.content, "spec": spec, "snapshots": kept,
        "since": since,
    }  # fmt: skip
    return _SECTOR + _MAGIC + json.dumps(facts, sort_keys=True).encode() + b"}\n"


def unpack_volume(data: bytes) -> FakeVolume | None:
    """Return the volume of a file, None if it is none."""
    start = data.find(_MAGIC)
    if start < 0:
        return None
    facts = _facts(data[start:])
    return FakeVolume(
        facts["name"], facts["size_mib"], VolumeSpec(**facts["spec"]) if facts["spec"] else None, facts["content"],
        {name: Kept(**kept) for name, kept in facts["snapshots"].items()},
    )  # fmt: skip


def since_of(data: bytes) -> str:
    """Return the checkpoint that a backed up disk goes on from, "" for a whole one."""
    return str(_facts(data[data.find(_MAGIC) :])["since"])


def _facts(data: bytes) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads(data.split(b"\n", 1)[0])["simulated disk"]
    return facts


def content_of_image(path: Path, sha256: str) -> str:
    """Return what a new volume of an image holds: a simulated disk's content, else a token of its own."""
    if path.is_file() and path.stat().st_size <= _SMALL_BYTES:
        data = path.read_bytes()
        volume = unpack_volume(data)
        kept = volume.content if volume is not None else content_of_archive(data)
        if kept:
            return kept
    return f"image {sha256[:12]}"


def pack_seed(seed: SeedSpec) -> bytes:
    """Return a seed's file."""
    return json.dumps(asdict(seed), sort_keys=True).encode()


def unpack_seed(data: bytes) -> SeedSpec:
    """Return the seed of a file."""
    return SeedSpec(**json.loads(data))


def pack_memory(memory: str, disks: dict[str, str]) -> bytes:
    """Return a file of saved memory; disks: their contents then."""
    return json.dumps({"memory": memory, "disks": disks}, sort_keys=True).encode()


def unpack_memory(data: bytes) -> tuple[str, dict[str, str]]:
    """Return the memory and the contents of the disks."""
    facts = json.loads(data)
    return facts["memory"], facts["disks"]


def pack_instance(instance: FakeInstance) -> bytes:
    """Return a container's archive: its definition and the disks that the hypervisor holds."""
    disks = {name: pack_volume(volume).decode("latin-1") for name, volume in instance.own.items()}
    spec = asdict(instance.spec) if instance.spec else None
    return json.dumps({"name": instance.name, "spec": spec, "disks": disks}, sort_keys=True).encode()


def unpack_instance(data: bytes) -> FakeInstance:
    """Return the container of an archive, off."""
    facts = json.loads(data)
    spec = _spec(facts["spec"])
    volumes = {name: unpack_volume(text.encode("latin-1")) for name, text in facts["disks"].items()}
    own = {name: volume for name, volume in volumes.items() if volume is not None}
    return FakeInstance(facts["name"], spec.kind, spec, own=own)


def _spec(facts: dict[str, Any]) -> InstanceSpec:
    disks = tuple(DiskAttachment(**disk) for disk in facts.pop("disks"))
    nics = tuple(NicAttachment(**{**nic, "nameservers": tuple(nic["nameservers"])}) for nic in facts.pop("nics"))
    pairs: dict[str, Any] = {name: tuple(map(tuple, facts.pop(name))) for name in ("labels", "options")}
    keys = tuple(facts.pop("ssh_keys"))
    kind = InstanceKind(facts.pop("kind"))
    return InstanceSpec(**facts, kind=kind, disks=disks, nics=nics, ssh_keys=keys, **pairs)


def pack_image(root: FakeVolume) -> bytes:
    """Return an image of a container as LXD takes it: a tarball with metadata.yaml and rootfs/."""
    files = {"metadata.yaml": b"architecture: x86_64\ncreation_date: 1700000000\n", _KEPT: root.content.encode()}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w:gz", compresslevel=1) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def content_of_archive(data: bytes) -> str:
    """Return what a container's image holds, "" for one that was made elsewhere."""
    try:
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            kept = tar.extractfile(_KEPT)
            return kept.read().decode() if kept else ""
    except (tarfile.TarError, KeyError):
        return ""


async def pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    """Yield data in a few pieces: where it can be interrupted."""
    size = max(1, min(_PIECE_BYTES, -(-len(data) // _PIECES)))
    for start in range(0, len(data), size):
        yield data[start : start + size]
