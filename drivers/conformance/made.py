"""What the kit has made on a host and not yet taken away; written down first, for a run that does not come to its end.

The next run on that host takes it away. Only what stands there is touched: by names and ids that the kit gave.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from core.errors import Conflict, RackflowError, Unsupported
from core.ids import new_id, on_host
from drivers.conformance.extras import Extras
from drivers.hosts import Host
from drivers.hypervisor.powers import Adopts, Carries, KeepsImages

CLEAR_LIMIT_S = 120.0  # for one thing, on a host that may hang


class Kind(StrEnum):
    """Of what is made. name: an instance's or folder's id, what a foreign one, a bridge, a path is called, a sha256."""

    INSTANCE = "instance"
    FOREIGN = "foreign"
    SCRATCH = "scratch"
    STORE = "store"
    BRIDGE = "bridge"
    FOLDER = "folder"
    IMAGE = "image"  # serves all cases, so that it goes at the end


@dataclass(frozen=True)
class Thing:
    """store: the datastore that it has disks or content in."""

    kind: Kind
    name: str
    store: str = ""


class Made:
    """The things of one host. With a file they outlive this process, and no other run makes any there meanwhile."""

    def __init__(self, host: str, file: Path | None = None) -> None:
        """Read what an earlier run has left. Raise Conflict while another run is at work on the host."""
        self._file = None
        self.things: list[Thing] = []
        self._instances: dict[str, Thing] = {}  # all that this run has made, gone or not, by their names on the host
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = file.open("a+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise Conflict(f"the kit is being run on {host} already", f"host/{host}", fix="wait for it") from error
        self._file.seek(0)
        for line in self._file:
            with suppress(ValueError):  # the last line of one that was killed may be torn: it made nothing of it yet
                self.things.append(Thing(**json.loads(line)))

    def add(self, kind: Kind, name: str, store: str = "") -> None:
        """Write a thing down, before it is made."""
        self.things.append(thing := Thing(kind, name, store))
        if kind is Kind.INSTANCE:
            self._instances[on_host(name)] = thing
        if self._file is not None:
            print(json.dumps(thing.__dict__), file=self._file, flush=True)

    def _keep(self, things: list[Thing]) -> None:
        self.things = things
        if self._file is not None:
            os.ftruncate(self._file.fileno(), 0)
            for thing in things:
                print(json.dumps(thing.__dict__), file=self._file, flush=True)

    async def clear(self, host: Host, extras: Extras, *, images: bool = False) -> bool:
        """Take things away, of images only if so said; say whether all are gone. What is not stays written down."""
        left = []
        for thing in self.things:
            if (thing.kind is Kind.IMAGE and not images) or not await _gone(host, extras, thing):
                left.append(thing)
        self._keep(left)
        return all(thing.kind is Kind.IMAGE for thing in left)

    async def look(self, host: Host) -> None:
        """Write down again what came back: a call that was under way when its case was ended may have made it then."""
        if self._instances:
            seen = [self._instances.get(one.name) for one in await host.hypervisor.instances()]
            self._keep(list(dict.fromkeys([*self.things, *filter(None, seen)])))

    def close(self) -> None:
        """Let others in."""
        if self._file is not None:
            self._file.close()


async def _gone(host: Host, extras: Extras, thing: Thing) -> bool:
    """Take one thing away; say whether it is gone. It may be half there, or not at all."""
    try:
        async with asyncio.timeout(CLEAR_LIMIT_S):
            await _CLEAR[thing.kind](host, extras, thing)
    except (RackflowError, TimeoutError):
        return False
    return True


async def _instance(host: Host, extras: Extras, thing: Thing) -> None:
    await _undefine(host, extras, on_host(thing.name), foreign=False)
    await _disks(host, extras, thing)


async def _foreign(host: Host, extras: Extras, thing: Thing) -> None:
    await _undefine(host, extras, thing.name, foreign=True)


async def _undefine(host: Host, extras: Extras, name: str, *, foreign: bool) -> None:
    """Take it away by the driver's verbs and, where these fail or may not, by other means."""
    driver = host.hypervisor
    with suppress(RackflowError):
        if foreign and isinstance(driver, Adopts) and extras.clear_instance is None:
            await driver.adopt(name, new_id())
        await driver.stop(name, grace_s=0)
        if not foreign or extras.clear_instance is None:
            await driver.undefine(name)
    if (await driver.observe(name)).power != "absent":
        if extras.clear_instance is not None:
            await extras.clear_instance(name)
        if (await driver.observe(name)).power != "absent":
            raise Conflict(f"{name} is still on {host.name}")


async def _disks(host: Host, _: Extras, thing: Thing) -> None:
    storage = host.storage(thing.store)
    for call in (storage.delete_volumes, storage.delete_state, storage.delete_scratch):
        with suppress(Unsupported):
            await call(thing.name)
    if isinstance(host.hypervisor, Carries):
        with suppress(RackflowError):  # LXD: there may be no pool to look into
            await host.hypervisor.carrier().drop(thing.name)


async def _store(_: Host, extras: Extras, thing: Thing) -> None:
    if extras.clear_store is not None:
        await extras.clear_store(thing.name)


async def _bridge(_: Host, extras: Extras, thing: Thing) -> None:
    if extras.clear_network is not None:
        await extras.clear_network(thing.name)


async def _folder(host: Host, _: Extras, thing: Thing) -> None:
    await host.transport.run(["rm", "-rf", thing.name])


async def _image(host: Host, _: Extras, thing: Thing) -> None:
    with suppress(Conflict):  # somebody uses it meanwhile
        if isinstance(host.hypervisor, KeepsImages):
            await host.hypervisor.delete_image(thing.name)
        await host.storage(thing.store).delete_image(thing.name)


_CLEAR: dict[Kind, Callable[[Host, Extras, Thing], Awaitable[None]]] = {
    Kind.INSTANCE: _instance, Kind.FOREIGN: _foreign, Kind.SCRATCH: _disks, Kind.STORE: _store, Kind.BRIDGE: _bridge,
    Kind.FOLDER: _folder, Kind.IMAGE: _image,
}  # fmt: skip
