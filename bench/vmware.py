"""VMware: the inventory of a large vCenter, and disks on their way, against the simulator of `lab/vcsim`.

1,000 hosts and 10,000 VMs in ten clusters, each a host of rackflow: the first look at all of them, one when nothing has
changed, one after 100 VMs changed; the requests that each took, as the simulator counts them; beside the first one what
pyvmomi alone takes to read the same properties. Then an image and a disk, each small and large: how much this process
grows at its peak while they are converted and sent, apart from qemu-img's own processes.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psutil
from pyVmomi import vim

from bench.cloud import say
from core.ids import new_id
from core.settings import DriverSettings
from core.states import PowerState
from drivers.hypervisor.base import ObservedInstance
from drivers.hypervisor.esxi import EsxiHypervisor, hypervisor_of
from drivers.hypervisor.esxi_inventory import KEPT
from drivers.storage.base import ImageFile, SeedSpec, VolumeSpec
from drivers.storage.reshape import fitting
from drivers.storage.vault import Vault
from drivers.storage.vmfs import VmfsStorage
from drivers.transport.base import Endpoint
from drivers.transport.certificate import KIND, pinned_context, scan_certificate
from drivers.transport.vsphere import VsphereTransport, connect
from drivers.transport.vsphere_place import all_of, read

BINARY = os.environ.get("RACKFLOW_VCSIM") or str(Path(sys.prefix) / "bin" / "vcsim")
CLUSTER = "DC0/DC0_C{}"
SETTINGS = DriverSettings(command_timeout_s=600.0)
CLUSTERS = 10
CHANGED = 100
ROUNDS = 3
MIB = 2**20
BOUND_MIB = 64


@contextmanager
def simulator(folder: Path, *options: str) -> Iterator[Endpoint]:
    """Run a vCenter. Raise RuntimeError when it does not come up."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    env = {**os.environ, "TMPDIR": str(folder)}  # where its datastores lie
    with subprocess.Popen([BINARY, *options], text=True, env=env, **pipes) as process:  # type: ignore[call-overload]
        try:
            words = process.stdout.readline().split()
            if words[:1] != ["READY"]:
                raise RuntimeError("vcsim did not come up")
            key, port = folder / "password", int(words[1].rpartition(":")[2])
            key.write_text("pass\n")
            _, thumbprint = scan_certificate("127.0.0.1", port)
            yield Endpoint("v1", "127.0.0.1", port, "user", key, f"{KIND} {thumbprint}", CLUSTER.format(0))
        finally:
            process.terminate()


@asynccontextmanager
async def session(endpoint: Endpoint) -> AsyncIterator[VsphereTransport]:
    """Log in, and out again."""
    transport = await connect(endpoint, SETTINGS)
    try:
        yield transport
    finally:
        await transport.close()


@dataclass
class Cost:
    """What something took of this process."""

    wall_s: float
    cpu_s: float
    grown_mib: float
    requests: int = 0


def _memory_mib(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))


async def cost(work: Callable[[], Awaitable[Any]]) -> tuple[Any, Cost]:
    """Run work; return what it gave, and its cost: at its peak, against what was there before."""
    await asyncio.to_thread(Path("/proc/self/clear_refs").write_text, "5")  # the peak counts from here
    before, wall, cpu = _memory_mib("VmRSS"), time.monotonic(), time.process_time()
    found = await work()
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return found, Cost(round(wall, 3), round(cpu, 3), round(_memory_mib("VmHWM") - before, 1))


# -- the inventory


