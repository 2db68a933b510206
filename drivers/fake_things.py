"""What a simulated world is made of: hosts, stores, volumes, instances. Plain memory, a few KiB per host."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.states import InstanceKind, PowerState
from drivers.hypervisor.base import DiskAttachment, ImageOnHost, InstanceSpec
from drivers.network.base import Bridge
from drivers.storage.base import SeedSpec, VolumeSpec
from drivers.transport.base import Result

Command = Callable[["FakeHost", Sequence[str], bytes], Result]
ON = (PowerState.RUNNING, PowerState.PAUSED)
POWERS = frozenset({
    "exec", "console_log", "suspend", "reboot", "save", "reconfigure", "resize_live", "snapshot", "snapshot_live",
    "migrate_live", "console", "display", "ticket", "backup", "backup_incremental", "adopt", "save_image",
})  # flags of Capabilities; "carry" is there as well for those who want it  # fmt: skip


class Surroundings(Protocol):
    """What a host has to know of its world. shared: paths of the stores that are common to all hosts."""

    shared: set[str]

    def common(self, path: str) -> FakeStore | None:
        """Return the store at path if it is one for all hosts."""
        ...

    def note_harm(self, what: str) -> None:
        """Write down what must never happen."""
        ...


@dataclass(frozen=True)
class Kept:
    """A volume's content and size as a snapshot keeps them."""

    content: str
    size_mib: int


@dataclass
class FakeVolume:
    """content: what the guest wrote last. used_by: "host/instance" of what has it open: more than one is harm."""

    name: str
    size_mib: int
    spec: VolumeSpec | None = None  # None: in a container's pool
    content: str = ""
    snapshots: dict[str, Kept] = field(default_factory=dict)
    checkpoints: dict[str, str] = field(default_factory=dict)  # name -> content then
    used_by: set[str] = field(default_factory=set)
    before: FakeVolume | None = None  # what `restore_volume` keeps
    restored_from: tuple[str, ...] = ()  # sha256 of the copies

    def keep(self, snapshot: str) -> bool:
        """Snapshot; False when there is one by that name."""
        if snapshot in self.snapshots:
            return False
        self.snapshots[snapshot] = Kept(self.content, self.size_mib)
        return True

    def revert(self, snapshot: str) -> None:
        """Go back to a snapshot that is there."""
        kept = self.snapshots[snapshot]
        self.content, self.size_mib = kept.content, kept.size_mib


@dataclass(frozen=True)
class FakeImage:
    """content: what a new volume of it holds."""

    format: str
    size_bytes: int
    content: str = ""


@dataclass
class FakeStore:
    """A datastore's folder, on one host or common to all. files: by full path."""

    total_mib: int
    used_mib: int = 0
    prepared: bool = False
    images: dict[str, FakeImage] = field(default_factory=dict)  # by sha256
    parts: dict[str, int] = field(default_factory=dict)  # chunks of interrupted copies
    volumes: dict[str, dict[str, FakeVolume]] = field(default_factory=dict)
    seeds: dict[str, SeedSpec] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)  # saved memory, scratch
    scratch: set[str] = field(default_factory=set)  # instance ids


@dataclass
class FakeSnapshot:
    """memory None: of the disks only."""

    created_at: str
    memory: str | None = None


@dataclass
class FakeInstance:
    """spec is None for one that is not ours, foreign then tells what it is. active: the spec that it runs with.

    memory: what the guest holds in its memory. load: share of its cores that it burns while running.
    """

    name: str
    kind: InstanceKind
    spec: InstanceSpec | None
    power: PowerState = PowerState.STOPPED
    reason: str = ""
    load: float = 0.1
    stubborn: bool = False  # does not listen to a polite stop
    started_at: float = 0.0  # time.monotonic()
    console: list[str] = field(default_factory=list)
    foreign: InstanceSpec | None = None
    problems: tuple[str, ...] = ()  # against its adoption
    bound: tuple[str, ...] = ()  # against its live migration
    active: InstanceSpec | None = None
    memory: str = ""
    boots: int = 0
    own: dict[str, FakeVolume] = field(default_factory=dict)  # disks that the hypervisor holds itself
    snapshots: dict[str, FakeSnapshot] = field(default_factory=dict)

    @property
    def is_on(self) -> bool:
        return self.power in ON

    @property
    def what(self) -> InstanceSpec | None:
        """What it runs with, or would run with."""
        return (self.active if self.is_on else None) or self.spec or self.foreign

    def cpu_used_s(self) -> float | None:
        """Return CPU seconds burnt since it was started, None while it is off."""
        if not self.is_on or self.spec is None:
            return None
        return (time.monotonic() - self.started_at) * self.spec.cpu * self.load


