"""The simulated world behind the fake drivers: hosts, instances, images, volumes, bridges, faults, latencies.

One `World` per process (`world`), so that a test or a simulation sees and disturbs what the drivers act on.
Everything is plain memory and costs a few KiB per host: thousands of hosts are fine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass
from typing import Literal, TypeVar

from core.errors import RackflowError, Unreachable
from core.states import PowerState
from drivers.fake_things import POWERS, Command, FakeHost, FakeInstance, FakeStore, FakeVolume

__all__ = ["ANY", "FOREVER", "POWERS", "Command", "FakeHost", "FakeInstance", "FakeStore", "FakeVolume", "world"]
ANY = "*"  # a host or a verb: all of them
FOREVER = -1
Phase = Literal["before", "after"]
OnCall = Callable[[str, str, Phase], Awaitable[None] | None]
T = TypeVar("T")


@dataclass
class Fault:
    """error: raised by the next `times` matching calls (FOREVER: all); after: once the change is made."""

    host: str
    verb: str
    error: RackflowError
    times: int = 1
    after: bool = False


class World:
    """All simulated hosts, by endpoint name, and what is wrong with them.

    Verbs are named "family.verb" ("hypervisor.start", "storage.ensure_image", "transport.connect"); the bare
    verb and ANY match as well. Long verbs have phases, which are verbs too: "hypervisor.migrate.switch".
    """

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self.faults: list[Fault] = []
        self.latencies_s: dict[tuple[str, str], float] = {}
        self.hung: dict[tuple[str, str], asyncio.Event] = {}
        self.deadline_s = 60.0  # after which a hung call fails, as the real drivers' deadlines have it
        self.calls: dict[str, int] = {}  # how often each verb was called, over all hosts
        self.strict = False  # True: a host that was not added is Unreachable; else it comes into being
        self.shared: set[str] = set()  # paths of datastores that are one store for all hosts
        self.harm: list[str] = []  # what must never happen: one disk opened twice, a disk taken from what runs, …
        # Called with (host, verb, phase) at the begin of each verb and when its change is made; what it raises is
        # raised there: CancelledError is a worker killed at that point. Its awaitable, if any, is awaited.
        self.on_call: OnCall | None = None
        self._common: dict[str, FakeStore] = {}

    def reset(self) -> None:
        """Forget everything."""
        fresh = World()
        self.__dict__.update(fresh.__dict__)

    def add(self, host: FakeHost) -> FakeHost:
        """Put a host there, or replace it."""
        self.hosts[host.name] = host
        host.around = self
        host.number = host.number or len(self.hosts)
        return host

    def host(self, name: str) -> FakeHost:
        """Return a host; a new one with the default size unless the world is strict."""
        if name not in self.hosts:
            if self.strict:
                raise Unreachable(f"host {name}: no such simulated host", f"host/{name}")
            self.add(FakeHost(name))
        return self.hosts[name]

    def common(self, path: str) -> FakeStore | None:
        """Return the store at path if it is one for all hosts."""
        return self._common.setdefault(path, FakeStore(1_000_000)) if path in self.shared else None

    def note_harm(self, what: str) -> None:
        """Write down what must never happen."""
        self.harm.append(what)

    # what tests and simulations do to it

    def fail(
        self, host: str, verb: str, error: RackflowError, times: int = 1, *, after: bool = False
    ) -> None:
        """Let the next calls of verb on host raise error (after: when the change has been made)."""
        self.faults.append(Fault(host, verb, error, times, after))

    def hang(self, host: str, verb: str) -> None:
        """Let calls of verb on host wait until `release`, the deadline, or the host's end."""
        self.hung[host, verb] = asyncio.Event()

    def release(self, host: str, verb: str) -> None:
        """Let hung calls go on."""
        event = self.hung.pop((host, verb), None)
        if event is not None:
            event.set()

    def slow(self, host: str, verb: str, latency_s: float) -> None:
        """Let each call of verb on host take that long (either may be ANY)."""
        self.latencies_s[host, verb] = latency_s

    def full(self, host: str, path: str = "") -> None:
        """Leave no free space in the datastore at path ("": in all that were looked at so far)."""
        target = self.host(host)
        for store in [target.store(path)] if path else list(target.stores.values()):
            store.used_mib = store.total_mib

    def crash(self, host: str) -> None:
        """Cut the host's power: connections die, instances stop and lose their memory, disks and definitions stay."""
        target = self.host(host)
        target.powered = False
        self._lose(target)
        for instance in target.instances.values():
            if instance.is_on:
                target.power_off(instance)

    def cut(self, host: str) -> None:
        """Cut the host's network: connections die and what was held over them ends, instances go on."""
        target = self.host(host)
        target.connected = False
        self._lose(target)

    @staticmethod
    def _lose(target: FakeHost) -> None:
        for end in list(target.running.values()):
            end(255)

    def revive(self, host: str) -> None:
        """Bring a crashed or cut host back; connections have to be made anew."""
        self.host(host).connected = True
        self.boot(host)

    def boot(self, host: str) -> None:
        """Give it power; a cut network stays cut."""
        target = self.host(host)
        target.powered, target.boots = True, target.boots + 1

    def kill(self, host: str, name: str, reason: str = "killed") -> None:
        """Crash one instance behind everybody's back."""
        target = self.host(host)
        target.power_off(target.instances[name], PowerState.CRASHED, reason)

    # what guests do: their names are those on the host, or the ids

    def write(self, instance: str, disk: str, text: str) -> None:
        """Let the guest that runs write to a disk. Raise LookupError."""
        self._disk(*self._running(instance), disk).content = text

    def read_disk(self, instance: str, disk: str) -> str:
        """Return what the guest wrote last: where it runs, else where it is defined. Raise LookupError."""
        found = list(self.places(instance))
        on = [place for place in found if place[1].is_on]
        if len(on or found) != 1:
            raise LookupError(f"{instance} is on {[host.name for host, _ in found]} and runs on {len(on)} of them")
        return self._disk(*(on or found)[0], disk).content

    def remember(self, instance: str, text: str) -> None:
        """Let the guest that runs hold something in its memory. Raise LookupError."""
        self._running(instance)[1].memory = text

    def recall(self, instance: str) -> str:
        """Return what the guest that runs holds in its memory; "" since it was booted. Raise LookupError."""
        return self._running(instance)[1].memory

    def places(self, instance: str) -> Iterator[tuple[FakeHost, FakeInstance]]:
        """Yield where an instance is defined; dead hosts too."""
        for host in self.hosts.values():
            for found in host.instances.values():
                if instance == found.name or (found.spec and instance == found.spec.id):
                    yield host, found

    def _running(self, instance: str) -> tuple[FakeHost, FakeInstance]:
        on = [place for place in self.places(instance) if place[1].power is PowerState.RUNNING]
        if len(on) != 1:
            raise LookupError(f"{instance} runs on {[host.name for host, _ in on]}")
        return on[0]

    @staticmethod
    def _disk(host: FakeHost, instance: FakeInstance, name: str) -> FakeVolume:
        for volume in host.disks(instance):
            if volume.name == name:
                return volume
        raise LookupError(f"{instance.name} on {host.name} has no disk {name}")

    # what the fake drivers call

    @asynccontextmanager
    async def call(self, name: str, boots: int, verb: str) -> AsyncIterator[FakeHost]:
        """Go to a host for one verb: latency, hangs, faults and a lost connection happen here.

        What stands in the context is one change: it may await, but then its host may die in between.
        """
        self.calls[verb] = self.calls.get(verb, 0) + 1
        await self._tell(name, verb, "before")
        await asyncio.sleep(self._match(self.latencies_s, name, verb) or 0.0)
        await self._hang(name, verb, boots)
        self._raise_fault(name, verb, after=False)
        yield self.reached(name, boots, verb)
        await asyncio.sleep(0)
        await self._tell(name, verb, "after")
        self._raise_fault(name, verb, after=True)
        self.reached(name, boots, verb)

    async def _tell(self, name: str, verb: str, phase: Phase) -> None:
        answer = self.on_call(name, verb, phase) if self.on_call is not None else None
        if answer is not None:
            await answer

    def reached(self, name: str, boots: int, verb: str) -> FakeHost:
        """Return the host (of baremetal verbs: its BMC) if it answers. Raise Unreachable."""
        host = self.host(name)
        answers = host.bmc_answers if verb.startswith("baremetal.") else host.alive
        if not answers or (boots and boots != host.boots):
            raise Unreachable(f"host {name}: connection lost during {verb}", f"host/{name}")
        return host

    async def _hang(self, name: str, verb: str, boots: int) -> None:
        event = self._match(self.hung, name, verb)
        until = time.monotonic() + self.deadline_s
        while event is not None and not event.is_set():
            self.reached(name, boots, verb)
            if time.monotonic() > until:
                raise Unreachable(f"host {name}: {verb} took over {self.deadline_s} s", f"host/{name}")
            try:
                await asyncio.wait_for(event.wait(), min(0.1, self.deadline_s))
            except TimeoutError:
                continue

    def _raise_fault(self, name: str, verb: str, *, after: bool) -> None:
        for fault in self.faults:
            if fault.after != after or fault.host not in (name, ANY) or not _covers(fault.verb, verb):
                continue
            fault.times -= 1
            if fault.times == 0:
                self.faults.remove(fault)
            raise copy(fault.error)

    @staticmethod
    def _match(table: dict[tuple[str, str], T], name: str, verb: str) -> T | None:
        bare = verb.partition(".")[2]
        keys = [(h, v) for h in (name, ANY) for v in (verb, bare, ANY)]
        return next((table[key] for key in keys if key in table), None)


def _covers(pattern: str, verb: str) -> bool:
    return pattern in (ANY, verb, verb.partition(".")[2])


world = World()
