"""A vCenter in the cloud: enrolled by its API, placed on like any other host, through the whole life of a VM."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import asyncssh
import pytest

from blueprints.datastore import DatastoreSpec
from blueprints.network import NetworkSpec
from control import datastores, hosts, networks, outbox
from control.hosts import HostRecord
from core.errors import Conflict, Unsupported
from core.ids import on_host
from core.states import HostState, InstanceState, OperationState, PowerState, Verb
from drivers.hypervisor.base import ObservedInstance
from tests.integration.line import Line
from tests.integration.sshd import sshd
from tests.vcsim import HOSTS, Vcsim, vcsim

THERE = {"requirements": {"host": "e1"}}
DVS_RANGE = {"first": "10.8.0.10", "last": "10.8.0.20"}
VM = {"image": "vm", "cpu": 1, "memory": 256}


@pytest.fixture(scope="module")
def sim(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vcsim]:
    with vcsim(tmp_path_factory.mktemp("vcsim"), place=HOSTS[0]) as found:
        yield found


def host(sim: Vcsim, name: str, **more: Any) -> dict[str, Any]:
    return {
        "name": name, "driver": "esxi", "address": "127.0.0.1", "port": sim.port, "user": "user",
        "password_file": str(sim.key_file), "place": sim.place, "fingerprint": f"SHA256:{sim.thumbprint}",
        "bridges": [{"name": "br0"}], **more,
    }  # fmt: skip


def record(line: Line) -> HostRecord:
    return line.store.read_now(lambda c: hosts.get(c, "e1"))


def decide(line: Line, what: Callable[..., bool], *names: str) -> None:
    for name in names:
        line.store.write_now(lambda c, name=name: what(c, line.admin, name))  # type: ignore[misc]


async def enrolled(line: Line, sim: Vcsim, name: str = "e1") -> None:
    (op,) = await line.run(Verb.ENROLL, {"hosts": [host(sim, name)]})
    assert op.state is OperationState.DONE, op.error


async def test_its_api_may_be_reached_through_ssh(line: Line, sim: Vcsim, tmp_path: Path) -> None:
    async with sshd(tmp_path) as server:
        shown = asyncssh.import_public_key(server.host_key).get_fingerprint()
        ssh = {"address": server.address, "port": server.port, "key_file": str(server.key_file), "fingerprint": shown}
        body = {"hosts": [host(sim, "e1", ssh=ssh)]}
        (op,) = await line.run(Verb.ENROLL, body)
        assert op.error is None, op.error
        (op,) = await line.run(Verb.DEPLOY, {"instances": [{"name": "web", **VM, **THERE}]})
        assert op.error is None, op.error
        assert (await on_vsphere(line, "web")).power is PowerState.RUNNING
        there = await line.runtime.host(record(line))
        assert there.transport.endpoint.way is not None
        (op,) = await line.run(Verb.DELETE, {"instances": ["web"]})
        assert op.error is None, op.error
        await line.runtime.pool.close()


async def on_vsphere(line: Line, name: str) -> ObservedInstance:
    """Return a VM as vSphere has it."""
    there = await line.runtime.host(record(line))
    return await there.hypervisor.observe(on_host(line.instance(name)["id"]))


async def test_a_whole_life(line: Line, sim: Vcsim) -> None:
    await enrolled(line, sim)
    found = record(line)
    assert (found.state, found.driver, found.cpus) == (HostState.READY, "esxi", 2)
    assert found.facts["kinds"] == ["esxi"]
    assert "br0" in found.facts["bridges"]
    vm = {"name": "web", "image": "vm", "memory": 512, **THERE, "disks": [{"name": "data", "size": "64MiB"}]}
    (op,) = await line.run(Verb.DEPLOY, {"instances": [vm]})
    assert op.state is OperationState.DONE, op.error
    assert (line.instance("web")["host"], line.instance("web")["state"]) == ("e1", InstanceState.RUNNING)
    seen = await on_vsphere(line, "web")
    assert (seen.power, seen.memory_mib, len(seen.disks)) == (PowerState.RUNNING, 512, 2)
    for verb, state in (
        (Verb.SUSPEND, InstanceState.SUSPENDED), (Verb.RESUME, InstanceState.RUNNING),
        (Verb.SHUTDOWN, InstanceState.OFF), (Verb.START, InstanceState.RUNNING), (Verb.REBOOT, InstanceState.RUNNING),
    ):  # fmt: skip
        (op,) = await line.run(verb, {"instances": ["web"]})
        assert (op.state, line.instance("web")["state"]) == (OperationState.DONE, state), (verb, op.error)
    (op,) = await line.run(Verb.RECONCILE, {"hosts": ["e1"]})
    assert op.state is OperationState.DONE
    assert line.instance("web")["state"] == InstanceState.RUNNING
    (op,) = await line.run(Verb.DELETE, {"instances": ["web"]})
    assert op.state is OperationState.DONE, op.error
    there = await line.runtime.host(record(line))
    assert [one for one in await there.hypervisor.instances() if one.instance_id] == []
    assert await there.storage(line.settings.drivers.datastore_path).volumes() == []


async def test_the_same_spec_lands_on_either_kind_by_placement_alone(line: Line, sim: Vcsim) -> None:
    await enrolled(line, sim)
    wanted = [{"name": "any", **VM}, {"name": "there", **VM, **THERE}]
    ended = await line.run(Verb.DEPLOY, {"instances": wanted})
    assert {op.state for op in ended} == {OperationState.DONE}, [op.error for op in ended]
    assert line.instance("there")["host"] == "e1"
    for name in ("any", "there"):
        assert line.instance(name)["state"] == InstanceState.RUNNING
    ended = await line.run(Verb.DELETE, {"instances": ["any", "there"]})
    assert {op.state for op in ended} == {OperationState.DONE}


async def test_a_session_that_is_lost_in_between_is_no_matter(line: Line, sim: Vcsim) -> None:
    await enrolled(line, sim)
    await line.run(Verb.DEPLOY, {"instances": [{"name": "vm", **VM, **THERE}]})
    sim.control(sessions="drop")
    await line.run(Verb.RECONCILE, {"hosts": ["e1"]})
    (op,) = await line.run(Verb.SHUTDOWN, {"instances": ["vm"]})
    assert op.state is OperationState.DONE, op.error
    assert (await on_vsphere(line, "vm")).power is PowerState.STOPPED
    await line.run(Verb.DELETE, {"instances": ["vm"]})


async def test_what_others_do_in_vsphere_stands_in_the_history(line: Line, sim: Vcsim) -> None:
    def told() -> list[tuple[str, str]]:
        rows = line.store.read_now(lambda c: outbox.unmoved(c, 10_000))
        return [(row["subject"], row["payload"]["event"]) for row in rows if row["kind"] == "host-event"]

    await enrolled(line, sim)
    await line.run(Verb.DEPLOY, {"instances": [{"name": "vm", **VM, **THERE}]})
    await line.run(Verb.RECONCILE, {"hosts": ["e1"]})
    before = told()
    there, instance_id = await line.runtime.host(record(line)), line.instance("vm")["id"]
    await there.hypervisor.stop(on_host(instance_id), grace_s=0)
    await line.run(Verb.RECONCILE, {"hosts": ["e1"]})
    (row,) = [one for one in told()[len(before) :] if one[1] == "VmPoweredOffEvent"]
    assert row[0] == f"instance/{instance_id}"
    await line.work()  # the repair that the look asked for
    await line.run(Verb.RECONCILE, {"hosts": ["e1"]})
    await line.run(Verb.RECONCILE, {"hosts": ["e1"]})
    assert len([one for one in told() if one == row]) == 1, "nothing is told twice"
    await line.run(Verb.DELETE, {"instances": ["vm"]})


async def test_another_certificate_than_the_one_asked_for(line: Line, sim: Vcsim) -> None:
    wrong = host(sim, "e1", fingerprint=f"SHA256:{'AB:' * 31}AB")
    (op,) = await line.run(Verb.ENROLL, {"hosts": [wrong]})
    assert op.state is not OperationState.DONE
    assert op.error is not None
    assert op.error["code"] == "credential-rejected"


async def test_what_it_cannot_do_is_refused_and_the_instance_stays_as_it_was(line: Line, sim: Vcsim) -> None:
    decide(line, hosts.disable, "f1", "f2")
    await line.run(Verb.DEPLOY, {"instances": [{"name": "elsewhere", **VM}]})
    await enrolled(line, sim)
    decide(line, hosts.disable, "f0")
    await line.run(Verb.DEPLOY, {"instances": [{"name": "vm", **VM}]})
    decide(line, hosts.enable, "f0")
    for verb, why in ((Verb.STOP, r"e1 cannot save \(vSphere keeps"), (Verb.BACKUP, "e1 cannot backup$")):
        with pytest.raises(Unsupported, match=why):
            line.submit(verb, {"instances": ["vm"]})
    cold = {"live": False}
    for verb, name, how, why in (
        (Verb.MIGRATE, "vm", cold, "is a fake host, not esxi"),
        (Verb.MIGRATE, "elsewhere", cold, "is a esxi host, not fake"),
    ):
        (op,) = await line.run(verb, {"instances": [name], **how})
        assert op.state is not OperationState.DONE, (verb, name)
        assert why in str(op.error), (verb, name)
        assert line.instance(name)["state"] == InstanceState.RUNNING
    assert (line.instance("vm")["host"], line.instance("elsewhere")["host"]) == ("e1", "f0")
    with pytest.raises(Unsupported, match="cannot be moved live from esxi to fake"):
        line.submit(Verb.MIGRATE, {"instances": ["vm"], "host": "f0", "live": True})
    await line.run(Verb.STOP, {"instances": ["elsewhere"]})
    decide(line, hosts.disable, "f0")
    (op,) = await line.run(Verb.START, {"instances": ["elsewhere"]})
    assert "save" in str(op.error), "memory that was saved cannot go on there"
    assert line.instance("elsewhere")["state"] == InstanceState.STOPPED
    await line.run(Verb.DELETE, {"instances": ["vm", "elsewhere"]})


async def test_a_vm_leaves_its_host_and_comes_back(line: Line, sim: Vcsim) -> None:
    await enrolled(line, sim)
    vm = {"name": "vm", **VM, **THERE, "disks": [{"name": "data", "size": "64MiB"}]}
    await line.run(Verb.DEPLOY, {"instances": [vm]})
    there = await line.runtime.host(record(line))
    store = there.storage(line.settings.drivers.datastore_path)
    (op,) = await line.run(Verb.UNDEPLOY, {"instances": ["vm"]})
    assert op.state is OperationState.DONE, op.error
    instance_id = line.instance("vm")["id"]
    assert (line.instance("vm")["state"], line.instance("vm")["host"]) == (InstanceState.UNDEPLOYED, None)
    assert await store.volumes() == []
    parked = sorted(file.name for file in (line.settings.paths.parked_dir / instance_id).iterdir())
    assert {"root.raw", "data.raw", "seed.guestinfo"} <= set(parked)
    ids = line.submit(Verb("start"), {"instances": ["vm"]})
    await line.work()
    (op,) = line.operations(ids)
    assert (op.verb, op.state) == (Verb.REDEPLOY, OperationState.DONE), op.error
    assert (line.instance("vm")["host"], line.instance("vm")["state"]) == ("e1", InstanceState.RUNNING)
    assert await store.volumes() == [instance_id]
    assert len((await on_vsphere(line, "vm")).disks) == 2
    assert not (line.settings.paths.parked_dir / instance_id).exists()
    await line.run(Verb.DELETE, {"instances": ["vm"]})


async def test_two_hosts_of_one_vcenter_and_a_vm_that_moves_between_them(line: Line, sim: Vcsim) -> None:
    san = DatastoreSpec(name="san", path="/vmfs/volumes/LocalDS_0/san", shared=True)
    line.store.write_now(lambda c: datastores.ensure(c, line.admin, san))
    far = {"name": "dvs", "bridge": "DC0_DVPG0", "subnet": "10.8.0.0/24", "ranges": [DVS_RANGE]}
    line.store.write_now(lambda c: networks.ensure(c, line.admin, NetworkSpec.model_validate(far)))
    await enrolled(line, sim)
    with pytest.raises(Conflict, match="DC0_C0_H0 is host e1 already"):
        line.submit(Verb.ENROLL, {"hosts": [host(sim, "again")]})
    decide(line, hosts.disable, "f0", "f1", "f2")
    vm = {"name": "vm", **VM, "nics": [{"network": "dvs"}], "requirements": {"datastore": "san"}}
    await line.run(Verb.DEPLOY, {"instances": [vm]})
    assert line.instance("vm")["state"] == InstanceState.RUNNING, line.instance("vm")
    (op,) = await line.run(Verb.ENROLL, {"hosts": [host(sim, "e2", place=HOSTS[1], bridges=[])]})
    assert op.state is OperationState.DONE, op.error
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["vm"]})
    assert (op.verb, op.state) == (Verb.MIGRATE_LIVE, OperationState.DONE), op.error
    assert (line.instance("vm")["host"], line.instance("vm")["state"]) == ("e2", InstanceState.RUNNING)
    assert (await on_vsphere(line, "vm")).power is PowerState.ABSENT
    await line.run(Verb.DELETE, {"instances": ["vm"]})
