"""Machines that become hosts: simulated BMCs and hosts, a ramdisk that is none, and what goes wrong at each stage."""

from __future__ import annotations

import asyncio
import hashlib
import io
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

import tasks.commission
import tasks.configure
import tasks.install
from control import commission, hosts, instances, machines, operations
from control.operations import Operation
from core.errors import CredentialRejected, HostFault, NeedsOperator, Unreachable, Unsupported
from core.states import HostState, MachineState, OperationState, Verb
from drivers import role
from drivers.baremetal import install, ssh
from drivers.baremetal.fake import RAMDISK
from drivers.baremetal.inventory import Cpu, Inventory
from drivers.fake_world import world
from drivers.role import MODULES, PACKAGES, UNITS, Look, Role
from drivers.transport.base import Endpoint, Result
from tests.integration.line import Line
from tests.integration.pump import Pump

VERB, MAC, KEY = Verb.ENROLL_MACHINE, "52:54:00:00:00:0a", "ssh-ed25519 AAAA"
STAGES = ("power", "inspect", "classify", "check", "ramdisk", "install", "boot", "configure", "enroll", "verify")


@dataclass
class Box:
    """What stands behind the simulated BMC of f0. hangs: a command of whose kind the next one never ends."""

    contents: str = "empty"
    written: list[str] = field(default_factory=list)
    given: dict[str, str] = field(default_factory=dict)
    commands: list[Sequence[str]] = field(default_factory=list)
    configured: bool = False
    code: int = 0
    hangs: str = ""
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    async def connect(self, endpoint: Endpoint, _: Any) -> BoxTransport:
        host = world.hosts["f0"]
        if not host.powered or (endpoint.address == RAMDISK) != (host.boots_from == "network"):
            raise Unreachable(f"{endpoint.address} does not answer", "host/f0")
        return BoxTransport(self, endpoint)


class BoxTransport:
    """The part of a transport that these stages use."""

    def __init__(self, box: Box, endpoint: Endpoint) -> None:
        self.box, self.endpoint = box, endpoint

    async def run(self, argv: Sequence[str], *, stdin: bytes | None = None, **_: Any) -> Result:
        kinds = {install._LOOK: "look", install._WRITE: "write", install._GIVE: "give"}
        kind = kinds.get(argv[2] if argv[2:] else "", argv[0])
        if kind == self.box.hangs:
            self.box.reached.set()
            await asyncio.Event().wait()
        out = ""
        if kind == "look":
            out = self.box.contents
        elif kind == "write":
            self.box.written.append(argv[4])
            self.box.contents = "1 partitions"
        elif kind == "give":
            with tarfile.open(fileobj=io.BytesIO(stdin or b"")) as tar:
                for one in filter(tarfile.TarInfo.isfile, tar):
                    self.box.given[one.name] = tar.extractfile(one).read().decode()  # type: ignore[union-attr]
        elif argv == ["cat", "/proc/uptime"]:
            out = "12.5 20.0\n"
        elif kind not in ("cat",):
            self.box.commands.append(argv)
            self.box.configured = True
        return Result(tuple(argv), self.box.code if kind == "write" else 0, out, "said so" if self.box.code else "")

    async def close(self) -> None:
        pass


@pytest.fixture
def box(line: Line, monkeypatch: pytest.MonkeyPatch) -> Box:
    made = Box()
    world.hosts["f0"].powered = True
    world.hosts["f0"].macs = (MAC,)
    key = line.settings.paths.ssh_key
    key.parent.mkdir(parents=True, exist_ok=True)
    key.write_text(tasks.install.make_host_key().private)
    monkeypatch.setattr(tasks.install, "connect", made.connect)
    monkeypatch.setattr(tasks.install, "LOOK_S", 0.01)
    monkeypatch.setattr(tasks.commission, "LOOK_S", 0.02)

    async def transport(endpoint: Endpoint) -> BoxTransport:
        return BoxTransport(made, endpoint)

    async def look(_: Any, want: Role) -> Look:
        seen = Look(
            True, frozenset(PACKAGES["kvm"]), dict.fromkeys(UNITS["kvm"], ("enabled", "active")),
            dict.fromkeys(MODULES["kvm"], "loaded"), networkd=True, flags="svm", kvm=True, iommu=True,
        )  # fmt: skip
        files = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in role.contents(want).items()}
        return replace(seen, files=files, forward="1") if made.configured else seen

    body = commission.host_body

    def simulated(*given: Any) -> dict[str, Any]:
        asked = body(*given)
        asked["hosts"][0].update(driver="fake", address="10.99.0.1", key_file=None)
        return asked

    monkeypatch.setattr(line.runtime.pool, "transport", transport)
    monkeypatch.setattr(role, "look", look)
    monkeypatch.setattr(commission, "host_body", simulated)
    return made


