"""Bugs that drivers have had, or could have, put into the fake: each replaces one verb of it by a wrong one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any, cast

from core.errors import CredentialRejected, HostFault, NotFound, Unreachable
from core.states import MachinePower
from drivers.baremetal.base import PowerChange
from drivers.baremetal.fake import FakeBmc
from drivers.fake_things import FakeHost, FakeInstance
from drivers.fake_world import world
from drivers.hypervisor.base import InstanceSpec
from drivers.hypervisor.fake import FakeHypervisor
from drivers.hypervisor.fake_guest import FakeAdopts, FakeConsoleLogs, FakeExecutes, FakeTickets
from drivers.hypervisor.fake_life import FakeReboots, FakeReconfigures, FakeSavesState, FakeSuspends
from drivers.hypervisor.fake_migrate import FakeMigratesLive
from drivers.hypervisor.fake_snapshots import FakeBacksUp, FakeSnapshots
from drivers.network.base import Bridge
from drivers.network.fake import FakeNetwork
from drivers.storage.fake import FakeStorage
from drivers.storage.fake_carrier import FakeCarrier
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
FAMILIES: dict[type, str] = {
    FakeStorage: "storage", FakeNetwork: "network", FakeTransport: "transport", FakeCarrier: "carrier",
    FakeBmc: "baremetal",
}  # fmt: skip


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


async def one(data: bytes) -> AsyncIterator[bytes]:
    yield data


async def unbroken(content: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Yield content up to whatever goes wrong with it."""
    with suppress(Exception):
        async for part in content:
            yield part


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
bug("a ticket is given twice", FakeTickets, "ticket")(after(lambda driver, said: replace(said, url="wss://h/ticket/1")))
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


@bug("what is said to be a new bridge is none", FakeNetwork, "ensure")
def _(right: Verb) -> Verb:
    async def ensure(self: Any, spec: Any) -> bool:
        made: bool = await right(self, spec)
        if made and spec.create:
            host_of(self).bridges.pop(spec.bridge, None)
        return made

    return ensure


@bug("a new bridge has no address", FakeNetwork, "ensure")
def _(right: Verb) -> Verb:
    return lambda self, spec: right(self, replace(spec, cidr=""))


@bug("a NIC goes where there is no bridge", FakeNetwork, "ensure_nic")
def _(right: Verb) -> Verb:
    async def ensure_nic(self: Any, network: Any, nic: Any) -> Any:
        there = next(iter(host_of(self).bridges))
        return replace(await right(self, replace(network, bridge=there), nic), bridge=network.bridge)

    return ensure_nic


@bug("a NIC forgets its gateway", FakeNetwork, "ensure_nic")
def _(right: Verb) -> Verb:
    return lambda self, network, nic: right(self, network, replace(nic, gateway=""))


bug("anybody's interface is said to be a leak", FakeNetwork, "interfaces_of")(says(["tap0"]))
bug("with a new bridge all others are forgotten", FakeNetwork, "bridges")(after(lambda driver, said: said[-1:]))


# carrier

bug("a carrier counts nothing", FakeCarrier, "parcels")(says([]))
bug("carried files stay when they are dropped", FakeCarrier, "drop")(says(True))


@bug("a carrier takes any content", FakeCarrier, "write")
def _(right: Verb) -> Verb:
    async def write(self: Any, instance_id: str, parcel: Any, content: Any) -> bool:
        data = b"".join([part async for part in content])
        said = replace(parcel, sha256=sha256(data).hexdigest())
        return bool(await right(self, instance_id, said, one(data)))

    return write


@bug("what is there is read and written again", FakeCarrier, "write")
def _(right: Verb) -> Verb:
    async def write(self: Any, instance_id: str, parcel: Any, content: Any) -> bool:
        data = b"".join([part async for part in content])
        await right(self, instance_id, parcel, one(data))
        return True

    return write


@bug("a carrier takes any name", FakeCarrier, "write")
def _(right: Verb) -> Verb:
    return lambda self, instance_id, parcel, content: right(
        self, instance_id, replace(parcel, name=parcel.name.rpartition("/")[2].lstrip(".") or "none"), content
    )


