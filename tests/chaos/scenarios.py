"""Every verb from every state that it is allowed from, as the lifecycle table has it, on each kind and datastore."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from control import hosts
from control.lifecycle import LASTING, VERBS
from core.errors import HostFault, Invalid
from core.states import HostState, InstanceKind, InstanceState, OperationState, Verb
from drivers.fake_world import world
from tests.chaos.clock import skip
from tests.chaos.scene import RETRY_S, Kept, keep, retry_delay, wake
from tests.integration.line import Line

S = InstanceState
NAME = "web"
PRECIOUS, SPOILED, THOUGHT = "precious", "spoiled", "thought"
ROLES = {"disk": "data", "snapshot": "before", "backup": "one"}


@dataclass(frozen=True)
class Scenario:
    """One verb on one instance, in a state that the verb is allowed from."""

    verb: Verb
    state: S
    kind: InstanceKind
    shared: bool

    @property
    def name(self) -> str:
        return f"{self.verb}/{self.state}/{self.kind}/{'shared' if self.shared else 'local'}"


def all_scenarios() -> Iterator[Scenario]:
    """Yield them in the order of the table.

    Left out: memory of containers (no driver saves it), a fail-over of what has its disks on its dead host only (they
    cannot be had), live migration of containers (the driver refuses it), and passing states: there a delete is one of
    the faults.
    """
    for verb, rule in VERBS.items():
        for state in sorted(rule.allowed_from & LASTING):
            for kind in InstanceKind:
                for shared in (False, True):
                    one = Scenario(verb, state, kind, shared)
                    if kind is InstanceKind.CONTAINER and S.STOPPED in (state, rule.done, rule.failed):
                        continue
                    if verb is Verb.FAILOVER and not (shared and kind is InstanceKind.VM):
                        continue
                    if verb is Verb.MIGRATE_LIVE and kind is InstanceKind.CONTAINER:
                        continue
                    yield one


# how an instance gets into a state

async def _do(line: Line, verb: Verb, ends: OperationState = OperationState.DONE, **parameters: Any) -> None:
    (op_id,) = line.submit(verb, {"instances": [NAME], **parameters})
    await retry_delay(line)
    (op,) = line.operations([op_id])
    assert op.state is ends, (verb, op.state, op.error, op.reason, line.steps(op_id))


def _spec(one: Scenario) -> dict[str, Any]:
    image = "vm" if one.kind is InstanceKind.VM else "box"
    spec: dict[str, Any] = {"name": NAME, "image": image, "kind": str(one.kind), "cpu": 1, "memory": 512}
    return {**spec, "requirements": {"datastore": "common" if one.shared else "local"}}


async def _pending(line: Line, one: Scenario) -> None:
    if one.verb is not Verb.DEPLOY:
        line.submit(Verb.DEPLOY, {"instances": [_spec(one)]})


async def _on_hold(line: Line, one: Scenario) -> None:
    line.submit(Verb.DEPLOY, {"instances": [_spec(one)], "hold": True})


async def _running(line: Line, one: Scenario) -> None:
    (op_id,) = line.submit(Verb.DEPLOY, {"instances": [_spec(one)]})
    await retry_delay(line)
    assert line.operations([op_id])[0].state is OperationState.DONE, line.operations([op_id])
    found = line.instance(NAME)
    world.write(found["id"], "root", PRECIOUS)
    world.remember(found["id"], THOUGHT)


async def _failed(line: Line, one: Scenario) -> None:
    world.fail("*", "hypervisor.define", Invalid("no such machine type"))
    line.submit(Verb.DEPLOY, {"instances": [_spec(one)]})
    await retry_delay(line)


async def _held(line: Line, one: Scenario) -> None:
    await _running(line, one)
    world.fail("*", "hypervisor.stop", HostFault("the process does not end"))
    await _do(line, Verb.SHUTDOWN, OperationState.HELD, grace_s=0)


def _after(verb: Verb, **parameters: Any) -> Callable[[Line, Scenario], Awaitable[None]]:
    async def get_there(line: Line, one: Scenario) -> None:
        await _running(line, one)
        await _do(line, verb, **parameters)

    return get_there


INTO: dict[S, Callable[[Line, Scenario], Awaitable[None]]] = {
    S.PENDING: _pending, S.ON_HOLD: _on_hold, S.RUNNING: _running, S.OFF: _after(Verb.SHUTDOWN, grace_s=0),
    S.SUSPENDED: _after(Verb.SUSPEND), S.STOPPED: _after(Verb.STOP), S.UNDEPLOYED: _after(Verb.UNDEPLOY, grace_s=0),
    S.HELD: _held, S.FAILED: _failed,
}  # fmt: skip


# what a verb needs beforehand

async def _with_disk(line: Line, one: Scenario) -> None:
    await _do(line, Verb.ATTACH_DISK, disk={"name": ROLES["disk"], "size": "1GiB"})


async def _with_snapshot(line: Line, one: Scenario) -> None:
    await _do(line, Verb.SNAPSHOT, snapshot=ROLES["snapshot"])
    spoil(line)


async def _with_backup(line: Line, one: Scenario) -> None:
    await _do(line, Verb.BACKUP, backup=ROLES["backup"])
    spoil(line)


async def _with_backups(line: Line, one: Scenario) -> None:
    await _do(line, Verb.BACKUP, backup="older")


async def _dead_host(line: Line, one: Scenario) -> None:
    """Its host has lost its power, and has been fenced."""
    host = line.instance(NAME)["host"]
    world.crash(host)
    line.store.write_now(lambda c: hosts.set_state(c, hosts.get(c, host).id, HostState.FENCED))


def spoil(line: Line) -> None:
    """Let the disk hold something else, whether the guest runs or not."""
    for host, instance in world.places(line.instance(NAME)["id"]):
        for volume in host.disks(instance):
            volume.content = SPOILED if volume.name == "root" else volume.content


BEFOREHAND: dict[Verb, Callable[[Line, Scenario], Awaitable[None]]] = {
    Verb.DETACH_DISK: _with_disk, Verb.GROW_DISK: _with_disk, Verb.REVERT: _with_snapshot,
    Verb.DROP_SNAPSHOT: _with_snapshot, Verb.BACKUP: _with_backups, Verb.REVERT_BACKUP: _with_backup,
    Verb.FAILOVER: _dead_host,
}  # fmt: skip
LATE = {Verb.DROP_SNAPSHOT: S.SUSPENDED}  # states that are entered after what is needed beforehand


# how it is asked for

WORDS = {Verb.RESTORE: Verb.START, Verb.REDEPLOY: Verb.START, Verb.MIGRATE_LIVE: Verb.MIGRATE}
PARAMETERS: dict[Verb, dict[str, Any]] = {
    Verb.SHUTDOWN: {"grace_s": 5}, Verb.REBOOT: {"grace_s": 5}, Verb.UNDEPLOY: {"grace_s": 5},
    Verb.MIGRATE: {"live": False, "grace_s": 5}, Verb.MIGRATE_LIVE: {"live": True}, Verb.RENAME: {"name": "shop"},
    Verb.RESIZE: {"cpu": 2, "memory": "1GiB"}, Verb.ATTACH_DISK: {"disk": {"name": ROLES["disk"], "size": "1GiB"}},
    Verb.DETACH_DISK: {"disk": ROLES["disk"]}, Verb.GROW_DISK: {"disk": ROLES["disk"], "size": "2GiB"},
    Verb.ATTACH_NIC: {"nic": {"network": "lan"}}, Verb.DETACH_NIC: {"nic": 0},
    Verb.SNAPSHOT: {"snapshot": "now"}, Verb.REVERT: {"snapshot": ROLES["snapshot"]},
    Verb.DROP_SNAPSHOT: {"snapshot": ROLES["snapshot"]}, Verb.SAVE_IMAGE: {"image": "golden"},
    Verb.BACKUP: {"backup": "newer", "keep": 1}, Verb.REVERT_BACKUP: {"backup": ROLES["backup"], "grace_s": 5},
}  # fmt: skip


def ask(line: Line, one: Scenario) -> str:
    """Enter the request; return its operation's id."""
    if one.verb is Verb.DEPLOY:
        return line.submit(Verb.DEPLOY, {"instances": [_spec(one)]})[0]
    word = WORDS.get(one.verb, one.verb)
    (op_id,) = line.submit(word, {"instances": [NAME], **PARAMETERS.get(one.verb, {})})
    assert line.operations([op_id])[0].verb is one.verb
    return op_id


async def prepare(first: Kept, one: Scenario, folder: Path) -> Kept:
    """Bring an instance into the state, with all that the verb needs, and keep the line so."""
    line = await wake(first, folder.with_suffix(".work"))
    late = one.state if LATE.get(one.verb) is one.state else None
    await INTO[S.RUNNING if late else one.state](line, one)
    if one.verb in BEFOREHAND:
        await BEFOREHAND[one.verb](line, one)
    if late:
        await _do(line, Verb.SUSPEND)
    skip(RETRY_S)
    found = line.instance(NAME) if one.verb is not Verb.DEPLOY else {"id": "", "state": one.state, "host": None}
    assert found["state"] == one.state, (one.name, found["state"])
    return await keep(line, folder, instance=found["id"], source=found["host"] or "")
