"""What tests of optional powers do inside an instance: a file on its disk, and one in its memory."""

from __future__ import annotations

from core.states import PowerState
from drivers.conformance.rigs import HypervisorRig
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.powers import Executes

DISK = "/kept"
MEMORY = "/dev/kept"  # a file system in memory, in VMs and in containers


class _Unseen(str):
    """What a guest would say that is not there: as good as any answer."""

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


UNSEEN = _Unseen()


async def power(rig: HypervisorRig, name: str) -> PowerState:
    return (await rig.hypervisor.observe(name)).power


async def define(rig: HypervisorRig) -> InstanceSpec:
    spec = await rig.new()
    await rig.hypervisor.define(spec)
    return spec


async def running(rig: HypervisorRig) -> InstanceSpec:
    """Return the spec of a new one that answers."""
    spec = await define(rig)
    await start(rig, spec)
    return spec


async def start(rig: HypervisorRig, spec: InstanceSpec) -> None:
    await rig.hypervisor.start(spec.name)
    await ready(rig, spec)


async def ready(rig: HypervisorRig, spec: InstanceSpec) -> None:
    if rig.ready is not None:
        await rig.ready(spec.name)


async def write(rig: HypervisorRig, spec: InstanceSpec, path: str, content: str) -> None:
    """Write a file inside; on the disk when this returns. Does nothing where the driver has no exec."""
    driver = rig.hypervisor
    if isinstance(driver, Executes) and rig.guests:
        assert (await driver.exec(spec.name, ["tee", path], stdin=content.encode())).exit_code == 0
        assert (await driver.exec(spec.name, ["sync"])).exit_code == 0


async def read(rig: HypervisorRig, spec: InstanceSpec, path: str) -> str | None:
    """Return a file's content, None if there is no such file. The driver must have exec."""
    driver = rig.hypervisor
    if not rig.guests:
        return UNSEEN
    assert isinstance(driver, Executes), "what survived can be seen only from inside"
    found = await driver.exec(spec.name, ["cat", path])
    return found.stdout if found.exit_code == 0 else None


async def on_disk(rig: HypervisorRig, spec: InstanceSpec, content: str) -> None:
    """Start it, write content to its disk, stop it; where no guest answers, write to the disk from outside."""
    if not rig.guests and rig.tools is not None:
        await rig.tools.write(spec.disks[0], content)
        return
    await start(rig, spec)
    await write(rig, spec, DISK, content)
    await rig.hypervisor.stop(spec.name, grace_s=0)


async def from_disk(rig: HypervisorRig, spec: InstanceSpec) -> str | None:
    """Start it and return what is on its disk; it runs afterwards."""
    if not rig.guests and rig.tools is not None:
        found = await rig.tools.read(spec.disks[0])
        await start(rig, spec)
        return found
    await start(rig, spec)
    return await read(rig, spec, DISK)
