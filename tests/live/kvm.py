"""A KVM host of the lab, as the tests of its drivers use it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from blueprints.blueprint import load
from core.errors import Busy, RackflowError
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind
from drivers.hosts import Host, connect
from drivers.hypervisor.base import ExecResult, InstanceSpec
from drivers.hypervisor.kvm import KvmHypervisor
from drivers.network.base import NetworkSpec, NicSpec
from drivers.storage.base import ImageFile, VolumeSpec
from drivers.storage.seed import seed_texts
from tests.labs import Lab

DATASTORE = "/var/lib/rackflow-test/vms"
LAN = NetworkSpec("lan", "bridge", "br0")


def tiny(lab: Lab) -> ImageFile:
    """Return the lab's VM image."""
    path = next(Path(image.source) for image in load(lab.blueprint).images if image.name == "tiny")
    content = path.read_bytes()
    return ImageFile(hashlib.sha256(content).hexdigest(), "qcow2", len(content), path)


@dataclass
class KvmHost:
    """Makes VMs, and takes them away."""

    lab: Lab
    host: Host
    made: list[str] = field(default_factory=list)

    @property
    def hypervisor(self) -> KvmHypervisor:
        assert isinstance(self.host.hypervisor, KvmHypervisor)
        return self.host.hypervisor

    async def new(self, *, address: str = "", user_data: str = "", datastore: str = DATASTORE) -> InstanceSpec:
        """Return the spec of a tiny VM whose disks are there."""
        storage, image, instance_id = self.host.storage(datastore), tiny(self.lab), new_id()
        await storage.prepare()
        await storage.ensure_image(image)
        self.made.append(instance_id)
        root = await storage.ensure_volume(VolumeSpec(instance_id, "root", 0, image.sha256, image.format))
        nic = await self.host.network.ensure_nic(LAN, NicSpec(0, mac_address(instance_id, 0), address))
        seed = await storage.ensure_seed(seed_texts(
            instance_id=instance_id, hostname=f"vm-{instance_id[-4:]}", ssh_keys=[self.public_key()],
            user_data=user_data, nics=[nic],
        ))  # fmt: skip
        return InstanceSpec(
            instance_id, on_host(instance_id), "vm", InstanceKind.VM, 1, 128, (root, seed), (nic,)
        )

    def public_key(self) -> str:
        return self.lab.key.with_suffix(".pub").read_text().strip()

    @staticmethod
    def broken(spec: InstanceSpec) -> InstanceSpec:
        root, *others = spec.disks
        return replace(spec, disks=(replace(root, source=f"{root.source}.gone"), *others))

    async def take_name(self, name: str) -> None:
        """Define a domain by hand."""
        xml = f"<domain type='qemu'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os></domain>"
        await self.host.transport.run(["virsh", "-q", "define", "/dev/stdin"], stdin=xml.encode())

    async def exec(self, name: str, *argv: str, within_s: float = 60) -> ExecResult:
        """Run a command as soon as the guest's agent answers."""
        async with asyncio.timeout(within_s):
            while True:
                try:
                    return await self.hypervisor.exec(name, argv)
                except Busy:
                    await asyncio.sleep(0.5)

    async def ready(self, name: str) -> None:
        await self.exec(name, "true")

    async def clean(self) -> None:
        """Take away whatever was made, by other means than the driver's."""
        names = [on_host(instance_id) for instance_id in self.made]
        for name in names:
            for verb in (["destroy"], ["undefine", "--snapshots-metadata", "--checkpoints-metadata"]):
                await self.host.transport.run(["virsh", "-q", *verb, name], check=False)
        for instance_id in self.made:
            await self.host.transport.run(["rm", "-rf", f"{DATASTORE}/instances/{instance_id}"])


@asynccontextmanager
async def kvm_host(lab: Lab, name: str, settings: DriverSettings | None = None) -> AsyncIterator[KvmHost]:
    """Connect to a KVM host of the lab, and leave it as it was."""
    host = await connect("kvm", lab.endpoint(name), settings or DriverSettings())
    found = KvmHost(lab, host)
    try:
        yield found
    finally:
        if not host.transport.is_alive():
            with suppress(RackflowError):
                await host.close()
            host = found.host = await connect("kvm", lab.endpoint(name), DriverSettings())
        await found.clean()
        await host.close()
