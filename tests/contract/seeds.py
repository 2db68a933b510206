"""Bugs that drivers have had, or could have, put into the fake: each replaces one verb of it by a wrong one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import HostFault, NotFound
from drivers.fake_things import FakeHost, FakeInstance
from drivers.fake_world import world
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.fake import FakeHypervisor
from drivers.hypervisor.fake_guest import FakeAdopts, FakeConsoleLogs, FakeExecutes
from drivers.hypervisor.fake_life import FakeReboots, FakeReconfigures, FakeSavesState, FakeSuspends
from drivers.hypervisor.fake_migrate import FakeMigratesLive
from drivers.hypervisor.fake_snapshots import FakeBacksUp, FakeSnapshots
from drivers.network.base import Bridge
from drivers.network.fake import FakeNetwork
from drivers.storage.fake import FakeStorage
from drivers.transport.base import Result
from drivers.transport.fake import FakeTransport

Verb = Callable[..., Any]


@dataclass(frozen=True)
class Bug:
    """family: of the cases that are to find it. owner, verb: what is replaced; make: the wrong verb from the right one.

    hangs: a case that it makes fail does not end.
    """

    title: str
    family: str
    owner: type
    verb: str
    make: Callable[[Verb], Verb]
    hangs: bool = False


BUGS: list[Bug] = []
FAMILIES = {FakeStorage: "storage", FakeNetwork: "network", FakeTransport: "transport"}


def bug(
    title: str, owner: type, verb: str, *, hangs: bool = False
) -> Callable[[Callable[[Verb], Verb]], Callable[[Verb], Verb]]:
    def add(make: Callable[[Verb], Verb]) -> Callable[[Verb], Verb]:
        BUGS.append(Bug(title, FAMILIES.get(owner, "hypervisor"), owner, verb, make, hangs))
        return make

    return add


def host_of(driver: Any) -> FakeHost:
    transport = getattr(driver, "transport", None) or driver._transport
    return world.host(transport.endpoint.name)


def says(answer: Any) -> Callable[[Verb], Verb]:
    """Make a verb that does nothing and says so."""

    def make(right: Verb) -> Verb:
        async def verb(self: Any, *arguments: Any, **named: Any) -> Any:
            return answer

        return verb

    return make


def after(answer: Callable[[Any, Any], Any]) -> Callable[[Verb], Verb]:
    """Make a verb that does what it should and returns something else, from what it is called on and what it said."""

    def make(right: Verb) -> Verb:
        async def verb(self: Any, *arguments: Any, **named: Any) -> Any:
            return answer(self, await right(self, *arguments, **named))

        return verb

    return make


# hypervisor: a life

bug("define says changed though nothing was", FakeHypervisor, "define")(after(lambda driver, said: True))
bug("stop says done, and it runs on", FakeHypervisor, "stop")(says(True))
bug("start does nothing when it was stopped before", FakeHypervisor, "start")(says(True))
bug("the list hides one", FakeHypervisor, "instances")(after(lambda driver, said: said[:-1]))
bug("the list holds what is ours as somebody else's", FakeHypervisor, "instances")(
    after(lambda driver, said: [replace(one, instance_id=None) for one in said])
)
bug("capacity shrinks by what runs", FakeHypervisor, "capacity")(
    after(lambda driver, said: replace(said, memory_mib=said.memory_mib - said.memory_used_mib))
)
bug("a flag is claimed without its protocol", FakeHypervisor, "capabilities")(
    after(lambda driver, said: replace(said, carry=True))
)


@bug("a resize loses the disk", FakeHypervisor, "define")
def _(right: Verb) -> Verb:
    async def define(self: Any, spec: InstanceSpec) -> bool:
        known = spec.name in host_of(self).instances
        changed: bool = await right(self, spec)
        for volume in host_of(self).disks(host_of(self).instances[spec.name]) if changed and known else ():
            volume.content = ""
        return changed

    return define


@bug("NICs come in another order", FakeHypervisor, "define")
def _(right: Verb) -> Verb:
    return lambda self, spec: right(self, replace(spec, nics=spec.nics[::-1]))


@bug("a name that is taken is overwritten", FakeHypervisor, "define")
def _(right: Verb) -> Verb:
    async def define(self: Any, spec: InstanceSpec) -> bool:
        there = host_of(self).instances.get(spec.name)
        if there is not None and there.spec is None:
            del host_of(self).instances[spec.name]
        return bool(await right(self, spec))

    return define


@bug("a define that is cut off leaves half", FakeHypervisor, "define")
def _(right: Verb) -> Verb:
    halves: set[str] = set()

    async def define(self: Any, spec: InstanceSpec) -> bool:
        if spec.name in halves or spec.name in host_of(self).instances:
            return spec.name not in halves and bool(await right(self, spec))
        halves.add(spec.name)
        await right(self, replace(spec, memory_mib=spec.memory_mib // 2))
        changed = bool(await right(self, spec))
        halves.discard(spec.name)
        return changed

    return define


@bug("what was undefined keeps its tap", FakeHypervisor, "undefine")
def _(right: Verb) -> Verb:
    async def undefine(self: Any, name: str) -> bool:
        instances = host_of(self).instances
        there = instances.get(name)
        if changed := await right(self, name):
            assert there is not None
            ghost = FakeInstance(f"tap-{name}", there.kind, there.spec)
            ghost.active = there.spec
            instances[ghost.name] = ghost
        return bool(changed)

    return undefine


@bug("undefine takes what runs", FakeHypervisor, "undefine")
def _(right: Verb) -> Verb:
    async def undefine(self: Any, name: str) -> bool:
        return host_of(self).instances.pop(name, None) is not None

    return undefine


@bug("an absent one is the wrong error", FakeHypervisor, "start")
def _(right: Verb) -> Verb:
    async def start(self: Any, name: str) -> bool:
        if name not in host_of(self).instances:
            raise NotFound(f"there is no {name}")
        return bool(await right(self, name))

    return start


@bug("what is absent is an error when it is taken away", FakeHypervisor, "undefine")
def _(right: Verb) -> Verb:
    async def undefine(self: Any, name: str) -> bool:
        if name not in host_of(self).instances:
            raise HostFault(f"there is no {name}")
        return bool(await right(self, name))

    return undefine


@bug("the power state is stale", FakeHypervisor, "observe")
def _(right: Verb) -> Verb:
    seen: dict[str, Any] = {}

    async def observe(self: Any, name: str) -> Any:
        if name not in seen:
            seen[name] = await right(self, name)
        return seen[name]

    return observe


@bug("stop waits for ever for the guest", FakeHypervisor, "stop", hangs=True)
def _(right: Verb) -> Verb:
    async def stop(self: Any, name: str, *, grace_s: float = 30.0) -> bool:
        if grace_s and name in host_of(self).instances:
            await asyncio.sleep(3600)
        return bool(await right(self, name, grace_s=grace_s))

    return stop


@bug("it starts without its disk", FakeHypervisor, "start")
def _(right: Verb) -> Verb:
    async def start(self: Any, name: str) -> bool:
        there = host_of(self).instances.get(name)
        if there is None or there.is_on or there.spec is None:
            return bool(await right(self, name))
        host_of(self).power_on(there)
        return True

    return start


# hypervisor: what it can do besides

bug("suspend says done, and it runs on", FakeSuspends, "suspend")(says(True))
bug("a reboot that is none", FakeReboots, "reboot")(says(True))
bug("exec loses the exit code", FakeExecutes, "exec")(after(lambda driver, said: replace(said, exit_code=0)))
bug("the log is longer than asked for", FakeConsoleLogs, "console_log")(after(lambda driver, said: said + "x" * 20))
bug("saved memory is not kept", FakeSavesState, "has_state")(says(False))
bug("a dropped snapshot stays", FakeSnapshots, "drop_snapshot")(says(True))


@bug("going back to a snapshot loses data", FakeSnapshots, "revert")
def _(right: Verb) -> Verb:
    async def revert(self: Any, name: str, snapshot: str) -> bool:
        changed: bool = await right(self, name, snapshot)
        for volume in host_of(self).disks(host_of(self).instances[name]):
            volume.content = ""
        return changed

    return revert


@bug("a second snapshot of a name replaces the first", FakeSnapshots, "snapshot")
def _(right: Verb) -> Verb:
    async def snapshot(self: Any, name: str, snapshot: str, *, memory: bool = False) -> bool:
        await self.drop_snapshot(name, snapshot)
        return bool(await right(self, name, snapshot, memory=memory))

    return snapshot


@bug("a change of what runs is not kept", FakeReconfigures, "reconfigure")
def _(right: Verb) -> Verb:
    async def reconfigure(self: Any, spec: InstanceSpec) -> bool:
        there = host_of(self).instances.get(spec.name)
        before = there.spec if there is not None else None
        changed: bool = await right(self, spec)
        if changed and there is not None:
            there.spec = before
        return changed

    return reconfigure


@bug("a migration leaves it defined at the source", FakeMigratesLive, "migrate")
def _(right: Verb) -> Verb:
    async def migrate(self: Any, move: Any, target: Any, **named: Any) -> bool:
        changed: bool = await right(self, move, target, **named)
        host_of(self).instances[move.spec.name] = FakeInstance(move.spec.name, move.spec.kind, move.spec)
        return changed

    return migrate


@bug("a backup is an empty file", FakeBacksUp, "backup")
def _(right: Verb) -> Verb:
    async def backup(self: Any, name: str, folder: str, **named: Any) -> Any:
        files = await right(self, name, folder, **named)
        for file in files:
            host_of(self).files_at(file.path)[file.path] = b""
        return files

    return backup


@bug("one that is ours is adopted once more", FakeAdopts, "adopt")
def _(right: Verb) -> Verb:
    async def adopt(self: Any, name: str, instance_id: str) -> bool:
        there = host_of(self).instances.get(name)
        if there is not None and there.spec is not None and there.spec.id != instance_id:
            there.spec = replace(there.spec, id=instance_id)
            return True
        return bool(await right(self, name, instance_id))

    return adopt


# storage

bug("more is free than there is", FakeStorage, "capacity")(
    after(lambda driver, said: replace(said, free_mib=said.total_mib + 1))
)
bug("a disk is not taken back", FakeStorage, "revert_volume")(says(True))
bug("a deleted disk stays", FakeStorage, "delete_volume")(says(True))
bug("the last copies of a chain are forgotten", FakeStorage, "undo_restore")(says(False))


@bug("content is not checked", FakeStorage, "ensure_image")
def _(right: Verb) -> Verb:
    async def ensure_image(self: Any, image: Any, *, progress: Any = None) -> bool:
        return bool(await right(self, replace(image, path=image.path.with_name("none")), progress=progress))

    return ensure_image


@bug("an image in use is deleted", FakeStorage, "delete_image")
def _(right: Verb) -> Verb:
    async def delete_image(self: Any, sha256: str) -> bool:
        return host_of(self).store(self._path).images.pop(sha256, None) is not None

    return delete_image


@bug("a copy that was cut off counts", FakeStorage, "images")
def _(right: Verb) -> Verb:
    async def images(self: Any) -> list[str]:
        return [*await right(self), *host_of(self).store(self._path).parts]

    return images


@bug("a disk shrinks", FakeStorage, "ensure_volume")
def _(right: Verb) -> Verb:
    async def ensure_volume(self: Any, spec: Any) -> Any:
        said = await right(self, spec)
        host_of(self).store(self._path).volumes[spec.instance_id][spec.name].size_mib = spec.size_mib
        return replace(said, size_mib=spec.size_mib)

    return ensure_volume


@bug("with one disk all others go", FakeStorage, "delete_volume")
def _(right: Verb) -> Verb:
    async def delete_volume(self: Any, instance_id: str, name: str) -> bool:
        return bool(host_of(self).store(self._path).volumes.pop(instance_id, None))

    return delete_volume


@bug("deleting leaves the folder", FakeStorage, "delete_volumes")
def _(right: Verb) -> Verb:
    async def delete_volumes(self: Any, instance_id: str) -> bool:
        volumes = host_of(self).store(self._path).volumes
        changed = bool(volumes.get(instance_id))
        volumes[instance_id] = {}
        return changed

    return delete_volumes


# network

bug("a bridge is said to be made each time", FakeNetwork, "ensure")(after(lambda driver, said: True))
bug("a NIC is named by its MAC", FakeNetwork, "ensure_nic")(after(lambda driver, said: replace(said, name=said.mac)))


@bug("a bridge is made unasked", FakeNetwork, "ensure")
def _(right: Verb) -> Verb:
    return lambda self, spec: right(self, replace(spec, create=True))


@bug("the management interface is changed", FakeNetwork, "ensure")
def _(right: Verb) -> Verb:
    async def ensure(self: Any, spec: Any) -> bool:
        if spec.bridge != host_of(self).management_bridge:
            return bool(await right(self, spec))
        host_of(self).bridges[spec.bridge] = Bridge(spec.bridge, (spec.cidr,), (), True)
        return True

    return ensure


# transport

bug("an exit code is always 0", FakeTransport, "run")(after(lambda driver, said: replace(said, exit_code=0)))
bug("output loses its last line end", FakeTransport, "run")(
    after(lambda driver, said: replace(said, stdout=said.stdout.rstrip()))
)


@bug("arguments go through a shell", FakeTransport, "run")
def _(right: Verb) -> Verb:
    async def run(self: Any, argv: Sequence[str], **named: Any) -> Result:
        said: Result = await right(self, " ".join(argv).split(), **named)
        return replace(said, argv=tuple(argv))

    return run


@bug("a deadline is not kept", FakeTransport, "run", hangs=True)
def _(right: Verb) -> Verb:
    return lambda self, argv, **named: right(self, argv, **{**named, "timeout_s": 3600.0})


@bug("a stream ends early", FakeTransport, "read")
def _(right: Verb) -> Verb:
    async def read(self: Any, argv: Sequence[str], **named: Any) -> AsyncIterator[bytes]:
        async for chunk in right(self, argv, **named):
            yield chunk
            break

    return read


