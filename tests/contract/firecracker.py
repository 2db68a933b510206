"""A host for microVMs: a network namespace of this machine with a bridge, its own SSH server, and the lab's shim.

With RACKFLOW_FIRECRACKER=USER@ADDRESS[:PORT] and RACKFLOW_FIRECRACKER_KEY, a private key, the same tests run on a real
host where `firecracker` is installed: scripts/firecracker. What they need else they bring along and take away again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpcore
import pytest

from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import InstanceKind
from drivers.firecracker_host import RawStorage
from drivers.hypervisor import firecracker_scripts as scripts
from drivers.hypervisor.base import Capabilities, ExecResult, InstanceSpec
from drivers.hypervisor.firecracker import FirecrackerHypervisor
from drivers.hypervisor.firecracker_api import FirecrackerApi
from drivers.hypervisor.firecracker_place import Place
from drivers.hypervisor.powers import Executes
from drivers.network.base import NetworkSpec, NicSpec
from drivers.network.bridge import BridgeNetwork
from drivers.storage.base import ImageFile, VolumeSpec
from drivers.storage.seed import seed_texts
from drivers.transport.base import Endpoint, Result, Transport
from drivers.transport.hostkey import scan_host_key
from drivers.transport.ssh import connect
from lab.images import TINY, TINY_INITRD, TINY_KERNEL, build, image_path
from lab.settings import load
from tests.contract import firecracker_api
from tests.integration.sshd import sshd

ROOT = Path(__file__).resolve().parents[2]
SHIM, SHIM_JAILER = ROOT / "lab/firecracker/firecracker", ROOT / "lab/firecracker/jailer"
BRIDGE, NET = "rfself0", "10.99.0"
LAN = NetworkSpec("lan", "bridge", BRIDGE)
KERNEL = "tiny"
BOOT_ARGS = "root=/dev/vda1 rw quiet tsc=reliable no_timer_check mitigations=off"
REAL = os.environ.get("RACKFLOW_FIRECRACKER", "")


@dataclass
class MicroVms:
    """Makes microVMs on one host whose disks are there, and takes them away by other means than the driver's."""

    transport: Transport
    place: Place
    folder: str
    key: Path
    image: ImageFile | None  # None: their disks are blank, so that their kernels find nothing to go on with
    made: list[str] = field(default_factory=list)

    @property
    def storage(self) -> RawStorage:
        return RawStorage(self.transport, f"{self.folder}/store")

    async def new(self) -> InstanceSpec:
        """Return the spec of a microVM whose disks are there."""
        instance_id, number = new_id(), len(self.made) + 10
        self.made.append(instance_id)
        size_mib, content = (0, self.image.sha256) if self.image else (8, "")
        root = await self.storage.ensure_volume(VolumeSpec(instance_id, "root", size_mib, content))
        network = BridgeNetwork(self.transport)
        nic = await network.ensure_nic(LAN, NicSpec(0, mac_address(instance_id, 0), f"{NET}.{number}/24"))
        seed = await self.storage.ensure_seed(seed_texts(
            instance_id=instance_id, hostname=f"vm-{number}", ssh_keys=[self.key.with_suffix(".pub").read_text()],
            user_data="", nics=[nic],
        ))  # fmt: skip
        return InstanceSpec(
            instance_id, on_host(instance_id), f"vm-{number}", InstanceKind.VM, 1, 128, (root, seed), (nic,),
            options=(("kernel", KERNEL), ("boot_args", BOOT_ARGS)),
        )  # fmt: skip

    def address(self, name: str) -> str:
        """Return the address of one that was made here."""
        return f"{NET}.{[on_host(one) for one in self.made].index(name) + 10}"

    @staticmethod
    def broken(spec: InstanceSpec) -> InstanceSpec:
        root, *others = spec.disks
        return replace(spec, disks=(replace(root, source=f"{root.source}.gone"), *others))

    async def take_name(self, name: str) -> None:
        """Let there be a microVM that is not ours."""
        folder = self.place.definition(name)
        await self.transport.run(["mkdir", "-p", folder], sudo=True)
        await self.transport.put(b'{"name":"theirs"}', f"{folder}/definition.json", sudo=True)

    async def file_bytes(self, path: str) -> int:
        found = await self.transport.run(["stat", "-c", "%s", path], sudo=True, check=False)
        return int(found.stdout) if found.exit_code == 0 else 0

    async def left_of(self, spec: InstanceSpec) -> list[str]:
        """Return taps and folders of a microVM."""
        taps = await BridgeNetwork(self.transport).interfaces_of([nic.mac for nic in spec.nics])
        folders = [self.place.definition(spec.name), self.place.running(spec.name)]
        found = await self.transport.run(["ls", "-d", *folders], sudo=True, check=False)
        return [*taps, *found.stdout.split()]

    async def clean(self) -> None:
        """Take away whatever was made, by other means than the driver's."""
        script = """for vm in "$1"/*; do
          [ ! -e "$vm/pid" ] || { read -r s _ v _ <"$vm/pid"; kill -KILL "$v" "$s"; }
          [ ! -e "$vm/taps" ] || while read -r tap; do ip link del "$tap"; done <"$vm/taps"
        done 2>/dev/null; ip link del "$3" 2>/dev/null; rm -rf --one-file-system "$1" "$2"/*; rmdir "$2" """
        words = [self.place.run, self.folder, BRIDGE]
        await self.transport.run(["sh", "-c", script, "sh", *words], sudo=True, check=False)


