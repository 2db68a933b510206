"""What microVMs do, seen from inside: they boot, answer at their address, keep memory and disks, hear Ctrl-Alt-Del.

Each boots a kernel under emulation, some seconds of a CPU, so most of it is slow; one life is always run.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.states import PowerState
from drivers.conformance.hypervisor_consoles import until_read
from drivers.conformance.rigs import Effort, HypervisorRig
from tests.contract.firecracker import MicroVms, SeenInside, hypervisor, micro_vms
from tests.contract.suites import HypervisorContract, PowersContract


@pytest.fixture
async def vms() -> AsyncIterator[MicroVms]:
    async with micro_vms(boot=True) as found:
        yield found


@pytest.fixture
async def driver(vms: MicroVms) -> AsyncIterator[SeenInside]:
    found = hypervisor(vms)
    yield found
    await found.close()


async def said(driver: SeenInside, name: str, *argv: str) -> str:
    found = await driver.exec(name, argv)
    assert found.exit_code == 0, found
    return found.stdout.strip()


async def test_a_life_seen_from_inside(vms: MicroVms, driver: SeenInside) -> None:
    spec = await vms.new()
    await driver.prepare()
    await driver.define(spec)
    await driver.start(spec.name)
    await driver.ready(spec.name)
    assert await said(driver, spec.name, "hostname") == spec.display_name
    assert spec.nics[0].address in await said(driver, spec.name, "ip", "-4", "address", "show", "dev", "eth0")
    assert "GUEST-READY" in await driver.console_log(spec.name)
    seen = await driver.observe(spec.name)
    assert seen.cpu_seconds is not None
    assert seen.cpu_seconds > 1
    assert (await driver.metrics(spec.name))["block"]["read_bytes"] > 2**20
    await driver.exec(spec.name, ["tee", "/dev/kept"], stdin=b"one")

    async with driver.console(spec.name) as stream:
        await stream.write(b"\necho a$((1+1))b\n")
        assert b"a2b" in await until_read(stream, b"a2b")
    assert await driver.reclaim(spec.name, 32) is True
    async with asyncio.timeout(20):
        while (await driver.balloon(spec.name))["actual_mib"] < 32:
            await asyncio.sleep(0.2)
    assert await driver.snapshot(spec.name, "s1", memory=True) is True
    await driver.exec(spec.name, ["tee", "/dev/kept"], stdin=b"two")
    await driver.revert(spec.name, "s1")
    assert await said(driver, spec.name, "cat", "/dev/kept") == "one"

    assert await driver.stop(spec.name, grace_s=60) is True  # by itself: a power cut would be a failure of the guest
    assert (await driver.observe(spec.name)).power is PowerState.STOPPED
    run = await vms.transport.run(["ls", vms.place.running(spec.name)])
    assert "cut" not in run.stdout.split()
    assert "ended" in run.stdout.split()
    links = (await vms.transport.run(["ip", "-br", "link"])).stdout
    assert "rf52" not in links
    assert await driver.undefine(spec.name) is True


def rig_of(vms: MicroVms, driver: SeenInside) -> HypervisorRig:
    return HypervisorRig(
        driver, vms.new, vms.broken, vms.take_name, driver.ready, at_once=2, delays_s=(0.0, 0.2),
        file_bytes=vms.file_bytes, reboot_grace_s=60.0, left_of=vms.left_of, effort=Effort(1, 8),
    )  # fmt: skip


@pytest.mark.slow
class TestGuests(HypervisorContract):
    test_exec = None  # the way in is the tests' own

    @pytest.fixture
    def rig(self, vms: MicroVms, driver: SeenInside) -> HypervisorRig:
        return rig_of(vms, driver)


@pytest.mark.slow
class TestGuestsPowers(PowersContract):
    @pytest.fixture
    def rig(self, vms: MicroVms, driver: SeenInside) -> HypervisorRig:
        return rig_of(vms, driver)