@dataclass
class FakeHost:
    """One simulated machine. boots counts its starts: a connection made before the last one is dead.

    powers: which optional powers its hypervisor has. listening: port or path -> what is said there (then an echo).
    """

    name: str
    kinds: tuple[InstanceKind, ...] = (InstanceKind.VM, InstanceKind.CONTAINER)
    cpus: int = 16
    memory_mib: int = 65536
    disk_mib: int = 1_000_000
    powers: frozenset[str] = POWERS
    grants: tuple[str, ...] = ("pinning", "numa", "hugepages", "pci")
    hardware: Mapping[str, Any] = field(default_factory=dict)  # cells, hugepages and pci of its facts
    powered: bool = True
    connected: bool = True
    bmc_answers: bool = True
    bmc_password: str = ""  # "" = any will do
    boots_from: str = "disk"
    serial: str = ""  # of the machine; "" = its name
    macs: tuple[str, ...] = ()
    led: bool = False  # blinks
    celsius: float = 31.0  # of its air intake
    bmc_log: list[str] = field(default_factory=list)  # the oldest first
    erased: int = 0  # how often its disks were wiped
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
    listening: dict[int | str, bytes] = field(default_factory=lambda: {22: b"SSH-2.0-simulated\r\n"})
    last_pid: int = 100
    around: Surroundings | None = None

    @property
    def alive(self) -> bool:
        return self.powered and self.connected

    # files and disks

    def store(self, path: str) -> FakeStore:
        """Return the datastore at path; it comes into being when first looked at."""
        common = self.around.common(path) if self.around else None
        if common is not None:
            self.stores[path] = common
        return self.stores.setdefault(path, FakeStore(self.disk_mib))

    def files_at(self, path: str) -> dict[str, bytes]:
        """Return the table of files that path would stand in: a datastore's, or the host's."""
        found = self._store_of(path)
        return self.files if found is None else found[1].files

    def _store_of(self, path: str) -> tuple[str, FakeStore] | None:
        for at in self.around.shared if self.around else ():
            self.store(at)
        return next(((at, store) for at, store in self.stores.items() if path.startswith(f"{at}/")), None)

    def volume_at(self, source: str) -> FakeVolume | None:
        """Return the volume whose file is source, as storage hands it out."""
        found = self._store_of(source)
        if found is None:
            return None
        _, instance_id, file = source.rsplit("/", 2)
        return found[1].volumes.get(instance_id, {}).get(file.rpartition(".")[0])

    def disk_is_there(self, instance: FakeInstance, disk: DiskAttachment) -> bool:
        """Say whether an instance could open its disk."""
        if disk.kind == "pool":
            return disk.name in instance.own
        found = self._store_of(disk.source)
        if disk.read_only:
            return found is not None and disk.source.rsplit("/", 2)[1] in found[1].seeds
        return self.volume_at(disk.source) is not None

    def disks(self, instance: FakeInstance, spec: InstanceSpec | None = None) -> Iterator[FakeVolume]:
        """Yield an instance's writable disks that are there."""
        spec = spec or instance.what
        for disk in spec.disks if spec else ():
            volume = instance.own.get(disk.name) if disk.kind == "pool" else self.volume_at(disk.source)
            if volume is not None and not disk.read_only:
                yield volume

    # power of instances

    def power_on(self, instance: FakeInstance, *, memory: str | None = None) -> None:
        """Let it run; memory: go on with it, None: boot."""
        instance.power, instance.reason, instance.active = PowerState.RUNNING, "", instance.spec or instance.foreign
        if memory is None:
            instance.boots += 1
            instance.console.append(f"{instance.name} booted")
        instance.memory, instance.started_at = memory or "", time.monotonic()
        self.open_disks(instance)

    def power_off(self, instance: FakeInstance, power: PowerState = PowerState.STOPPED, reason: str = "") -> None:
        """End it, by a stop or a crash: its memory is gone."""
        self.close_disks(instance)
        instance.power, instance.reason, instance.memory, instance.active = power, reason, "", None
        instance.console.append(f"{instance.name} {power}")

    def open_disks(self, instance: FakeInstance) -> None:
        """Note what it has open."""
        for volume in self.disks(instance):
            others = volume.used_by - {f"{self.name}/{instance.name}"}
            if others and self.around:
                self.around.note_harm(f"{self.name}/{instance.name} opened {volume.name}, open in {sorted(others)}")
            volume.used_by.add(f"{self.name}/{instance.name}")

    def close_disks(self, instance: FakeInstance) -> None:
        """Note that it has nothing open."""
        for volume in self.disks(instance):
            volume.used_by.discard(f"{self.name}/{instance.name}")

    # the rest

    def begin(self, end: Callable[[int], None]) -> int:
        """Note a command that goes on running; return its pid."""
        self.last_pid += 1
        self.running[self.last_pid] = end
        return self.last_pid

    def add_foreign(
        self, name: str, kind: InstanceKind = InstanceKind.CONTAINER, spec: InstanceSpec | None = None
    ) -> FakeInstance:
        """Put an instance there that somebody else made, off; spec: what it is (its id does not count)."""
        foreign = spec or InstanceSpec("", name, name, kind, 1, 64, (), ())
        return self.instances.setdefault(name, FakeInstance(name, kind, None, foreign=foreign))

    def memory_used_mib(self) -> int:
        """Return what the running instances of ours hold."""
        specs = [instance.active for instance in self.instances.values() if instance.is_on and instance.spec]
        return 512 + sum(spec.memory_mib for spec in specs if spec)
