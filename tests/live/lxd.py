"""An LXD host of the lab, as the tests of its driver use it."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import tarfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Any

import yaml

from core.ids import PREFIX, mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind
from drivers.hosts import Host, connect
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from drivers.hypervisor.lxd import LxdHypervisor
from drivers.hypervisor.lxd_scripts import SPOOL
from drivers.storage.base import ImageFile
from tests.labs import Lab

STORE = "/var/lib/rackflow/lxd-tests"
_last_octets = itertools.cycle(range(100, 250))
all_made: list[str] = []


@dataclass
class LxdRig:
    """One prepared host, and what this test made on it."""

    host: Host
    bridge: IPv4Interface
    image: ImageFile
    made: list[str] = field(default_factory=list)

    @property
    def lxd(self) -> LxdHypervisor:
        assert isinstance(self.host.hypervisor, LxdHypervisor)
        return self.host.hypervisor

    def spec(self, **changes: Any) -> InstanceSpec:
        """Return a container's spec with an address behind the host's bridge."""
        instance_id = new_id()
        address = f"{self.bridge.network.network_address + next(_last_octets)}/{self.bridge.network.prefixlen}"
        nic = NicAttachment("eth0", mac_address(instance_id, 0), "lxcbr0", address=address)
        root = DiskAttachment("root", "pool", "default", "raw", image_fingerprint=self.image.sha256)
        self.made.append(on_host(instance_id))
        all_made.append(on_host(instance_id))
        plain = InstanceSpec(
            instance_id, on_host(instance_id), "web", InstanceKind.CONTAINER, 0.5, 64, (root,), (nic,)
        )
        return replace(plain, **changes)

    async def lxc(self, *words: str, check: bool = True) -> str:
        """Run the host's own client."""
        return (await self.host.transport.run(["lxc", *words], check=check)).stdout

    async def addresses(self, name: str, timeout_s: float = 10.0) -> tuple[str, ...]:
        """Wait until a container has an address."""
        until = time.monotonic() + timeout_s
        while time.monotonic() < until:
            if found := (await self.lxd.observe(name)).addresses:
                return found
            await asyncio.sleep(0.1)
        return ()

    async def clear(self) -> None:
        """Take away all that bears the name of what was made, by other means than the driver's."""
        mine = tuple(self.made)
        spools = [f"{SPOOL}/{name.removeprefix(PREFIX)}" for name in self.made]
        await self.host.transport.run(["rm", "-rf", *spools])
        for name in (await self.lxc("list", "--format", "csv", "--columns", "n")).split():
            if mine and name.startswith(mine):
                await self.lxc("delete", "--force", name, check=False)
        for volume in await self.volumes():
            if mine and volume.startswith(mine):
                await self.lxc("storage", "volume", "delete", "default", volume, check=False)

    async def volumes(self) -> list[str]:
        """Return the names of further disks."""
        found = json.loads(await self.lxc("storage", "volume", "list", "default", "--format", "json"))
        return [volume["name"] for volume in found if volume["type"] == "custom"]


@asynccontextmanager
async def lxd_rig(lab: Lab, name: str) -> AsyncIterator[LxdRig]:
    """Connect to an LXD host of the lab that has its bridge and the lab's image; take away what was made."""
    blueprint = yaml.safe_load(lab.blueprint.read_text())
    bridge = next(h for h in blueprint["hosts"] if h["name"] == name)["bridges"][0]
    image = next(i for i in blueprint["images"] if i["kind"] == "container")
    path = Path(image["source"])
    host = await connect("lxd", lab.endpoint(name), DriverSettings())
    file = ImageFile(image["sha256"], "tar", len(await asyncio.to_thread(path.read_bytes)), path)
    found = LxdRig(host, IPv4Interface(bridge["address"]), file)
    await found.lxd.prepare(bridges=[(bridge["name"], bridge["address"])])
    await stage(found, file)
    try:
        yield found
    finally:
        await found.clear()
        await found.host.close()


async def stage(rig: LxdRig, image: ImageFile) -> None:
    """Bring an image to the host as the tasks do."""
    if image.sha256 not in [one.fingerprint for one in await rig.lxd.images()]:
        store = rig.host.storage(STORE)
        await store.prepare()
        await store.ensure_image(image)
        await rig.lxd.import_image(store.image_path(image.sha256, "tar"), image.sha256, name="busybox")
        await store.delete_image(image.sha256)


async def until(holds: Callable[[], Awaitable[bool]], timeout_s: float = 20.0) -> None:
    end = time.monotonic() + timeout_s
    while not await holds():
        assert time.monotonic() < end, "it did not come to hold"
        await asyncio.sleep(0.02)


def tarball(size_mib: int) -> bytes:
    """Return a gzipped image: busybox of this machine, and a file /large of zeros."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        add(tar, "metadata.yaml", b"architecture: x86_64\ncreation_date: 1700000000\n")
        add(tar, "rootfs/bin/busybox", Path("/bin/busybox").read_bytes(), 0o755)
        for folder in ("dev", "etc", "proc", "sys", "tmp", "sbin", "run"):
            entry = tarfile.TarInfo(f"rootfs/{folder}")
            entry.type, entry.mode = tarfile.DIRTYPE, 0o755
            tar.addfile(entry)
        for link in ("sbin/init", "bin/sh", "bin/stat"):
            entry = tarfile.TarInfo(f"rootfs/{link}")
            entry.type, entry.linkname = tarfile.SYMTYPE, "/bin/busybox"
            tar.addfile(entry)
        add(tar, "rootfs/large", bytes(size_mib * 2**20))
    return out.getvalue()


def add(tar: tarfile.TarFile, name: str, data: bytes, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    tar.addfile(entry, io.BytesIO(data))
