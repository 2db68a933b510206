"""Firecracker's driver passes the suites of all hypervisors: on a shim of its API, or a real host (firecracker.py).

The guests of the quick suites find nothing on their disks: what the driver and the VMM do is looked at. That guests
boot, keep their memory in snapshots and hear Ctrl-Alt-Del is seen from inside in test_firecracker_guests.py.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from core.settings import DriverSettings
from core.states import PowerState
from drivers.conformance.rigs import Effort, HypervisorRig
from drivers.hypervisor.base import ObservedInstance
from drivers.hypervisor.firecracker_scripts import SUPERVISE
from drivers.transport.ssh import connect
from tests.contract.firecracker import Checked, MicroVms, micro_vms
from tests.contract.suites import HypervisorContract, PowersContract


@pytest.fixture
async def vms() -> AsyncIterator[MicroVms]:
    async with micro_vms(boot=False) as found:
        yield found


def rig_of(vms: MicroVms, hypervisor: Checked) -> HypervisorRig:
    return HypervisorRig(
        hypervisor, vms.new, vms.broken, vms.take_name, at_once=3, delays_s=(0.0, 0.1), file_bytes=vms.file_bytes,
        reboot_grace_s=1.0, guests=False, console_talk=(b"x", b"x"), left_of=vms.left_of, effort=Effort(1, 8),
    )  # fmt: skip


class TestFirecracker(HypervisorContract):
    @pytest.fixture
    async def rig(self, vms: MicroVms) -> AsyncIterator[HypervisorRig]:
        hypervisor = Checked(vms.transport, DriverSettings(), vms.place)
        yield rig_of(vms, hypervisor)
        await hypervisor.close()


async def test_what_runs_outlives_the_connection_and_its_supervisor(vms: MicroVms) -> None:
    spec = await vms.new()
    connection = await connect(vms.transport.endpoint, DriverSettings())
    first = Checked(connection, DriverSettings(), vms.place)
    await first.prepare()
    await first.define(spec)
    await first.start(spec.name)
    await first.close()
    await connection.close()
    other, driver = vms.transport, Checked(vms.transport, DriverSettings(), vms.place)
    assert (await driver.observe(spec.name)).power is PowerState.RUNNING
    assert await driver.suspend(spec.name) is True
    assert [one.power for one in await driver.instances()] == [PowerState.PAUSED]
    supervisor = (await other.get(f"{vms.place.running(spec.name)}/pid")).decode().split()[0]
    await other.run(["kill", "-KILL", supervisor])
    assert await driver.resume(spec.name) is True
    assert await driver.stop(spec.name, grace_s=0) is True
    assert (await driver.observe(spec.name)).power is PowerState.STOPPED
    assert "rf52" not in (await other.run(["ip", "-br", "link"])).stdout, "a tap is left"
    assert await driver.start(spec.name) is True
    vmm = (await other.get(f"{vms.place.running(spec.name)}/pid")).decode().split()[2]
    await other.run(["kill", "-KILL", vmm])
    seen = await settled(driver, spec.name)
    assert (seen.power, seen.reason) == (PowerState.CRASHED, "Firecracker ended with exit code 137")
    await driver.close()


async def settled(driver: Checked, name: str) -> ObservedInstance:
    """Return what is seen once its supervisor has noticed."""
    async with asyncio.timeout(10):
        while (seen := await driver.observe(name)).power is PowerState.RUNNING:
            await asyncio.sleep(0.1)
    return seen


def test_a_supervisor_keeps_logs_short_and_notes_the_end(tmp_path: Path) -> None:
    for file in ("log", "metrics"):
        (tmp_path / file).write_text(file)
    for file in ("taps", "mounts"):
        (tmp_path / file).touch()
    os.mkfifo(tmp_path / "console.in")
    script = SUPERVISE.replace("sleep 60", "sleep 0.1")
    assert script != SUPERVISE
    vmm = "head -c 20000000 /dev/zero; for n in 1 2 3 4 5 6 7 8; do sleep 0.25; echo tick $n; done; exit 3"
    words = ["sh", "-c", script, "test", str(tmp_path), str(tmp_path), "sh", "-c", vmm]
    subprocess.run(words, check=False, timeout=30, stdin=subprocess.DEVNULL)
    log = (tmp_path / "console.log").read_bytes()
    assert len(log) < 2**23
    assert log.endswith(b"tick 7\ntick 8\n")
    assert (tmp_path / "metrics").read_text() == "metrics"
    assert (tmp_path / "ended").read_text() == "3\n"


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
        "test_a_reboot_that_was_killed", "test_a_polite_reboot", "test_console",
    )  # fmt: skip

    @pytest.fixture
    async def rig(self, vms: MicroVms) -> AsyncIterator[HypervisorRig]:
        hypervisor = Checked(vms.transport, DriverSettings(), vms.place)
        yield rig_of(vms, hypervisor)
        await hypervisor.close()