@bug("a parcel comes whole, however large", FakeCarrier, "read")
def _(right: Verb) -> Verb:
    async def read(self: Any, instance_id: str, parcel: Any) -> AsyncIterator[bytes]:
        yield b"".join([part async for part in right(self, instance_id, parcel)]) * 2

    return read


@bug("a parcel that is read is gone", FakeCarrier, "read")
def _(right: Verb) -> Verb:
    async def read(self: Any, instance_id: str, parcel: Any) -> AsyncIterator[bytes]:
        async for part in right(self, instance_id, parcel):
            yield part
        await self.drop(instance_id)

    return read


# baremetal

bug("power is said to be on", FakeBmc, "power")(says(MachinePower.ON))
bug("power is said to be changed", FakeBmc, "set_power")(says(True))
bug("power is never said to be changed", FakeBmc, "set_power")(after(lambda driver, said: False))
bug("a closed BMC answers", FakeBmc, "close")(says(None))


@bug("a reset of what is off leaves it off", FakeBmc, "set_power")
def _(right: Verb) -> Verb:
    async def set_power(self: Any, change: PowerChange, **named: Any) -> bool:
        if change is PowerChange.RESET and await self.power() is MachinePower.OFF:
            return True
        return bool(await right(self, change, **named))

    return set_power


@bug("a reset that is none", FakeBmc, "set_power", hangs=True)
def _(right: Verb) -> Verb:
    async def set_power(self: Any, change: PowerChange, **named: Any) -> bool:
        return change is PowerChange.RESET or bool(await right(self, change, **named))

    return set_power


@bug("putting on what is on boots it again", FakeBmc, "set_power")
def _(right: Verb) -> Verb:
    async def set_power(self: Any, change: PowerChange, **named: Any) -> bool:
        if change is PowerChange.ON and await self.power() is MachinePower.ON:
            await right(self, PowerChange.RESET, **named)
            return False
        return bool(await right(self, change, **named))

    return set_power


@bug("a polite shutdown is not heard", FakeBmc, "set_power")
def _(right: Verb) -> Verb:
    async def set_power(self: Any, change: PowerChange, **named: Any) -> bool:
        return change is PowerChange.OFF or bool(await right(self, change, **named))

    return set_power


@bug("a BMC that does not answer is a wrong password", FakeBmc, "power")
def _(right: Verb) -> Verb:
    async def power(self: Any) -> MachinePower:
        try:
            found: MachinePower = await right(self)
        except Unreachable as error:
            raise CredentialRejected(error.message) from error
        return found

    return power


@bug("a password is not checked", FakeBmc, "power")
def _(right: Verb) -> Verb:
    async def power(self: Any) -> MachinePower:
        try:
            found: MachinePower = await right(self)
        except CredentialRejected:
            return MachinePower.ON
        return found

    return power


# transport

bug("a file is said to be written", FakeTransport, "put")(says(None))
bug("stdin is lost", FakeTransport, "run")(
    lambda right: lambda self, argv, **named: right(self, argv, **{**named, "stdin": None})
)
bug("a connection is used after it was closed", FakeTransport, "close")(says(None))


@bug("a failure is no error", FakeTransport, "run")
def _(right: Verb) -> Verb:
    return lambda self, argv, **named: right(self, argv, **{**named, "check": False})


@bug("a file that is not there is empty", FakeTransport, "get")
def _(right: Verb) -> Verb:
    async def get(self: Any, source: str, **named: Any) -> bytes:
        try:
            return bytes(await right(self, source, **named))
        except NotFound:
            return b""

    return get


@bug("content that breaks off counts as whole", FakeTransport, "write")
def _(right: Verb) -> Verb:
    async def write(self: Any, content: AsyncIterator[bytes], argv: Sequence[str], **named: Any) -> Result:
        return cast(Result, await right(self, unbroken(content), argv, **named))

    return write


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


