"""What the VMware drivers do when vSphere is slow, forgets them, or fails a task; and the lock of a host."""

from __future__ import annotations

import asyncio
import base64
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pyVmomi import vim

from core.errors import (
    Busy,
    CredentialRejected,
    HostFault,
    NoCapacityNow,
    NotFound,
    RackflowError,
    Unreachable,
)
from core.ids import mac_address, new_id, on_host
from core.settings import DriverSettings
from core.states import PowerState
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.esxi import EsxiHypervisor, hypervisor_of
from drivers.network.base import NetworkSpec, NicSpec
from drivers.transport.vsphere import VsphereTransport, connect
from drivers.transport.vsphere_place import read_one
from tests.contract.test_esxi import Vms, session
from tests.vcsim import CLUSTER, HOSTS, SETTINGS, Vcsim, vcsim


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vcsim"), "-vms", "1", place=CLUSTER) as found:
        yield found


@pytest.fixture
async def transport(sim: Vcsim) -> AsyncIterator[VsphereTransport]:
    async with session(sim.endpoint()) as found:
        yield found


@pytest.fixture
def hypervisor(transport: VsphereTransport) -> EsxiHypervisor:
    return hypervisor_of(transport)


@asynccontextmanager
async def defined(transport: VsphereTransport, hypervisor: EsxiHypervisor) -> AsyncIterator[InstanceSpec]:
    spec = await Vms(transport).new()
    await hypervisor.define(spec)
    yield spec


async def alive(_: str) -> bool:
    return True


async def dead(_: str) -> bool:
    return False


# -- who is who


