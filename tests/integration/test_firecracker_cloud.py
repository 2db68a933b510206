"""A Firecracker host in the cloud: enrolled by SSH, placed on where the image names a kernel, through a VM's life."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from control import hosts, tables
from core.ids import on_host
from core.states import HostState, InstanceState, OperationState, PowerState, Verb
from drivers.pool import HostPool
from tasks.runtime import Runtime, set_runtime
from tests.contract.firecracker import BOOT_ARGS, KERNEL, Checked, MicroVms, micro_vms
from tests.integration.line import Line, image_files


@pytest.fixture
async def vms() -> AsyncIterator[MicroVms]:
    async with micro_vms(boot=False) as found:
        yield found


@pytest.fixture
async def micro(line: Line, vms: MicroVms, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Line]:
    """The line, where a host `m1` is enrolled beside the simulated ones."""
    monkeypatch.setattr("drivers.firecracker_host.FirecrackerHypervisor", Checked)
    place, end = vms.place, vms.transport.endpoint
    drivers = replace(
        line.settings.drivers, firecracker=place.program, microvms=place.state, microvms_run=place.run,
        kernels=place.kernels,
    )  # fmt: skip
    line.settings = replace(line.settings, drivers=drivers)
    line.runtime = Runtime(
        line.store, line.settings, HostPool(drivers), line.runtime.worker_id, claim_until=time.monotonic() + 3600
    )  # nobody renews it here, and emulated VMs may take long
    set_runtime(line.runtime)
    line.store.write_now(lambda c: c.execute(sa.update(tables.datastore).values(path=f"{vms.folder}/store")))
    spec = {
        "name": "m1", "driver": "firecracker", "address": end.address, "port": end.port,
        "key_file": str(end.key_file), "bridges": [{"name": "br0"}],
    }  # fmt: skip
    (op,) = await line.run(Verb.ENROLL, {"hosts": [spec]})
    assert op.state is OperationState.DONE, op.error
    yield line
    await line.runtime.locks.close()


async def imported(line: Line, folder: Path, **more: Any) -> None:
    source = image_files(folder)["vm"]
    source.write_bytes(source.read_bytes() + bytes(2**20))
    (op,) = await line.run(Verb.IMPORT, {"images": [{"name": "micro", "source": str(source), **more}]})
    assert op.state is OperationState.DONE, op.error


async def test_a_whole_life(micro: Line, vms: MicroVms, tmp_path: Path) -> None:
    found = micro.store.read_now(lambda c: hosts.get(c, "m1"))
    assert (found.state, found.driver) == (HostState.READY, "firecracker")
    assert found.capabilities["kernels"] == [KERNEL]
    assert "never on Firecracker itself" in found.capabilities["proven_on"]
    await imported(micro, tmp_path / "more", kernel=KERNEL, boot_args=BOOT_ARGS)
    there = {"requirements": {"host": "m1"}, "cpu": 1, "memory": 128}
    wanted = [{"name": "web", "image": "micro", **there}, {"name": "no-kernel", "image": "vm", **there}]
    web, refused = await micro.run(Verb.DEPLOY, {"instances": wanted})
    assert web.state is OperationState.DONE, web.error
    assert "boots only images that name a kernel" in str(refused.error)
    driver = (await micro.runtime.host(found)).hypervisor
    name = on_host(micro.instance("web")["id"])
    seen = await driver.observe(name)
    assert (seen.power, seen.memory_mib, [disk.rpartition(".")[2] for disk in seen.disks]) == (
        PowerState.RUNNING, 128, ["raw", "iso"],
    )  # fmt: skip
    for verb, how, state in (
        (Verb.SUSPEND, {}, InstanceState.SUSPENDED), (Verb.RESUME, {}, InstanceState.RUNNING),
        (Verb.SNAPSHOT, {"snapshot": "s1"}, InstanceState.RUNNING),
        (Verb.REVERT, {"snapshot": "s1"}, InstanceState.RUNNING),
        (Verb.REBOOT, {"hard": True}, InstanceState.RUNNING), (Verb.POWEROFF, {}, InstanceState.OFF),
        (Verb.START, {}, InstanceState.RUNNING), (Verb.DROP_SNAPSHOT, {"snapshot": "s1"}, InstanceState.RUNNING),
        (Verb.UNDEPLOY, {"grace_s": 0}, InstanceState.UNDEPLOYED), (Verb.START, {}, InstanceState.RUNNING),
    ):  # fmt: skip
        (op,) = await micro.run(verb, {"instances": ["web"], **how})
        assert (op.state, micro.instance("web")["state"]) == (OperationState.DONE, state), (verb, op.error)
    (op,) = await micro.run(Verb.RECONCILE, {"hosts": ["m1"]})
    assert op.state is OperationState.DONE
    assert micro.instance("web")["state"] == InstanceState.RUNNING
    (op,) = await micro.run(Verb.DELETE, {"instances": ["web"]})
    assert op.state is OperationState.DONE, op.error
    assert (await driver.observe(name)).power is PowerState.ABSENT
    assert await vms.storage.volumes() == []