class CheckedApi(FirecrackerApi):
    """Requests of which each, and each answer, is one of Firecracker's API as it is published."""

    async def call(self, socket: str, method: str, path: str, body: Any = None, **more: Any) -> Any:
        firecracker_api.check(method, path, body)
        return await super().call(socket, method, path, body, **more)

    def _result(self, answer: httpcore.Response, request: str, subject: str, doing: str) -> Any:
        firecracker_api.check_answer(*request.split(), answer.status, answer.content)
        return super()._result(answer, request, subject, doing)


class Checked(FirecrackerHypervisor):
    """The driver, all of whose requests are held against that API, and the configuration that it starts a VMM with."""

    def __init__(self, transport: Transport, settings: DriverSettings, place: Place | None = None) -> None:
        super().__init__(transport, settings, place)
        self._api = CheckedApi(transport)

    async def _script(self, script: str, *words: str, stdin: bytes = b"", **more: Any) -> Result:
        if script == scripts.START:
            firecracker_api.check_configuration(json.loads(stdin.splitlines()[1]))
        return await super()._script(script, *words, stdin=stdin, **more)


class SeenInside(Checked, Executes):
    """The driver with a way in that tests have and it has not: SSH to the guest, from its host."""

    vms: MicroVms

    async def capabilities(self) -> Capabilities:
        return replace(await super().capabilities(), exec=True)

    async def exec(
        self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b""
    ) -> ExecResult:
        await self._known(name)
        await self._running(name)
        quoted = " ".join("'" + word.replace("'", "'\\''") + "'" for word in argv)
        ssh = ["ssh", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
               "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=5", "-i", f"{self.vms.folder}/key"]  # fmt: skip
        found = await self._transport.run(
            [*ssh, f"root@{self.vms.address(name)}", quoted], stdin=stdin, timeout_s=timeout_s, sudo=True, check=False
        )
        return ExecResult(found.exit_code, found.stdout, found.stderr if found.exit_code == 255 else "")

    async def ready(self, name: str) -> None:
        """Wait until the guest has booted."""
        async with asyncio.timeout(120):
            while (await self.exec(name, ["true"])).exit_code != 0:
                await asyncio.sleep(0.5)


def _tiny() -> ImageFile:
    settings = load()
    build(settings, "tiny")
    path = image_path(settings, TINY)
    content = path.read_bytes()
    return ImageFile(hashlib.sha256(content).hexdigest(), "qcow2", len(content), path)