async def test_a_wrong_password(sim: Vcsim, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("no")
    with pytest.raises(CredentialRejected):
        await connect(replace(sim.endpoint(), key_file=wrong), SETTINGS)
    with pytest.raises(CredentialRejected, match="cannot be read"):
        await connect(replace(sim.endpoint(), key_file=tmp_path / "none"), SETTINGS)


async def test_another_certificate_is_refused_before_the_password_is_sent(sim: Vcsim) -> None:
    for pinned in (f"x509-sha256 {'AB:' * 31}AB", ""):
        with pytest.raises(CredentialRejected) as caught:
            await connect(replace(sim.endpoint(), host_key=pinned), SETTINGS)
        assert caught.value.evidence["seen"] == sim.thumbprint


async def test_a_place_that_is_not_there_is_told_with_those_that_are(sim: Vcsim) -> None:
    for place in ("DC0/none", "none", ""):
        if place == "":  # one datacenter with one cluster: no doubt which is meant
            async with session(sim.endpoint(place="")) as found:
                assert len(found.place.hosts) == 2
            continue
        with pytest.raises(NotFound) as caught:
            await connect(sim.endpoint(place=place), SETTINGS)
        assert "HostSystem DC0_C0_H0" in caught.value.evidence["there"]


async def test_places(sim: Vcsim) -> None:
    async with session(sim.endpoint(place=HOSTS[1])) as host, session(sim.endpoint(place=CLUSTER)) as cluster:
        one, all_ = await hypervisor_of(host).capacity(), await hypervisor_of(cluster).capacity()
        assert (all_.cpus, all_.memory_mib) == (2 * one.cpus, 2 * one.memory_mib)
    async with session(sim.endpoint(place=f"{CLUSTER}/Resources")) as pool:
        assert str(pool.place.pool) == str(cluster.place.pool)


async def test_a_resource_pool(sim: Vcsim, transport: VsphereTransport) -> None:
    """Its limits bound what the cluster has, VMs are made in it, and the cluster sees them as well."""
    limited = {"cpuAllocation": 2500, "memoryAllocation": 512}
    spec = vim.ResourceConfigSpec(**{
        name: vim.ResourceAllocationInfo(
            limit=limit, reservation=0, expandableReservation=True, shares=vim.SharesInfo(level="normal", shares=0)
        )
        for name, limit in limited.items()
    })  # fmt: skip
    await transport.call("making a pool in", lambda _: transport.place.pool.CreateResourcePool("small", spec))
    whole = await hypervisor_of(transport).capacity()
    async with session(sim.endpoint(place=f"{CLUSTER}/Resources/small")) as pool:
        small = await hypervisor_of(pool).capacity()
        assert (small.cpus, small.memory_mib) == (1, 512)  # of 2,294 MHz each
        assert small.cpus < whole.cpus
        assert small.memory_mib < whole.memory_mib
        async with defined(pool, hypervisor_of(pool)) as made:
            vm = (await hypervisor_of(pool).refreshed()).find(made.name)
            found = await pool.call("reading", lambda c: read_one(c, vm, ["resourcePool", "parent"]))
            assert str(found["resourcePool"]) == str(pool.place.pool)
            folder = await pool.call("reading", lambda c: read_one(c, found["parent"], ["name"]))
            assert folder["name"] == "rackflow"
            assert (await hypervisor_of(transport).observe(made.name)).power is PowerState.STOPPED


async def test_a_cluster_without_hosts(sim: Vcsim, transport: VsphereTransport) -> None:
    def make(content: Any) -> None:
        read_one(content, transport.place.compute, ["parent"])["parent"].CreateClusterEx(
            "empty", vim.cluster.ConfigSpecEx()
        )

    await transport.call("making a cluster in", make)
    async with session(sim.endpoint(place="DC0/empty")) as empty:
        with pytest.raises(NotFound, match="no host in this cluster"):
            await empty.facts()
        with pytest.raises(HostFault, match="no host"):
            await hypervisor_of(empty).prepare()


async def test_a_look_takes_as_many_requests_whatever_there_is(sim: Vcsim, transport: VsphereTransport) -> None:
    async def requests(hypervisor: EsxiHypervisor) -> Counter[str]:
        before = sim.calls()
        await hypervisor.instances()
        return sim.calls() - before

    async with session(sim.endpoint()) as other:
        few, vms = await requests(hypervisor_of(other)), Vms(transport)
        driver = hypervisor_of(transport)
        await asyncio.gather(*[driver.define(await vms.new()) for _ in range(10)])
        first = await requests(watching := hypervisor_of(other))
        assert len(await watching.instances()) >= 10
        assert first == few  # reading each by itself would be ten more
        assert set(await requests(watching)) == {"WaitForUpdatesEx"}


# -- faults


async def test_a_lost_session_ends_the_connection_and_a_new_one_goes_on(sim: Vcsim) -> None:
    async with session(sim.endpoint()) as first:
        hypervisor = hypervisor_of(first)
        async with defined(first, hypervisor) as spec:
            sim.control(sessions="drop")
            with pytest.raises(Unreachable):
                await hypervisor.start(spec.name)
            assert not first.is_alive()
            with pytest.raises(Unreachable, match="session is lost"):
                await hypervisor.instances()
    async with session(sim.endpoint()) as second:
        again = hypervisor_of(second)
        assert await again.start(spec.name) is True
        assert (await again.observe(spec.name)).power is PowerState.RUNNING


@pytest.mark.parametrize("how", ["call", "task"])
@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        ("InsufficientMemoryResourcesFault", NoCapacityNow), ("TaskInProgress", Busy), ("NoDiskSpace", HostFault),
        ("HostCommunication", Unreachable), ("InvalidPowerState", Busy), ("NoPermission", HostFault),
        ("RestrictedVersion", HostFault), ("SystemError", HostFault),
    ],
)  # fmt: skip
async def test_a_fault_is_translated_and_the_next_try_goes_well(
    sim: Vcsim, transport: VsphereTransport, hypervisor: EsxiHypervisor, fault: str, kind: type[RackflowError], how: str
) -> None:
    async with defined(transport, hypervisor) as spec:
        sim.control(fault=fault, method="PowerOnVM_Task", **{"as": how})
        with pytest.raises(kind) as caught:
            await hypervisor.start(spec.name)
        assert caught.value.subject == f"instance/{spec.id}"
        assert spec.name in caught.value.message
        assert (await hypervisor.observe(spec.name)).power is PowerState.STOPPED
        assert await hypervisor.start(spec.name) is True


async def test_a_vm_that_could_not_be_made_leaves_nothing(
    sim: Vcsim, transport: VsphereTransport, hypervisor: EsxiHypervisor
) -> None:
    spec = await Vms(transport).new()
    sim.control(fault="NoDiskSpace", method="CreateVM_Task", **{"as": "task"})
    with pytest.raises(HostFault):
        await hypervisor.define(spec)
    assert (await hypervisor.observe(spec.name)).power is PowerState.ABSENT
    assert await hypervisor.define(spec) is True


async def test_an_answer_that_is_no_soap(sim: Vcsim, hypervisor: EsxiHypervisor) -> None:
    await hypervisor.instances()
    sim.control(status=503)
    with pytest.raises(Unreachable):
        await hypervisor.instances()
    assert await hypervisor.instances()


