"""What a hypervisor must leave as it was, and what it must not leave behind; part of the suite of powers."""

from __future__ import annotations

import time
from dataclasses import replace

from core.states import PowerState
from drivers.conformance.cases import not_reached, unsupported
from drivers.conformance.hypervisor import POWERS
from drivers.conformance.hypervisor_inside import define, from_disk, on_disk, power, running
from drivers.conformance.rigs import HypervisorRig
from drivers.conformance.tools import settle
from drivers.hypervisor.powers import Adopts

GRACE_S, MARGIN_S = 1.0, 20.0  # a stop that the guest does not follow, and what a busy host may need besides


@POWERS.case("define")
async def a_change_of_size_keeps_what_is_on_the_disk(rig: HypervisorRig) -> None:
    spec = await define(rig)
    await on_disk(rig, spec, "kept")
    larger = replace(spec, memory_mib=spec.memory_mib + 16)
    assert await rig.hypervisor.define(larger) is True
    assert await from_disk(rig, larger) == "kept"


@POWERS.case("define", "observe")
async def devices_keep_their_order(rig: HypervisorRig) -> None:
    driver = rig.hypervisor
    if not isinstance(driver, Adopts):
        unsupported("the driver has no Adopts: what devices an instance has cannot be seen")
    if rig.with_nic is None:
        not_reached("there is no second NIC here")
    spec = await rig.with_nic(await rig.new())
    for wanted in (spec, replace(spec, memory_mib=spec.memory_mib + 16)):
        await driver.define(wanted)
        found = (await driver.describe(spec.name)).nics
        assert [nic.mac for nic in found] == [nic.mac for nic in wanted.nics]
    assert len((await driver.observe(spec.name)).disks) >= len([disk for disk in spec.disks if not disk.read_only])


@POWERS.case("capacity")
async def capacity_is_of_the_whole_host_whatever_runs(rig: HypervisorRig) -> None:
    before = await rig.hypervisor.capacity()
    await running(rig)
    after = await rig.hypervisor.capacity()
    assert (after.cpus, after.memory_mib) == (before.cpus, before.memory_mib)
    assert 0 <= after.memory_used_mib <= after.memory_mib


@POWERS.case("stop")
async def a_stop_ends_within_its_grace(rig: HypervisorRig) -> None:
    spec = await running(rig)
    begin = time.monotonic()
    await settle(lambda: rig.hypervisor.stop(spec.name, grace_s=GRACE_S))
    assert time.monotonic() - begin < GRACE_S + MARGIN_S
    assert await power(rig, spec.name) is PowerState.STOPPED


@POWERS.case("undefine")
async def nothing_is_left_of_what_was_deleted(rig: HypervisorRig) -> None:
    if rig.left_of is None:
        not_reached("nobody here can look for what is left")
    spec = await running(rig)
    await rig.hypervisor.stop(spec.name, grace_s=0)
    await rig.hypervisor.undefine(spec.name)
    assert await rig.left_of(spec) == []
    assert spec.name not in [one.name for one in await rig.hypervisor.instances()]