def body(**changed: Any) -> dict[str, Any]:
    install_ = {"image": "http://images/x.raw.zst", "sha256": "0" * 64, "address": "10.99.0.1/24", "ramdisk_key": KEY}
    host = {"role": "kvm", "test_image": "vm"}
    return {"machines": [{"name": "f0", "bmc": "fake://f0", "install": install_, "host": host, **changed}]}


async def enroll(line: Line, **changed: Any) -> Operation:
    ids = line.submit(VERB, body(**changed))
    (op,) = await Pump(line).until(ids)
    return op


def state(line: Line) -> MachineState:
    return MachineState(line.store.read_now(lambda c: machines.show(c, line.admin, "f0"))["state"])


def left(line: Line) -> list[str]:
    return [one["name"] for one in line.store.read_now(lambda c: instances.list_(c, line.admin))]


async def test_an_empty_disk_becomes_a_ready_host_in_one_operation(line: Line, box: Box) -> None:
    op = await enroll(line)
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert line.steps(op.id) == [(name, "done") for name in STAGES]
    assert (state(line), left(line)) == (MachineState.READY, [])
    assert box.written == ["/dev/sda"]
    assert box.given["etc/hostname"] == "f0\n"
    assert f"MACAddress={MAC}" in box.given["etc/systemd/network/10-rackflow.network"]
    assert box.commands
    assert world.hosts["f0"].powered
    host = line.store.read_now(lambda c: hosts.get(c, "f0"))
    assert (host.state, host.cpus > 0) == (HostState.READY, True)
    planted = box.given["etc/ssh/ssh_host_ed25519_key.pub"].split()
    steps = line.store.read_now(lambda c: operations.steps_of(c, [op.id]))[op.id]
    assert (steps[5].evidence or {})["host_key"].split() == planted[:2]
    assert "PRIVATE" not in str(steps)