async def inventory(endpoint: Endpoint, vms: int) -> dict[str, Any]:
    """Look at a vCenter by its clusters, each of them a host. Raise RuntimeError if something is missed."""
    async with AsyncExitStack() as stack:
        places = [replace(endpoint, name=f"v{n}", place=CLUSTER.format(n)) for n in range(CLUSTERS)]
        transports = [await stack.enter_async_context(session(one)) for one in places]
        look = Look(endpoint, [hypervisor_of(one) for one in transports])
        found, first = await look.at_all()
        _require(vms, "VMs", [one for one in found if one.power is PowerState.STOPPED])
        quiet = [(await look.at_all())[1] for _ in range(ROUNDS)]
        await _turn_on(transports[0], [one.name for one in found if one.name.startswith("DC0_C0_")][:CHANGED])
        found, changed = await look.at_all()
        _require(CHANGED, "changes", [one for one in found if one.power is PowerState.RUNNING])
        count, bare = await transports[0].call("reading", lambda c: _bare(c, transports[0].place.vm_folder))
        if count != vms:
            raise RuntimeError(f"the simulator has {count} VMs, not {vms}")
    fastest = min(quiet, key=lambda one: one.cpu_s)
    figures = {"first": first, "unchanged": fastest, f"changed_{CHANGED}": changed}
    return {
        **{f"{word}_{name}": value for word, one in figures.items() for name, value in vars(one).items()},
        "bare_read_cpu_s": bare,
    }


@dataclass
class Look:
    """All hosts, looked at one after the other, and what that took of the server."""

    endpoint: Endpoint
    hypervisors: Sequence[EsxiHypervisor]

    async def at_all(self) -> tuple[list[ObservedInstance], Cost]:
        """Return all VMs and the cost."""
        before = await asyncio.to_thread(self._calls)
        found, spent = await cost(self._instances)
        made = await asyncio.to_thread(self._calls) - before
        spent.requests = made.total()
        say(f"{dict(made)}, {spent}")
        return found, spent

    async def _instances(self) -> list[ObservedInstance]:
        return [vm for one in self.hypervisors for vm in await one.instances()]

    def _calls(self) -> Counter[str]:
        """Return how often each method was called on the server."""
        at = self.endpoint
        context = pinned_context(at.address, at.port, at.host_key, at.name, 5.0)
        with urlopen(f"https://{at.address}:{at.port}/_ctl?calls", timeout=60, context=context) as answer:
            return Counter(json.load(answer))


def _require(wanted: int, what: str, found: Sequence[ObservedInstance]) -> None:
    if len(found) != wanted:
        raise RuntimeError(f"{len(found)} of {wanted} {what} are seen")


async def _turn_on(transport: VsphereTransport, names: list[str]) -> None:
    wanted = set(names)

    def work(content: Any) -> None:
        found = all_of(content, transport.place.vm_folder, [vim.VirtualMachine], ["name"])
        tasks = [one.PowerOnVM_Task(None) for one, values in found if values["name"] in wanted]
        while any(values["info.state"] in ("queued", "running") for _, values in read(content, tasks, ["info.state"])):
            time.sleep(0.2)

    await transport.call("turning on VMs of", work)


def _bare(content: Any, folder: Any) -> tuple[int, float]:
    """Return how many VMs there are, and the CPU seconds in which pyvmomi alone reads the same of all of them."""
    before = time.thread_time()
    found = all_of(content, folder, [vim.VirtualMachine], list(KEPT))
    return len(found), round(time.thread_time() - before, 3)


# -- disks on their way


async def disks(endpoint: Endpoint, folder: Path, size_mib: int) -> dict[str, float]:
    """Send an image, then carry a disk of it to the vault and on, converted; return what this process grew, in MiB."""
    image = await asyncio.to_thread(_image, folder, size_mib)
    work, instance_id = folder / "work", new_id()
    async with session(endpoint) as transport:
        store = VmfsStorage(transport, f"[LocalDS_0] bench-{size_mib}")
        await store.prepare()
        _, sent = await cost(lambda: store.ensure_image(image))
        await store.ensure_volume(VolumeSpec(instance_id, "root", 0, image.sha256, image.format))
        await store.ensure_seed(SeedSpec(instance_id, "", "", ""))

        async def convert() -> int:
            async with fitting(store.carrier(), instance_id, "kvm", folder, work) as source:
                vault, moved = Vault(folder / "vault"), 0
                for parcel in await source.parcels(instance_id):
                    await vault.write(instance_id, parcel, source.read(instance_id, parcel))
                    moved += parcel.size_bytes
                return moved

        moved, out = await cost(convert)
        back = VmfsStorage(transport, f"[LocalDS_1] bench-{size_mib}")
        await back.prepare()
        (parcel,) = [one for one in await store.carrier().parcels(instance_id) if one.name == "root.raw"]
        source, target = store.carrier(), back.carrier()
        _, carried = await cost(lambda: target.write(instance_id, parcel, source.read(instance_id, parcel)))
        await store.delete_volumes(instance_id)
        await back.delete_volumes(instance_id)
        await store.delete_image(image.sha256)
        if parcel.size_bytes != size_mib * MIB or not 0 < moved < size_mib * MIB:
            raise RuntimeError(f"{parcel.size_bytes} bytes of {size_mib} MiB came out, {moved} when converted")
    return {
        "image_mib": sent.grown_mib, "image_s": sent.wall_s, "converted_mib": out.grown_mib, "converted_s": out.wall_s,
        "carried_mib": carried.grown_mib, "carried_s": carried.wall_s,
    }  # fmt: skip


