"""A machine room on one Linux machine: servers with BMCs, the network they boot from, Ironic and Inspector."""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from core.errors import NeedsOperator
from lab import images
from lab.baremetal.libvirt import Libvirt, Server
from lab.baremetal.pxe import BRIDGE, PxeNetwork
from lab.baremetal.services import USER, Services, free_ports
from lab.settings import LabSettings
from lab.shell import run

NET = "198.19.50"
READY = "site.json"  # what `describe` returns stands there while it is up
_ROM = Path("/usr/lib/ipxe/qemu/pxe-virtio.rom")
_ROLES: dict[str, dict[str, object]] = {
    "": {},
    "lxd": {"role": "lxd", "bridges": [{"name": "lxcbr0", "address": "198.19.60.1/24"}]},
    "kvm": {"role": "kvm", "bridges": [{"name": "br0", "address": "198.19.60.1/24"}]},
}
_SPACE = uuid.UUID("7c1b2c7e-7d52-4d1c-9d53-0f4b1d4b9a10")


def servers(count: int) -> tuple[Server, ...]:
    """Return servers s1, s2, …, the same ones each time."""
    return tuple(
        Server(f"s{n}", str(uuid.uuid5(_SPACE, str(n))), f"52:54:00:72:66:{n:02x}") for n in range(1, count + 1)
    )


def folder(settings: LabSettings) -> Path:
    """Return where a machine room lies; not in the lab's folder, so that neither takes the other for its leftovers."""
    return settings.dir.with_name(f"{settings.dir.name}-baremetal")


@dataclass
class Site:
    """All of it lies in a folder beside the lab's. Nothing of it outlives `stop`, but what is kept in the cache."""

    settings: LabSettings
    servers: Sequence[Server] = field(default_factory=lambda: servers(1))
    arguments: str = ""  # more for the ramdisk's kernel
    role: str = ""  # lxd or kvm: what `describe` says that the servers become; "": left open

    def __post_init__(self) -> None:
        self.dir = folder(self.settings)
        self.libvirt = Libvirt(self.dir / "libvirt")
        self.pxe = PxeNetwork(self.dir / "pxe", NET, free_ports("pxe")["pxe"])
        self.services = Services(
            self.dir / "services", libvirt=self.libvirt.uri, reached_at=self.pxe.address,
            served=(self.pxe.dir, self.pxe.http),
        )  # fmt: skip

    @property
    def key(self) -> Path:
        """Return the private key that enters the ramdisk."""
        return self.dir / "id_ed25519"

    @cached_property
    def ramdisk_key(self) -> str:
        """Return the ramdisk's public host key."""
        return " ".join((self.dir / "ramdisk_key.pub").read_text().split()[:2])

    @cached_property
    def image(self) -> tuple[str, str]:
        """Return the address and the checksum of the image of a server's disk; it is built on its first use."""
        images.build(self.settings, "hypervisor")
        path = images.image_path(self.settings, images.HYPERVISOR)
        with path.open("rb") as content:
            return self.pxe.offer(path), hashlib.file_digest(content, "sha256").hexdigest()

    def unpacked(self) -> tuple[str, str]:
        """Return the same of that image as Ironic takes it, and offer Ironic's agent; both are built on first use."""
        for name in ("hypervisor", "agent"):
            images.build(self.settings, name)
        for file in images.AGENT:
            self.pxe.offer(images.image_path(self.settings, file))
        raw = self.pxe.dir / "hypervisor.raw"
        run(["zstd", "-q", "-d", "-f", str(images.image_path(self.settings, images.HYPERVISOR)), "-o", str(raw)])
        with raw.open("rb") as content:
            return f"{self.pxe.http}/{raw.name}", hashlib.file_digest(content, "sha256").hexdigest()

    def start(self) -> None:
        """Start all of it. Raise HostFault; then nothing of it runs."""
        if not _ROM.exists():
            fix = "apt-get install --no-install-recommends ipxe-qemu"
            seen = {"missing": str(_ROM)}
            raise NeedsOperator("emulated servers cannot boot from the network here", "lab", seen, fix)
        images.build(self.settings, "ramdisk")
        self.dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        try:
            self.pxe.bridge_up()
            self._serve()
            self.libvirt.start()
            self.libvirt.define(self.servers, BRIDGE)
            self.services.start()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all of it, whatever of it runs; the servers' disks stay."""
        self.services.stop()
        self.libvirt.stop()
        self.pxe.stop()

    def _serve(self) -> None:
        for name in ("id_ed25519", "ramdisk_key"):
            if not (self.dir / name).exists():
                run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.dir / name)])
        callback = f"ipa-inspection-callback-url={self.services.url('inspector')}/v1/continue"
        kernel, ramdisk = (images.image_path(self.settings, name) for name in images.RAMDISK)
        access = {"etc/hostkey": self.dir / "ramdisk_key", "root/.ssh/authorized_keys": self.key.with_suffix(".pub")}
        self.pxe.serve(kernel, ramdisk, access, f"{callback} {self.arguments}".strip())

    def machine(self, server: Server) -> dict[str, object]:
        """Return a server as `rackflow enroll` takes it, but for its installation and for what it becomes."""
        password = self.dir / "bmc.password"
        password.write_text(self.services.password + "\n")
        password.chmod(0o600)
        return {
            "name": server.name, "bmc": f"ironic+{self.services.url('ironic')}", "user": USER,
            "password_file": str(password),
            "node": {
                "inspector": self.services.url("inspector"), "driver": "redfish", "address": self.services.url("bmc"),
                "system": f"/redfish/v1/Systems/{server.uuid}", "user": USER, "password_file": str(password),
                "macs": [server.mac],
            },
            "host": {"key_file": str(self.key), **_ROLES[self.role]},
        }  # fmt: skip

    def installed_by(self, server: Server, image: str, sha256: str) -> dict[str, object]:
        """Return how a server is installed from an image, with an address of its own."""
        address = f"{NET}.{10 + int(server.mac[-2:], 16)}/24"
        return {"image": image, "sha256": sha256, "address": address, "ramdisk_key": self.ramdisk_key}

    def describe(self) -> str:
        """Return it as JSON, for whoever comes later."""
        found = [{**self.machine(one), "install": self.installed_by(one, *self.image)} for one in self.servers]
        return json.dumps({"machines": found}, indent=2)