async def test_an_operating_system_that_runs_is_taken_over(
    line: Line, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def show(*_: Any) -> Any:
        return tasks.install.make_host_key()

    async def inventory(_: Any) -> Inventory:
        return Inventory(Cpu("x", "x86_64", 4), 8192, serial="S1")

    monkeypatch.setattr(tasks.install, "show", show)
    monkeypatch.setattr(ssh, "inventory", inventory)
    taken = {"role": "kvm", "test_image": "vm", "address": "10.99.0.1", "fingerprint": "SHA256:x"}
    other = await enroll(line, install=None, host=taken)
    assert (other.error or {})["code"] == CredentialRejected.code
    assert "find out why it changed" in (other.error or {})["fix"]
    monkeypatch.setattr(commission, "require_fingerprint", lambda *_: None)
    op = await enroll(line, install=None, host=taken)
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert [name for name, _ in line.steps(op.id)] == [*STAGES[:4], *STAGES[7:]]
    assert (box.written, world.calls.get("baremetal.inspect")) == ([], None)


async def test_a_disk_that_is_not_empty_is_not_written(line: Line, box: Box) -> None:
    box.contents = "2 partitions"
    op = await enroll(line)
    error = op.error or {}
    assert (error["code"], error["evidence"]["found"]) == (HostFault.code, "2 partitions")
    assert "overwrite: true" in error["fix"]
    assert (box.written, state(line)) == ([], MachineState.FAULTY)
    spec = body()["machines"][0]["install"] | {"overwrite": True}
    assert (await enroll(line, install=spec)).state is OperationState.DONE


async def test_an_image_that_is_not_the_one(line: Line, box: Box) -> None:
    box.code = 65
    op = await enroll(line)
    assert "is not the image that was asked for" in (op.error or {})["message"]
    assert state(line) is MachineState.FAULTY


async def test_a_machine_that_never_boots_the_ramdisk(
    line: Line, box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.install, "RAMDISK_S", 0.05)

    async def nobody(*_: Any) -> None:
        raise Unreachable("nobody answers", "host/f0")

    monkeypatch.setattr(tasks.install, "connect", nobody)
    world.hosts["f0"].powered = False
    op = await enroll(line)
    assert "does it boot the ramdisk?" in (op.error or {})["fix"]
    assert not world.hosts["f0"].powered


async def test_nothing_says_what_it_becomes(line: Line, box: Box) -> None:
    op = await enroll(line, host={"test_image": "vm"})
    assert (op.error or {})["code"] == NeedsOperator.code
    assert "a rule that gives role" in (op.error or {})["fix"]


async def test_a_host_that_runs_no_test_instance_is_put_out_of_use(line: Line, box: Box) -> None:
    op = await enroll(line, host={"role": "kvm", "test_image": "gone"})
    error = op.error or {}
    assert "there is no image gone" in error["message"]
    host = line.store.read_now(lambda c: hosts.get(c, "f0"))
    assert (host.state, (host.error or {})["message"]) == (HostState.DISABLED, error["message"])
    assert (state(line), world.hosts["f0"].powered, left(line)) == (MachineState.FAULTY, True, [])


@pytest.mark.parametrize("stage", ["look", "write", "give"])
async def test_an_abort_leaves_it_off_as_it_was_found(line: Line, box: Box, stage: str) -> None:
    box.hangs = stage
    world.hosts["f0"].powered = False
    (op_id,) = line.submit(VERB, body())
    pump = Pump(line)
    while not box.reached.is_set():
        await pump.round()
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    await line.runtime.look_for_cancels()
    (op,) = await pump.until([op_id])
    assert op.state is OperationState.CANCELLED, op.error
    assert not world.hosts["f0"].powered


@pytest.mark.parametrize("stage", ["look", "write", "give"])
async def test_a_killed_worker_is_followed_by_another(line: Line, box: Box, stage: str) -> None:
    box.hangs = stage
    (op_id,) = line.submit(VERB, body())
    pump = Pump(line)
    while not box.reached.is_set():
        await pump.round()
    transport = line.runtime.pool.transport
    await pump.kill()
    line.runtime.pool.transport = transport  # type: ignore[method-assign]
    box.hangs = ""
    (op,) = await pump.until([op_id])
    assert (op.state, op.error) == (OperationState.DONE, None)
    assert state(line) is MachineState.READY


async def test_configuring_a_host_again_changes_nothing(line: Line, box: Box) -> None:
    with pytest.raises(Unsupported, match="is of kind fake"):
        line.submit(Verb.CONFIGURE, {"hosts": ["f0"]})
    seen = [await tasks.configure.configure(BoxTransport(box, Endpoint("f0", "x")), Role("kvm")) for _ in range(2)]
    assert [one.changed for one in seen] == [True, False]
    assert (seen[0].evidence or {})["changes"]


async def test_an_abort_while_it_is_verified_leaves_no_instance_and_no_host_in_use(line: Line, box: Box) -> None:
    world.hang("f0", "hypervisor.start")
    (op_id,) = line.submit(VERB, body())
    pump = Pump(line)
    while not world.calls.get("hypervisor.start"):
        await pump.round()
    line.store.write_now(lambda c: operations.cancel(c, line.admin, op_id))
    await line.runtime.look_for_cancels()
    for _ in range(10):
        await pump.round()
        await line.runtime.look_for_cancels()
    world.release("f0", "hypervisor.start")
    (op,) = await pump.until([op_id])
    await pump.rest()
    assert op.state is OperationState.CANCELLED, op.error
    host = line.store.read_now(lambda c: hosts.get(c, "f0"))
    assert (host.state, left(line)) == (HostState.DISABLED, [])
    assert world.hosts["f0"].powered  # who looks why needs it on