def _run(*words: str) -> None:
    subprocess.run(words, check=True)


@asynccontextmanager
async def _namespace(folder: Path) -> AsyncIterator[Endpoint]:
    """Serve SSH whose commands run in a namespace of their own."""
    name, keys = f"rffc-{os.getpid()}", folder / "ssh"
    keys.mkdir()
    enter = ["nsenter", f"--net=/run/netns/{name}"]
    _run("ip", "netns", "add", name)
    try:
        _run(*enter, "ip", "link", "set", "lo", "up")
        async with sshd(keys, prefix=enter) as endpoint:
            yield endpoint
    finally:
        _run("ip", "netns", "del", name)


@asynccontextmanager
async def _real() -> AsyncIterator[Endpoint]:
    user, _, where = REAL.rpartition("@")
    address, _, port = where.partition(":")
    key, file = await scan_host_key(address, int(port or 22)), Path(os.environ["RACKFLOW_FIRECRACKER_KEY"])
    yield Endpoint("real", address, int(port or 22), user or "root", file, key.public)


def _place(folder: str, *, jailed: bool) -> Place:
    jail = {"jailer": str(SHIM_JAILER), "jails": f"{folder}/jails", "user": "0:0"} if jailed else {}
    return Place(f"{folder}/state", f"{folder}/run", f"{folder}/kernels", "firecracker" if REAL else str(SHIM), **jail)


async def _equip(vms: MicroVms) -> None:
    """Give the host a bridge, the lab's kernel and the key of the guests."""
    script = """set -e; mkdir -p "$1"
        ip link add "$2" type bridge; ip address add "$3" dev "$2"; ip link set "$2" up"""
    words = [vms.place.kernel(KERNEL), BRIDGE, f"{NET}.1/24"]
    await vms.transport.run(["sh", "-c", script, "sh", *words], sudo=True)
    for name, file in (("vmlinux", TINY_KERNEL), ("initrd", TINY_INITRD)):
        path, target = image_path(load(), file), f"{vms.place.kernel(KERNEL)}/{name}"
        if REAL:
            await vms.transport.put(path, target, sudo=True)
        else:
            await vms.transport.run(["ln", "-s", str(path), target])
    if REAL:
        await vms.transport.put(vms.key, f"{vms.folder}/key", mode=0o600, sudo=True)
    await vms.storage.prepare()


@asynccontextmanager
async def micro_vms(*, boot: bool, jailed: bool = False) -> AsyncIterator[MicroVms]:
    """Connect to a host for microVMs, and leave it as it was. boot: they have a system on their disks."""
    if not REAL and (os.geteuid() != 0 or shutil.which("qemu-system-x86_64") is None):
        pytest.skip("the shim of Firecracker needs root and qemu-system-x86_64")
    if REAL and jailed:
        pytest.skip("the jail is tested on the shim")
    image = await asyncio.to_thread(_tiny)
    with tempfile.TemporaryDirectory(prefix="rffc-", dir="/var/tmp") as name:  # sockets want short paths
        folder = Path(name)
        async with (
            _real() if REAL else _namespace(folder) as endpoint, _connected(folder, endpoint, image, jailed) as found
        ):  # fmt: skip
            if boot:
                await found.storage.ensure_image(image)
            yield found if boot else replace(found, image=None)


@asynccontextmanager
async def _connected(folder: Path, endpoint: Endpoint, image: ImageFile, jailed: bool) -> AsyncIterator[MicroVms]:
    key = folder / "key"
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key))
    there = "/var/lib/rackflow-self-test" if REAL else str(folder)
    transport = await connect(endpoint, DriverSettings())
    vms = MicroVms(transport, _place(there, jailed=jailed), there, key, image)
    try:
        await _equip(vms)
        yield vms
    finally:
        await vms.clean()
        await transport.close()


def hypervisor(vms: MicroVms) -> SeenInside:
    """Return the driver of a host, with a way into its guests."""
    found = SeenInside(vms.transport, DriverSettings(), vms.place)
    found.vms = vms
    return found
