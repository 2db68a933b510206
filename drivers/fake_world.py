"""The simulated world behind the fake drivers: hosts, instances, images, volumes, bridges, faults, latencies.

One `World` per process (`world`), so that a test or a simulation sees and disturbs what the drivers act on.
Everything is plain memory and costs a few hundred bytes per host: thousands of hosts are fine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from copy import copy
from dataclasses import dataclass, field
from typing import TypeVar

from core.errors import RackflowError, Unreachable
from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import ImageOnHost, InstanceSpec
from drivers.network.base import Bridge
from drivers.storage.base import SeedSpec, VolumeSpec
from drivers.transport.base import Result

ANY = "*"  # a host or a verb: all of them
FOREVER = -1
T = TypeVar("T")
Command = Callable[["FakeHost", Sequence[str], bytes], Result]


@dataclass
class FakeInstance:
    """spec is None for one that is not ours. load: share of its cores that it burns while running."""

    name: str
    kind: InstanceKind
    spec: InstanceSpec | None
    power: PowerState = PowerState.STOPPED
    reason: str = ""
    load: float = 0.1
    stubborn: bool = False  # does not listen to a polite stop
    cpu_seconds: float = 0.0
    started_at: float = 0.0  # time.monotonic()
    console: list[str] = field(default_factory=list)

    def begin(self) -> None:
        """Power on."""
        self.power, self.reason, self.started_at = PowerState.RUNNING, "", time.monotonic()
        self.cpu_seconds = 0.0
        self.console.append(f"{self.name} booted")

    def end(self, power: PowerState = PowerState.STOPPED, reason: str = "") -> None:
        """Power off, or crash."""
        self.power, self.reason = power, reason
        self.console.append(f"{self.name} {power}")

    def cpu_used_s(self) -> float | None:
        """Return CPU seconds burnt since it was started, None while it is off."""
        if self.power is not PowerState.RUNNING or self.spec is None:
            return None
        return (time.monotonic() - self.started_at) * self.spec.cpu * self.load


@dataclass
class FakeStore:
    """A datastore's folder on one host. images: sha256 -> (format, bytes)."""

    total_mib: int
    used_mib: int = 0
    prepared: bool = False
    images: dict[str, tuple[str, int]] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)  # bytes of interrupted copies
    volumes: dict[str, dict[str, VolumeSpec]] = field(default_factory=dict)
    seeds: dict[str, SeedSpec] = field(default_factory=dict)


@dataclass
class FakeHost:
    """One simulated machine. boots counts its starts: a connection made before the last one is dead."""

    name: str
    kinds: tuple[InstanceKind, ...] = (InstanceKind.VM, InstanceKind.CONTAINER)
    cpus: int = 16
    memory_mib: int = 65536
    disk_mib: int = 1_000_000
    alive: bool = True
    boots: int = 1
    number: int = 0  # of the host in its world
    prepared: bool = False
    management_bridge: str = "mgmt0"
    instances: dict[str, FakeInstance] = field(default_factory=dict)
    images: dict[str, ImageOnHost] = field(default_factory=dict)  # the hypervisor's own store
    stores: dict[str, FakeStore] = field(default_factory=dict)
    bridges: dict[str, Bridge] = field(default_factory=lambda: {"br0": Bridge("br0", (), (), True)})
    files: dict[str, bytes] = field(default_factory=dict)
    locks: dict[str, asyncio.Lock] = field(default_factory=dict)
    commands: dict[str, Command] = field(default_factory=dict)  # by argv[0]
    ran: list[tuple[str, ...]] = field(default_factory=list)  # argv of the last commands
    running: dict[int, Callable[[int], None]] = field(default_factory=dict)  # pid -> ends it with an exit code
    last_pid: int = 100

    def store(self, path: str) -> FakeStore:
        """Return the datastore at path; it comes into being when first looked at."""
        return self.stores.setdefault(path, FakeStore(self.disk_mib))

    def begin(self, end: Callable[[int], None]) -> int:
        """Note a command that goes on running; return its pid."""
        self.last_pid += 1
        self.running[self.last_pid] = end
        return self.last_pid

    def add_foreign(self, name: str, kind: InstanceKind = InstanceKind.CONTAINER) -> FakeInstance:
        """Put an instance there that somebody else made."""
        return self.instances.setdefault(name, FakeInstance(name, kind, None))

    def memory_used_mib(self) -> int:
        """Return what the running instances of ours hold."""
        running = (i for i in self.instances.values() if i.power is PowerState.RUNNING and i.spec)
        return 512 + sum(i.spec.memory_mib for i in running if i.spec)


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
    verb and ANY match as well.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self.faults: list[Fault] = []
        self.latencies_s: dict[tuple[str, str], float] = {}
        self.hung: dict[tuple[str, str], asyncio.Event] = {}
        self.deadline_s = 60.0  # after which a hung call fails, as the real drivers' deadlines have it
        self.calls: dict[str, int] = {}  # how often each verb was called, over all hosts
        self.strict = False  # True: a host that was not added is Unreachable; else it comes into being

    def reset(self) -> None:
        """Forget everything."""
        fresh = World()
        self.__dict__.update(fresh.__dict__)

    def add(self, host: FakeHost) -> FakeHost:
        """Put a host there, or replace it."""
        self.hosts[host.name] = host
        host.number = host.number or len(self.hosts)
        return host

    def host(self, name: str) -> FakeHost:
        """Return a host; a new one with the default size unless the world is strict."""
        if name not in self.hosts:
            if self.strict:
                raise Unreachable(f"host {name}: no such simulated host", f"host/{name}")
            self.add(FakeHost(name))
        return self.hosts[name]

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
        """Cut the host's power: connections die, instances stop, disks and definitions stay."""
        self.cut(host)
        target = self.host(host)
        for instance in target.instances.values():
            if instance.power is PowerState.RUNNING:
                instance.end()

    def cut(self, host: str) -> None:
        """Cut the host's network: connections die and what was held over them ends, instances go on."""
        target = self.host(host)
        target.alive = False
        for end in list(target.running.values()):
            end(255)

    def revive(self, host: str) -> None:
        """Bring a crashed or cut host back; connections have to be made anew."""
        target = self.host(host)
        target.alive, target.boots = True, target.boots + 1

    def kill(self, host: str, name: str, reason: str = "killed") -> None:
        """Crash one instance behind everybody's back."""
        self.host(host).instances[name].end(PowerState.CRASHED, reason)

    # what the fake drivers call

    @asynccontextmanager
    async def call(self, name: str, boots: int, verb: str) -> AsyncIterator[FakeHost]:
        """Go to a host for one verb: latency, hangs, faults and a lost connection happen here."""
        self.calls[verb] = self.calls.get(verb, 0) + 1
        await asyncio.sleep(self._match(self.latencies_s, name, verb) or 0.0)
        await self._hang(name, verb, boots)
        self._raise_fault(name, verb, after=False)
        yield self._alive(name, boots, verb)
        await asyncio.sleep(0)
        self._raise_fault(name, verb, after=True)

    def _alive(self, name: str, boots: int, verb: str) -> FakeHost:
        host = self.host(name)
        if not host.alive or (boots and boots != host.boots):
            raise Unreachable(f"host {name}: connection lost during {verb}", f"host/{name}")
        return host

    async def _hang(self, name: str, verb: str, boots: int) -> None:
        event = self._match(self.hung, name, verb)
        until = time.monotonic() + self.deadline_s
        while event is not None and not event.is_set():
            self._alive(name, boots, verb)
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
