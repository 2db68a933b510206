"""Every verb of the lifecycle, from request to simulated host and back; what the guest wrote survives all of them."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest

from control import backups, hosts, images, instances, operations, recovery, snapshots
from control.lifecycle import LASTING
from core.errors import Conflict, HostFault, Unsupported
from core.states import InstanceState, OperationState, PowerState, Verb
from drivers.fake_world import FOREVER, world
from tasks.settle import BatchFailed
from tests.integration.line import FLOWS, Line, left_on_hosts

S = InstanceState
DONE = OperationState.DONE


def vm(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "image": "vm", "kind": "vm", "cpu": 1, "memory": 512, **more}


async def go(line: Line, verb: Verb, of: str = "web", **parameters: Any) -> dict[str, Any]:
    """Ask for a verb, see it done, and return the instance; nothing harmful has happened on the way."""
    (op,) = await line.run(verb, {"instances": [of], **parameters})
    assert op.state is DONE, (verb, op.state, op.error, line.steps(op.id))
    assert world.harm == []
    return line.instance(parameters.get("name", of))


@pytest.fixture
async def web(line: Line) -> dict[str, Any]:
    """A VM that runs and has written something."""
    (op,) = await line.run(Verb.DEPLOY, {"instances": [vm("web")]})
    assert op.state is DONE, op.error
    found = line.instance("web")
    world.write(found["id"], "root", "precious")
    world.remember(found["id"], "thought")
    return found


def kept(found: dict[str, Any]) -> str:
    return world.read_disk(found["id"], "root")


async def test_power(line: Line, web: dict[str, Any]) -> None:
    for verb, state in (
        (Verb.SUSPEND, S.SUSPENDED), (Verb.SUSPEND, S.SUSPENDED), (Verb.RESUME, S.RUNNING), (Verb.REBOOT, S.RUNNING),
        (Verb.SHUTDOWN, S.OFF), (Verb.START, S.RUNNING), (Verb.POWEROFF, S.OFF), (Verb.START, S.RUNNING),
        (Verb.SUSPEND, S.SUSPENDED), (Verb.START, S.RUNNING), (Verb.SUSPEND, S.SUSPENDED), (Verb.POWEROFF, S.OFF),
    ):  # fmt: skip
        assert (await go(line, verb))["state"] == state
    assert kept(web) == "precious"


async def test_stop_saves_memory_and_frees_the_host(line: Line, web: dict[str, Any]) -> None:
    stopped = await go(line, Verb.STOP)
    assert (stopped["state"], stopped["host"]) == (S.STOPPED, None)
    assert left_on_hosts() == []
    assert stopped["addresses"] == web["addresses"]
    running = await go(line, Verb.RESUME)
    assert running["state"] == S.RUNNING
    assert (kept(web), world.recall(web["id"])) == ("precious", "thought")
    assert not (line.settings.paths.parked_dir / web["id"]).exists()


async def test_undeploy_frees_the_host(line: Line, web: dict[str, Any]) -> None:
    parked = await go(line, Verb.UNDEPLOY)
    assert (parked["state"], parked["host"]) == (S.UNDEPLOYED, None)
    assert left_on_hosts() == []
    assert (await go(line, Verb.START))["state"] == S.RUNNING
    assert (kept(web), world.recall(web["id"])) == ("precious", "")
    await go(line, Verb.UNDEPLOY)
    await line.run(Verb.DELETE, {"instances": ["web"]})
    assert list(line.settings.paths.parked_dir.iterdir()) == []


@pytest.mark.parametrize("verb", [Verb.UNDEPLOY, Verb.STOP])
async def test_what_is_parked_and_fits_nowhere_stays_parked(line: Line, web: dict[str, Any], verb: Verb) -> None:
    parked = (await go(line, verb))["state"]
    for host in ("f0", "f1", "f2"):
        line.store.write_now(lambda c, host=host: hosts.disable(c, line.admin, host))  # type: ignore[misc]
    (op,) = await line.run(Verb.START, {"instances": ["web"]})
    assert line.steps(op.id) == [("place", "compensated")], "no further step is tried"
    assert (op.state, (op.error or {})["code"]) == (OperationState.COMPENSATED, "no-fit")
    assert line.instance("web")["state"] == parked


@pytest.mark.parametrize("live", [True, False])
async def test_migration(line: Line, web: dict[str, Any], live: bool) -> None:
    moved = await go(line, Verb.MIGRATE, live=live)
    assert moved["state"] == S.RUNNING
    assert moved["host"] != web["host"]
    assert moved["addresses"] == web["addresses"]
    assert (kept(web), world.recall(web["id"])) == ("precious", "thought" if live else "")
    assert web["id"] not in world.hosts[web["host"]].stores[line.settings.drivers.datastore_path].volumes
    back = await go(line, Verb.MIGRATE, host=web["host"], live=live)
    assert back["host"] == web["host"]
    assert kept(web) == "precious"


async def test_migration_of_what_is_off(line: Line, web: dict[str, Any]) -> None:
    await go(line, Verb.SHUTDOWN)
    moved = await go(line, Verb.MIGRATE)
    assert (moved["state"], moved["host"] != web["host"]) == (S.OFF, True)
    assert kept(web) == "precious"


async def test_a_live_migration_that_fails_leaves_it_where_it_was(line: Line, web: dict[str, Any]) -> None:
    world.fail("*", "hypervisor.migrate", Conflict("no", "instance/web"), FOREVER)
    (op,) = await line.run(Verb.MIGRATE, {"instances": ["web"], "live": True})
    assert op.state is OperationState.COMPENSATED
    found = line.instance("web")
    assert (found["state"], found["host"]) == (S.RUNNING, web["host"])
    assert (kept(web), world.recall(web["id"])) == ("precious", "thought")
    assert len(left_on_hosts()) == 3  # the instance, its disk, its seed
    assert world.harm == []


async def test_resize_and_rename(line: Line, web: dict[str, Any]) -> None:
    larger = await go(line, Verb.RESIZE, cpu=2, memory="1GiB")
    assert (larger["cpu"], larger["memory_mib"]) == (2, 1024)
    renamed = await go(line, Verb.RENAME, name="shop")
    assert renamed["id"] == web["id"]
    await go(line, Verb.SHUTDOWN, "shop")
    assert (await go(line, Verb.RESIZE, "shop", memory=256))["memory_mib"] == 256
    (_, instance), = world.places(web["id"])
    assert instance.spec is not None
    assert (instance.spec.memory_mib, instance.spec.display_name) == (256, "shop")


async def test_more_than_the_host_has_is_refused_and_nothing_changes(line: Line, web: dict[str, Any]) -> None:
    (op_id,) = line.submit(Verb.RESIZE, {"instances": ["web"], "memory": "500GiB"})
    await line.work()
    (op,) = line.operations([op_id])
    assert op.error is not None, (op.reason, op.state, line.steps(op.id))
    assert "memory" in op.error["message"]
    assert line.instance("web")["memory_mib"] == 512
    assert line.instance("web")["state"] == S.RUNNING


async def test_disks_and_nics(line: Line, web: dict[str, Any]) -> None:
    await go(line, Verb.ATTACH_DISK, disk={"name": "data", "size": "1GiB"})
    world.write(web["id"], "data", "more")
    await go(line, Verb.GROW_DISK, disk="data", size="2GiB")
    await go(line, Verb.GROW_DISK, disk="root", size="3GiB")
    assert world.read_disk(web["id"], "data") == "more"
    shown = await go(line, Verb.ATTACH_NIC, nic={"network": "lan"})
    assert len(shown["addresses"]) == 2
    await go(line, Verb.DETACH_NIC, nic=0)
    assert line.instance("web")["addresses"] == shown["addresses"][1:]
    await go(line, Verb.DETACH_DISK, disk="data")
    with pytest.raises(LookupError):
        world.read_disk(web["id"], "data")
    await go(line, Verb.UNDEPLOY)
    again = await go(line, Verb.START)
    assert (again["addresses"], again["disk_mib"]) == (shown["addresses"][1:], 3072)
    assert kept(web) == "precious"


async def test_a_disk_that_cannot_be_attached_leaves_nothing(line: Line, web: dict[str, Any]) -> None:
    world.fail("*", "hypervisor.reconfigure", Unsupported("it must be off", "instance/web"))
    (op,) = await line.run(Verb.ATTACH_DISK, {"instances": ["web"], "disk": {"name": "data", "size": "1GiB"}})
    assert op.state is OperationState.COMPENSATED
    assert line.instance("web")["disk_mib"] == web["disk_mib"]
    assert len(left_on_hosts()) == 3
    assert list(world.hosts[web["host"]].stores[line.settings.drivers.datastore_path].volumes[web["id"]]) == ["root"]


@pytest.mark.parametrize("runs", [True, False])
async def test_snapshots(line: Line, web: dict[str, Any], runs: bool) -> None:
    if not runs:
        await go(line, Verb.SHUTDOWN)
    await go(line, Verb.SNAPSHOT, snapshot="before")
    assert [s.memory for s in line.store.read_now(lambda c: snapshots.of_instance(c, web["id"]))] == [runs]
    if not runs:
        await go(line, Verb.START)
    world.write(web["id"], "root", "spoiled")
    if not runs:
        await go(line, Verb.SHUTDOWN)
    assert (await go(line, Verb.REVERT, snapshot="before"))["state"] == (S.RUNNING if runs else S.OFF)
    assert kept(web) == "precious"
    await go(line, Verb.DROP_SNAPSHOT, snapshot="before")
    assert line.store.read_now(lambda c: snapshots.of_instance(c, web["id"])) == []


async def test_an_image_of_an_instance(line: Line, web: dict[str, Any]) -> None:
    await go(line, Verb.SAVE_IMAGE, image="golden")
    image = line.store.read_now(lambda c: images.by_name(c, ["golden"]))["golden"]
    assert image.sha256
    (op,) = await line.run(Verb.DEPLOY, {"instances": [vm("copy", image="golden")]})
    assert op.state is DONE, op.error
    assert world.read_disk(line.instance("copy")["id"], "root") == "precious"


async def test_content_that_no_image_names_goes_after_a_while(line: Line, web: dict[str, Any]) -> None:
    await go(line, Verb.SAVE_IMAGE, image="golden")
    folder = line.settings.paths.images_dir
    for number, age_s in enumerate((0, 7200)):
        file = folder / f"{number:064x}.qcow2"
        file.write_bytes(b"left")
        os.utime(file, (time.time() - age_s, time.time() - age_s))
    before = {file.name for file in folder.iterdir()}
    await line.run(Verb.RECONCILE, {"hosts": []})
    assert before - {file.name for file in folder.iterdir()} == {f"{1:064x}.qcow2"}


async def test_backups(line: Line, web: dict[str, Any]) -> None:
    await go(line, Verb.BACKUP, backup="one")
    world.write(web["id"], "root", "second")
    await go(line, Verb.BACKUP, backup="two")
    one, two = line.store.read_now(lambda c: backups.of_instance(c, web["id"]))
    assert (one.parent_id, two.parent_id) == (None, one.id)
    world.write(web["id"], "root", "spoiled")
    assert (await go(line, Verb.REVERT_BACKUP, backup="one"))["state"] == S.RUNNING
    assert kept(web) == "precious"
    assert (await go(line, Verb.REVERT_BACKUP, backup="two"))["state"] == S.RUNNING
    assert kept(web) == "second"
    await go(line, Verb.BACKUP, backup="three", incremental=False, keep=1)
    assert [b.name for b in line.store.read_now(lambda c: backups.of_instance(c, web["id"]))] == ["three"]


async def test_backups_are_tested_and_deleted(line: Line, web: dict[str, Any]) -> None:
    for name in ("one", "two"):
        await go(line, Verb.BACKUP, backup=name)
    one, two = line.store.read_now(lambda c: backups.of_instance(c, web["id"]))
    with pytest.raises(Conflict, match="needed by two"):
        line.submit(Verb.DROP_BACKUP, {"backups": [one.id]})
    file = line.settings.paths.backups_dir / one.id / one.files[0]["name"]
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    (op,) = await line.run(Verb.TEST_BACKUP, {"backups": [two.id]})
    assert op.state is OperationState.FAILED
    assert op.error is not None
    assert "one/root" in op.error["message"]
    assert line.store.read_now(lambda c: backups.by_id(c, two.id)).state == backups.FAILED
    ended = await line.run(Verb.DROP_BACKUP, {"backups": [one.id, two.id]})
    assert [op.state for op in ended] == [DONE, DONE]
    assert line.store.read_now(lambda c: backups.of_instance(c, web["id"])) == []
    assert list(line.settings.paths.backups_dir.iterdir()) == []
    assert world.harm == []


async def test_what_a_driver_cannot_do_is_said_at_once(line: Line, web: dict[str, Any]) -> None:
    host = world.hosts[web["host"]]
    host.powers = host.powers - {"save", "snapshot"}
    await line.runtime.pool.drop(host.name)
    await line.run(Verb.ENROLL, {"hosts": [{"name": host.name, "address": "10.99.0.1", "driver": "fake"}]})
    with pytest.raises(Unsupported, match="cannot save"):
        line.submit(Verb.STOP, {"instances": ["web"]})


async def test_everything_is_gone_in_the_end(line: Line, web: dict[str, Any]) -> None:
    await go(line, Verb.SNAPSHOT, snapshot="s")
    await line.run(Verb.DELETE, {"instances": ["web"]})
    assert left_on_hosts() == []
    assert all(i.power is not PowerState.RUNNING for h in world.hosts.values() for i in h.instances.values())


def test_states_that_may_last_are_told_apart() -> None:
    assert {S.RUNNING, S.STOPPED, S.HELD} <= LASTING
    assert S.MIGRATING not in LASTING


async def test_a_full_host_is_named(line: Line, web: dict[str, Any]) -> None:
    world.fail("*", "storage.ensure_volume", HostFault("no room", "host/x"), FOREVER)
    (op,) = await line.run(Verb.ATTACH_DISK, {"instances": ["web"], "disk": {"name": "data", "size": "1GiB"}}, rounds=2)
    assert op.state in (OperationState.HELD, OperationState.COMPENSATED)
    assert op.error is not None
    assert "no room" in op.error["message"]


async def cancelled_before_it_begins(line: Line, op_id: str) -> None:
    """Let a worker take an operation up that is cancelled before its first step."""
    rt = line.runtime
    (op,) = await line.store.write(lambda c: operations.claim_pending(c, rt.worker_id, only=[op_id]))
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    with pytest.raises(BatchFailed):
        await FLOWS[op.verb].fn(operations=[op_id])
    assert line.operations([op_id])[0].state is OperationState.CANCELLED
    assert line.steps(op_id) == []


async def test_a_delete_cancelled_before_it_begins_leaves_what_runs_running(line: Line, web: dict[str, Any]) -> None:
    (op_id,) = line.submit(Verb.DELETE, {"instances": ["web"]})
    await cancelled_before_it_begins(line, op_id)
    assert line.instance("web")["state"] == S.RUNNING
    assert (await go(line, Verb.SHUTDOWN))["state"] == S.OFF
    await line.run(Verb.DELETE, {"instances": ["web"]})
    assert left_on_hosts() == []


async def test_a_cancelled_delete_leaves_what_the_verb_before_it_came_to(line: Line, web: dict[str, Any]) -> None:
    """It was asked for in the middle of another verb: what the instance was then, it is no more."""
    (shutdown,) = line.submit(Verb.SHUTDOWN, {"instances": ["web"], "grace_s": 0})
    await line.store.write(lambda c: operations.claim_pending(c, line.runtime.worker_id))
    (op,) = line.operations([shutdown])
    line.store.write_now(lambda c: instances.set_state(c, web["id"], S.SHUTTING_DOWN, epoch=op.epoch))
    (delete,) = line.submit(Verb.DELETE, {"instances": ["web"]})
    with pytest.raises(BatchFailed):
        await FLOWS[op.verb].fn(operations=[shutdown])
    await cancelled_before_it_begins(line, delete)
    assert line.instance("web")["state"] == S.RUNNING


async def test_a_delete_given_up_half_way_has_failed_and_may_be_asked_for_again(
    line: Line, web: dict[str, Any]
) -> None:
    world.fail("*", "storage.delete_volumes", HostFault("the disk is read-only", f"host/{web['host']}"), FOREVER)
    (op,) = await line.run(Verb.DELETE, {"instances": ["web"]})
    assert (op.state, line.instance("web")["state"]) == (OperationState.HELD, S.HELD)
    line.store.write_now(lambda c: recovery.abandon(c, line.admin, op.id))
    await line.work()
    assert line.operations([op.id])[0].state is OperationState.FAILED
    assert line.instance("web")["state"] == S.FAILED, "it was undefined: it is not what it was before"
    world.faults.clear()
    (again,) = await line.run(Verb.DELETE, {"instances": ["web"]})
    assert again.state is DONE
    assert left_on_hosts() == []