def _image(folder: Path, size_mib: int) -> ImageFile:
    """Make a sparse image with 64 MiB of noise, spread over it."""
    raw, path = folder / "raw", folder / f"{size_mib}.qcow2"
    with raw.open("wb") as file:
        for number in range(64):
            file.seek(number * (size_mib // 64) * MIB)
            file.write(os.urandom(MIB))
        file.truncate(size_mib * MIB)
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", raw, path], check=True)
    raw.unlink()
    with path.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return ImageFile(digest, "qcow2", path.stat().st_size, path, size_mib)


def _both_sizes(endpoint: Endpoint, folder: Path, large_mib: int) -> dict[str, Any]:
    """Return the figures of a small and a large disk, and whether memory stays within the bound."""
    figures: dict[str, Any] = {}
    with _converters() as peak_mib:
        for word, size_mib in (("small", 128), ("large", large_mib)):
            say(f"an image and a disk of {size_mib} MiB")
            found = asyncio.run(disks(endpoint, folder, size_mib))
            figures |= {f"{word}_{name}": value for name, value in found.items()}
    figures["peak_growth_mib"] = max(value for name, value in figures.items() if name.endswith("_mib"))
    figures["qemu_img_peak_mib"] = round(peak_mib(), 1)
    return figures | {"memory_is_bounded": max(figures["peak_growth_mib"], figures["qemu_img_peak_mib"]) <= BOUND_MIB}


@contextmanager
def _converters() -> Iterator[Callable[[], float]]:
    """Watch this process's qemu-img processes, 20 times a second; yield what tells the most MiB that one had.

    What the kernel says of ended children (ru_maxrss) counts this process too, which each of them is until its exec.
    """
    most, over = [0.0], threading.Event()

    def watch() -> None:
        me = psutil.Process()
        while not over.wait(0.05):
            for child in me.children(recursive=True):
                with suppress(psutil.Error):
                    if child.name() == "qemu-img":
                        most[0] = max(most[0], child.memory_info().rss / MIB)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield lambda: most[0]
    finally:
        over.set()
        watcher.join()


def main() -> None:
    """Print the figures; the last line is JSON."""
    parser = argparse.ArgumentParser(prog="scripts/bench vmware")
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--vms", type=int, default=10_000)
    parser.add_argument("--image-mib", type=int, default=2048)
    parser.add_argument("--only", choices=("inventory", "disks"), help="one part alone")
    given = parser.parse_args()
    if not Path(BINARY).exists():
        sys.exit("there is no vcsim: install Go 1.23 or newer; scripts/bench builds it")
    figures: dict[str, Any] = {"hosts": given.hosts, "vms": given.vms, "image_mib": given.image_mib}
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        folder = Path(name)
        if given.only != "inventory":
            with simulator(folder, "-hosts", "2", "-ds", "2") as endpoint:
                figures |= _both_sizes(endpoint, folder, given.image_mib)
        if given.only != "disks":
            say(f"a vCenter of {given.hosts} hosts and {given.vms} VMs comes up (a minute or more)")
            each = ["-hosts", str(given.hosts // CLUSTERS), "-vms", str(given.vms // CLUSTERS)]
            with simulator(folder, "-clusters", str(CLUSTERS), *each) as endpoint:
                figures |= asyncio.run(inventory(endpoint, given.vms))
    for name, value in figures.items():
        print(f"{name:26} {value}")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
