"""What is granted to single instances, on a real libvirt and a real LXD: cores, a NUMA cell, huge pages, PCI devices.

No guest boots: what QEMU and the container got is read from the host's /proc and control groups. Huge pages are the
machine's, for all hosts of the lab: some are set up for a while, and other programs of the machine may take of them.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lxml import etree

from control.hardware_offered import offered
from core.errors import HostFault, NoCapacityNow
from core.ids import new_id, on_host
from core.states import InstanceKind, PowerState
from drivers.conformance.tools import settle
from drivers.facts import gather_facts
from drivers.hypervisor.base import InstanceSpec
from tests.labs import Lab
from tests.live.kvm import KvmHost, kvm_host
from tests.live.lxd import LxdRig, lxd_rig

PAGES = 128  # of 2 MiB
_POOL = Path("/proc/sys/vm/nr_hugepages")


@pytest.fixture
async def kvm(lab: Lab) -> AsyncIterator[KvmHost]:
    async with kvm_host(lab, "h1") as found:
        yield found


@pytest.fixture
def pages() -> Iterator[None]:
    """Set up huge pages on this machine, and take them away again."""
    before = int(_POOL.read_text())
    _POOL.write_text(str(before + PAGES))
    try:
        if int(_POOL.read_text()) < before + PAGES:
            pytest.skip("this machine has no memory in one piece for huge pages")
        yield
    finally:
        _POOL.write_text(str(before))


def bare(kvm: KvmHost, **changes: Any) -> InstanceSpec:
    """Return the spec of a VM that has nothing to boot from."""
    instance_id = new_id()
    kvm.made.append(instance_id)
    plain = InstanceSpec(instance_id, on_host(instance_id), "vm", InstanceKind.VM, 1, 32, (), ())
    return replace(plain, **changes)


def threads(kvm: KvmHost, name: str) -> dict[str, str]:
    """Return on which cores each thread of a domain's QEMU may run, by its name."""
    look = """for t in /proc/$(cat /run/libvirt/qemu/NAME.pid)/task/*; do
      echo "$(cat $t/comm):$(sed -n 's/^Cpus_allowed_list:[[:space:]]*//p' $t/status)"; done"""
    lines = kvm.lab.run("h1", look.replace("NAME", name)).splitlines()
    return dict(line.rsplit(":", 1) for line in lines)


async def test_virtual_cpus_run_on_their_cores_and_qemu_keeps_to_them(kvm: KvmHost) -> None:
    two = bare(kvm, cpu=2, pinned=(1, 0))  # the other way round: not what it would be without
    one, shared = bare(kvm, pinned=(1,)), bare(kvm, may_use=(0,))
    for spec in (two, one, shared):
        await kvm.hypervisor.define(spec)
        await kvm.hypervisor.start(spec.name)
    seen = threads(kvm, two.name)
    assert {name[:5]: cpus for name, cpus in seen.items() if name.startswith("CPU")} == {"CPU 0": "1", "CPU 1": "0"}
    assert set(threads(kvm, one.name).values()) == {"1"}, "QEMU's own threads too"
    assert set(threads(kvm, shared.name).values()) == {"0"}


async def test_memory_is_of_huge_pages_of_the_cell(kvm: KvmHost, pages: None) -> None:
    spec = bare(kvm, memory_mib=64, page_kib=2048, cell=0)
    await kvm.hypervisor.define(spec)
    await kvm.hypervisor.start(spec.name)
    maps = kvm.lab.run("h1", f"grep hugepages /proc/$(cat /run/libvirt/qemu/{spec.name}.pid)/numa_maps")
    (line,) = maps.splitlines()
    assert {"bind:0", "huge", "N0=32", "kernelpagesize_kB=2048"} <= set(line.split())
    facts = await gather_facts(kvm.host.transport)
    assert facts.hugepages["2048"] - facts.hugepages_free["2048"] >= 64
    await kvm.hypervisor.stop(spec.name, grace_s=0)
    assert "hugepages" not in kvm.lab.run("h1", "cat /proc/*/numa_maps 2>/dev/null | grep libvirt || true")


async def test_facts_are_what_libvirt_says(kvm: KvmHost, pages: None) -> None:
    facts = await gather_facts(kvm.host.transport)
    root = etree.fromstring(kvm.lab.run("h1", "virsh capabilities").encode())
    cells = root.findall("host/topology/cells/cell")
    assert len(cells) == len(facts.cells)
    for cell, seen in zip(cells, facts.cells, strict=True):
        assert [int(cpu.get("id", "")) for cpu in cell.iterfind("cpus/cpu")] == seen["cpus"]
        there = {page.get("size"): int(page.text or 0) for page in cell.iterfind("pages")}
        assert there["2048"] * 2 == seen["hugepages"]["2048"]
    devices = kvm.lab.run("h1", "virsh nodedev-list --cap pci").split()
    assert {f"pci_{one['address'].replace(':', '_').replace('.', '_')}" for one in facts.pci} <= set(devices)


