"""Firecracker's driver passes the suites of all hypervisors: on a shim of its API, or a real host (firecracker.py).

The guests of the quick suites find nothing on their disks: what the driver and the VMM do is looked at. That guests
boot, keep their memory in snapshots and hear Ctrl-Alt-Del is seen from inside in test_firecracker_guests.py.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from core.settings import DriverSettings
from core.states import PowerState
from tests.contract.firecracker import Checked, MicroVms, micro_vms
from tests.contract.hypervisor import HypervisorContract, HypervisorRig
from tests.contract.hypervisor_powers import PowersContract


@pytest.fixture
async def vms() -> AsyncIterator[MicroVms]:
    async with micro_vms(boot=False) as found:
        yield found


def rig_of(vms: MicroVms, hypervisor: Checked) -> HypervisorRig:
    return HypervisorRig(
        hypervisor, vms.new, vms.broken, vms.take_name, at_once=3, delays_s=(0.0, 0.1), file_bytes=vms.file_bytes,
        reboot_grace_s=1.0, guests=False, console_talk=(b"x", b"x"),
    )  # fmt: skip


class TestFirecracker(HypervisorContract):
    @pytest.fixture
    async def rig(self, vms: MicroVms) -> AsyncIterator[HypervisorRig]:
        hypervisor = Checked(vms.transport, DriverSettings(), vms.place)
        yield rig_of(vms, hypervisor)
        await hypervisor.close()


async def test_a_life_in_a_jail() -> None:
    """The files that a jailed VMM sees are those of its jail, and none is left when it has ended."""
    async with micro_vms(boot=False, jailed=True) as vms:
        driver = Checked(vms.transport, DriverSettings(), vms.place)
        spec = await vms.new()
        await driver.prepare()
        await driver.define(spec)
        assert await driver.start(spec.name) is True
        jail = vms.place.jail(spec.name)
        inside = (await vms.transport.run(["ls", jail, f"{jail}/disks"])).stdout.split()
        assert {"api.sock", "kernel", "initrd", "root", "seed", "config.json"} <= set(inside)
        assert await driver.snapshot(spec.name, "s1", memory=True) is True
        assert await driver.revert(spec.name, "s1") is True
        assert (await driver.observe(spec.name)).power is PowerState.RUNNING
        assert await driver.stop(spec.name, grace_s=0) is True
        mounts = (await vms.transport.run(["cat", "/proc/mounts"])).stdout
        assert jail not in mounts
        assert await driver.undefine(spec.name) is True
        assert (await vms.transport.run(["ls", jail], check=False)).exit_code != 0
        await driver.close()


class TestFirecrackerPowers(PowersContract):
    SLOW = (  # many starts, each some CPU seconds under emulation
        "test_a_snapshot_brings_back_what_was_on_the_disk", "test_snapshots_that_were_killed",
        "test_a_reboot_that_was_killed", "test_reboot[False]", "test_console",
    )  # fmt: skip

    @pytest.fixture
    async def rig(self, vms: MicroVms) -> AsyncIterator[HypervisorRig]:
        hypervisor = Checked(vms.transport, DriverSettings(), vms.place)
        yield rig_of(vms, hypervisor)
        await hypervisor.close()
