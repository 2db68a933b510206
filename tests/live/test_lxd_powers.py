"""The optional powers of LXD on two hosts of the lab: the contract suite, and what LXD alone can do or suffer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.ids import mac_address, new_id
from core.states import PowerState
from drivers.hypervisor.base import DiskAttachment, InstanceSpec, NicAttachment
from tests.contract.hypervisor import HypervisorRig
from tests.contract.hypervisor_powers import PowersContract
from tests.labs import Lab
from tests.live.lxd import LxdRig, lxd_rig

SHELL_ON_CONSOLE = "setsid sh -i </dev/console >/dev/console 2>&1 &"


@pytest.fixture
async def rig(lab: Lab) -> AsyncIterator[LxdRig]:
    async with lxd_rig(lab, lab.hosts("lxd")[0]) as found:
        yield found


@pytest.fixture
async def other(lab: Lab, rig: LxdRig) -> AsyncIterator[LxdRig]:
    async with lxd_rig(lab, lab.hosts("lxd")[1]) as found:
        found.made = rig.made
        yield found


@pytest.fixture
async def folder(rig: LxdRig) -> AsyncIterator[str]:
    path = f"/var/lib/rackflow/lxd-tests/{new_id()}"
    await rig.host.transport.run(["mkdir", "-p", path])
    yield path
    await rig.host.transport.run(["rm", "-r", path])


def portable(rig: LxdRig) -> InstanceSpec:
    """Return a spec that holds on any host: its NIC is on the bridge that all have, without an address."""
    spec = rig.spec()
    return replace(spec, nics=(NicAttachment("eth0", spec.nics[0].mac, "br0"),))


class TestLxdPowers(PowersContract):
    @pytest.fixture
    async def rig(self, rig: LxdRig, other: LxdRig, folder: str) -> HypervisorRig:
        async def new() -> InstanceSpec:
            return portable(rig)

        async def take_name(name: str) -> None:
            rig.made.append(name)
            await rig.lxc("init", rig.image.sha256, name, "--storage", "default")

        async def ready(name: str) -> None:
            runs_here = (await rig.lxd.observe(name)).power is PowerState.RUNNING
            await (rig if runs_here else other).lxd.exec(name, ["sh", "-c", SHELL_ON_CONSOLE])

        async def file_bytes(path: str) -> int:
            found = await rig.host.transport.run(["stat", "-c", "%s", path], check=False)
            return int(found.stdout or 0)

        async def with_disk(spec: InstanceSpec) -> InstanceSpec:
            return replace(spec, disks=(*spec.disks, DiskAttachment("data1", "pool", "default", "raw", 16)))

        async def with_nic(spec: InstanceSpec) -> InstanceSpec:
            return replace(spec, nics=(*spec.nics, NicAttachment("eth1", mac_address(spec.id, 1), "br0")))

        return HypervisorRig(
            rig.lxd, new, lambda spec: spec, take_name, folder=folder, file_bytes=file_bytes, with_disk=with_disk,
            with_nic=with_nic, other=other.lxd, ready=ready, delays_s=(0.0, 0.05, 0.2, 0.5),
        )  # fmt: skip