async def test_pages_that_are_not_there_are_said(kvm: KvmHost, pages: None) -> None:
    huge, odd = bare(kvm, memory_mib=2 * PAGES + 8192, page_kib=2048), bare(kvm, memory_mib=1024, page_kib=1048576)
    for spec, error in ((huge, NoCapacityNow), (odd, HostFault)):
        await kvm.hypervisor.define(spec)
        with pytest.raises(error) as told:
            await kvm.hypervisor.start(spec.name)
        assert told.value.fix
        assert (await kvm.hypervisor.observe(spec.name)).power is PowerState.STOPPED
    assert "hugetlbfs" in told.value.fix


async def test_cores_and_cells_that_the_host_has_not_are_said(kvm: KvmHost) -> None:
    """As it is after a reboot with fewer of them."""
    for spec in (bare(kvm, pinned=(4095,)), bare(kvm, cell=63)):
        await kvm.hypervisor.define(spec)
        with pytest.raises(HostFault, match=r"out of range|unavailable") as told:
            await kvm.hypervisor.start(spec.name)
        assert "migrate it while it is off" in told.value.fix


async def test_libvirt_takes_a_device_of_the_host_and_placement_none_without_an_iommu(kvm: KvmHost) -> None:
    """It is defined and not started: who knows what the machine needs its devices for."""
    facts = await gather_facts(kvm.host.transport)
    if not facts.pci:
        pytest.skip("this machine has no PCI devices")
    device = facts.pci[0]
    spec = bare(kvm, pci=(device["address"],))
    assert await kvm.hypervisor.define(spec) is True
    assert await kvm.hypervisor.define(spec) is False
    shown = etree.fromstring(kvm.lab.run("h1", f"virsh dumpxml --inactive {spec.name}").encode())
    address = shown.find("devices/hostdev/source/address")
    assert address is not None
    told = (int(address.get(part, ""), 16) for part in ("domain", "bus", "slot", "function"))
    assert "{:04x}:{:02x}:{:02x}.{:x}".format(*told) == device["address"]
    if device["iommu_group"] is None:
        found = offered({"cpus": facts.cpus, "pci": facts.pci}, {"pci": [device["id"]]})
        assert found is not None
        assert device["address"] in [one["address"] for one in found["refused"]]
        assert not found["pci"]


async def inside(rig: LxdRig, name: str) -> list[str]:
    """Return on which cores a container's processes may run, and of which cells their memory is."""
    look = "while read line; do case $line in *_allowed_list:*) echo $line;; esac; done < /proc/self/status"
    return (await rig.lxd.exec(name, ["sh", "-c", look])).stdout.split()


async def test_a_container_runs_on_its_cores_with_memory_of_its_cell(lab: Lab) -> None:
    async with lxd_rig(lab, lab.hosts("lxd")[0]) as rig:
        spec = rig.spec(cpu=1, pinned=(1,), cell=0, nics=())
        await rig.lxd.define(spec)
        assert await rig.lxd.define(spec) is False
        await rig.lxd.start(spec.name)
        assert await inside(rig, spec.name) == ["Cpus_allowed_list:", "1", "Mems_allowed_list:", "0"]
        shared = rig.spec(cpu=1, may_use=(0,), cell=0, nics=())
        await rig.lxd.define(shared)
        await rig.lxd.start(shared.name)
        assert await inside(rig, shared.name) == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]
        gone = rig.spec(cpu=1, cell=63, nics=())
        await rig.lxd.define(gone)
        with pytest.raises(HostFault):  # so it is LXC that binds it, and not this machine having one cell
            await rig.lxd.start(gone.name)
        assert await settle(lambda: rig.lxd.undefine(gone.name)) is True


async def test_lxd_says_what_it_can_give(lab: Lab) -> None:
    """No devices and no pages: a container's memory is not made of pages, and LXD has its devices by kind only."""
    async with lxd_rig(lab, lab.hosts("lxd")[0]) as rig:
        assert (await rig.lxd.capabilities()).grants == ("pinning", "numa")
        asked = json.loads(await rig.lxc("query", "/1.0"))["api_extensions"]
        assert "pci_device_type" in asked, "for VMs only: a container with one is refused"
        spec = rig.spec(cpu=1)
        await rig.lxd.define(spec)
        refused = await rig.host.transport.run(
            ["lxc", "config", "device", "add", spec.name, "card", "pci", "address=0000:00:01.0"], check=False
        )
        assert refused.exit_code != 0
        assert "Unsupported device type" in refused.stderr
