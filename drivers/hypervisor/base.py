"""Contract of a hypervisor: what an instance on one host is, and the verbs that change it.

All changing verbs are *ensure*: they observe first, are safe to run twice and to be killed at any line, and return
whether they changed anything. Names on the host come from `core.ids.on_host`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from core.states import InstanceKind, PowerState


@dataclass(frozen=True)
class Capabilities:
    """What this driver can do on this host. A flag and its optional protocol must agree (a test holds it)."""

    driver: str  # kvm, lxd, fake, …
    kinds: tuple[InstanceKind, ...]
    version: str
    architecture: str
    domain_type: str = ""  # kvm or qemu, for VMs
    proven_on: str = ""  # on what it was seen to work, where that is not the thing itself
    kernels: tuple[str, ...] | None = None  # it boots these and no disk by itself; None: it boots disks
    # what it gives single instances for themselves: pinning (cores), numa (a cell), hugepages, pci
    grants: tuple[str, ...] = ()
    why_not: Mapping[str, str] = field(default_factory=dict)  # a power that is looked for -> why it is not there
    # What follows says whether an optional protocol of powers.py is there.
    exec: bool = False  # Executes
    console_log: bool = False  # ConsoleLogs
    suspend: bool = False  # Suspends
    reboot: bool = False  # Reboots
    save: bool = False  # SavesState
    reconfigure: bool = False  # Reconfigures: disks, NICs, cpu and memory of what runs
    resize_live: bool = False  # … of these, cpu and memory
    snapshot: bool = False  # Snapshots
    snapshot_live: bool = False  # … also of what runs, with its memory
    migrate_live: bool = False  # MigratesLive
    console: bool = False  # Consoles
    display: bool = False  # Displays
    ticket: bool = False  # Tickets
    backup: bool = False  # BacksUp
    backup_incremental: bool = False  # … also only what changed since a checkpoint
    adopt: bool = False  # Adopts
    carry: bool = False  # Carries: the hypervisor itself holds the disks (LXD's pools), so it moves them
    save_image: bool = False  # SavesImages


@dataclass(frozen=True)
class Capacity:
    """Of the whole host, not of what is free."""

    cpus: int
    memory_mib: int
    memory_used_mib: int = 0


@dataclass(frozen=True)
class DiskAttachment:
    """What storage hands to the hypervisor. kind: file | pool (LXD). read_only for the seed."""

    name: str  # root, data1, seed
    kind: str
    source: str  # path of the file, or pool name
    format: str = "qcow2"  # qcow2, raw
    size_mib: int = 0
    bus: str = "virtio"
    read_only: bool = False
    image_fingerprint: str = ""  # containers: the image on the host the root comes from


@dataclass(frozen=True)
class NicAttachment:
    """What the network driver hands to the hypervisor. address with prefix ("10.0.0.5/24") or empty (DHCP)."""

    name: str  # eth0 …
    mac: str
    bridge: str
    model: str = "virtio"
    address: str = ""
    gateway: str = ""
    nameservers: tuple[str, ...] = ()


@dataclass(frozen=True)
class InstanceSpec:
    """All that is needed to define an instance. name: as it stands on the host (core.ids.on_host)."""

    id: str
    name: str
    display_name: str
    kind: InstanceKind
    cpu: float  # cores; VMs round up
    memory_mib: int
    disks: tuple[DiskAttachment, ...]
    nics: tuple[NicAttachment, ...]
    user_data: str = ""
    ssh_keys: tuple[str, ...] = ()
    firmware: str = "bios"
    labels: tuple[tuple[str, str], ...] = ()
    options: tuple[tuple[str, str], ...] = ()  # driver-specific
    pinned: tuple[int, ...] = ()  # cores of the host that are its alone, as many as it has
    may_use: tuple[int, ...] = ()  # else the cores that it runs on; () = any
    cell: int | None = None  # of the host that all its memory is from
    page_kib: int = 0  # size of the pages that its memory is made of; 0 = usual ones
    pci: tuple[str, ...] = ()  # addresses of devices that are its alone, as 0000:01:00.0


@dataclass(frozen=True)
class ObservedInstance:
    """An instance as the host sees it. usage counters are totals since start, None where not known."""

    name: str
    power: PowerState
    kind: InstanceKind
    instance_id: str | None  # None: not one of ours
    cpus: float = 0
    memory_mib: int = 0
    cpu_seconds: float | None = None
    memory_used_mib: int | None = None
    disks: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True)
class ExecResult:
    exit_code: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class ImageOnHost:
    """An image as the hypervisor itself keeps it (LXD), by fingerprint (= our sha256)."""

    fingerprint: str
    size_bytes: int
    properties: dict[str, Any] = field(default_factory=dict)


class Hypervisor(Protocol):
    """One host's hypervisor. Errors: Unreachable, Busy, HostFault, Conflict, Unsupported."""

    async def prepare(self, *, bridges: Sequence[tuple[str, str]] = ()) -> list[str]:
        """Ensure that the hypervisor is initialised, with bridges (name, cidr or ""); return what was changed."""
        ...

    async def capabilities(self) -> Capabilities: ...
    async def capacity(self) -> Capacity: ...

    async def instances(self) -> list[ObservedInstance]:
        """Return all instances of the host, ours or not, with usage, in as few calls as the library allows."""
        ...

    async def observe(self, name: str) -> ObservedInstance:
        """Return one; power ABSENT if there is none."""
        ...

    async def define(self, spec: InstanceSpec) -> bool: ...
    async def start(self, name: str) -> bool: ...
    async def stop(self, name: str, *, grace_s: float = 30.0) -> bool:
        """Ask the guest, wait grace_s, then cut the power. grace_s=0 cuts at once. An absent one is Conflict."""
        ...

    async def undefine(self, name: str) -> bool:
        """Take the definition away (LXD: with the root disk). A running one is Conflict, an absent one is fine."""
        ...

    async def close(self) -> None: ...