async def test_a_call_that_hangs_ends_at_its_deadline_and_holds_up_no_other(sim: Vcsim) -> None:
    hasty = DriverSettings(command_timeout_s=0.5, connect_timeout_s=5.0)
    transport = await connect(sim.endpoint(), hasty)
    hypervisor = hypervisor_of(transport)
    async with defined(transport, hypervisor) as spec:
        sim.control(delay="PowerOnVM_Task", ms=1500)
        try:
            begun = time.monotonic()
            starting = asyncio.ensure_future(hypervisor.start(spec.name))
            await asyncio.sleep(0.1)
            assert await hypervisor.instances()
            with pytest.raises(Unreachable):
                await starting
            assert time.monotonic() - begun < 1.4
        finally:
            sim.control(delay="PowerOnVM_Task", ms=0)
    await transport.close()


async def test_a_server_that_is_gone(tmp_path: Path) -> None:
    with vcsim(tmp_path, "-esx") as sim:
        transport = await connect(sim.endpoint(), SETTINGS)
    with pytest.raises(Unreachable):
        await hypervisor_of(transport).instances()
    await transport.close()
    with pytest.raises(Unreachable):
        await connect(sim.endpoint(), SETTINGS)


# -- the lock


async def test_one_worker_holds_a_host(sim: Vcsim) -> None:
    async with session(sim.endpoint()) as first, session(sim.endpoint()) as second, session(
        sim.endpoint("other")
    ) as other:
        await first.lock("w1", alive)
        await first.lock("w1", alive)
        with pytest.raises(Busy) as caught:
            await second.lock("w2", alive)
        assert caught.value.evidence["worker"] == "w1"
        assert not second.is_alive()  # a new connection is made for the next try
        await other.lock("w2", alive)  # another host of the same vCenter
        assert first.is_alive()


async def test_a_dead_worker_is_put_out_and_can_change_nothing_any_more(sim: Vcsim) -> None:
    async with session(sim.endpoint()) as first, session(sim.endpoint()) as second:
        await first.lock("w1", alive)
        await second.lock("w2", dead)
        with pytest.raises(Unreachable):
            await hypervisor_of(first).instances()
        assert await hypervisor_of(second).instances()


async def test_a_worker_that_came_back_takes_its_own_lock(sim: Vcsim) -> None:
    async with session(sim.endpoint()) as before, session(sim.endpoint()) as now:
        await before.lock("w1", alive)
        await now.lock("w1", alive)
        assert await hypervisor_of(now).instances()


# -- what a guest is given


async def test_cloud_init_is_handed_over_by_guestinfo(transport: VsphereTransport, hypervisor: EsxiHypervisor) -> None:
    async with defined(transport, hypervisor) as spec:
        vm = (await hypervisor.refreshed()).find(spec.name)
        found = await transport.call("reading", lambda c: read_one(c, vm, ["config.extraConfig"]))
        there = {one.key: one.value for one in found["config.extraConfig"]}
        meta = base64.b64decode(there["guestinfo.metadata"]).decode()
        assert meta.splitlines()[0] == f"instance-id: {spec.id}"
        network = dict(line.split(": ", 1) for line in meta.splitlines())["network"]
        assert mac_address(spec.id, 0) in base64.b64decode(network).decode()
        assert "ssh-ed25519 AAAA me" in base64.b64decode(there["guestinfo.userdata"]).decode()
        assert there["guestinfo.userdata.encoding"] == "base64"


async def test_a_nic_on_a_distributed_port_group(transport: VsphereTransport, hypervisor: EsxiHypervisor) -> None:
    vms = Vms(transport)
    spec = await vms.new()
    nic = await vms.network.ensure_nic(NetworkSpec("dvs", "bridge", "DC0_DVPG0"), NicSpec(0, mac_address(spec.id, 0)))
    spec = replace(spec, nics=(nic,))
    assert await hypervisor.define(spec) is True
    assert await hypervisor.define(spec) is False
    assert (await hypervisor.describe(spec.name)).nics[0].bridge == "DC0_DVPG0"
    assert await vms.network.interfaces_of([nic.mac]) == [f"{spec.name}/{nic.mac}"]


async def test_what_others_made_is_seen_and_left_alone(hypervisor: EsxiHypervisor) -> None:
    foreign = [seen for seen in await hypervisor.instances() if seen.instance_id is None]
    assert [seen.name for seen in foreign if not seen.name.startswith("rf-")] == ["DC0_C0_RP0_VM0"]
    assert (await hypervisor.describe("DC0_C0_RP0_VM0")).problems == ()
    assert (await hypervisor.observe(on_host(new_id()))).power is PowerState.ABSENT
