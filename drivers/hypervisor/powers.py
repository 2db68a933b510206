"""What a hypervisor may be able to do besides: small protocols, each with its flag in Capabilities.

A driver has a protocol exactly when its flag is set (the contract suite holds it). Verbs are *ensure*, as in base.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, runtime_checkable

from core.states import InstanceKind, PowerState
from drivers.carrier import Carrier
from drivers.hypervisor.base import (
    DiskAttachment,
    ExecResult,
    Hypervisor,
    ImageOnHost,
    InstanceSpec,
    NicAttachment,
)
from drivers.transport.base import ByteStream, Progress


@runtime_checkable
class Executes(Protocol):
    async def exec(self, name: str, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: bytes = b"") -> ExecResult:
        """Run argv inside a container, or in a VM by its guest agent."""
        ...


@runtime_checkable
class ConsoleLogs(Protocol):
    async def console_log(self, name: str, *, max_bytes: int = 65536) -> str:
        """Return the last part of the console's log."""
        ...


@runtime_checkable
class Sweeps(Protocol):
    async def sweep(self) -> int:
        """Take away what a killed daemon left on the host and nobody else takes away; return of how many."""
        ...


@dataclass(frozen=True)
class HostEvent:
    """Something that the hypervisor itself tells of. kind: as it calls it; by: the user there; instance_id "": none."""

    at: datetime
    kind: str
    instance_id: str
    by: str
    text: str


@runtime_checkable
class TellsEvents(Protocol):
    async def events(self, after: str) -> tuple[list[HostEvent], str]:
        """Return what happened after a mark, oldest first, and the next mark; after "": nothing, and today's mark."""
        ...


@runtime_checkable
class KeepsImages(Protocol):
    """A hypervisor with an image store of its own (LXD): the datastore has put the file on the host, it imports it."""

    async def import_image(self, path: str, fingerprint: str, *, name: str) -> bool: ...
    async def images(self) -> list[ImageOnHost]: ...
    async def delete_image(self, fingerprint: str) -> bool: ...


@runtime_checkable
class Suspends(Protocol):
    async def suspend(self, name: str) -> bool:
        """Pause it in memory. Raise Conflict (absent, off)."""
        ...

    async def resume(self, name: str) -> bool:
        """Let it go on. Raise Conflict (absent, off)."""
        ...


@runtime_checkable
class Reboots(Protocol):
    async def reboot(self, name: str, *, hard: bool = False, grace_s: float = 30.0) -> bool:
        """Ask the guest and wait grace_s, else (or hard) reset it; it runs afterwards. Raise Conflict (absent, off)."""
        ...


@runtime_checkable
class SavesState(Protocol):
    """Memory to a file and back. The file counts only when it is whole; both verbs look before they act."""

    async def save(self, name: str, path: str) -> bool:
        """Write memory and devices to path on the host; it is off afterwards. Raise Conflict (off and no such file)."""
        ...

    async def restore(self, name: str, path: str) -> bool:
        """Let it run from a saved file; the file stays. Raise Conflict (no whole file there)."""
        ...

    async def has_state(self, path: str) -> bool:
        """Say whether there is a whole saved file."""
        ...


@runtime_checkable
class Reconfigures(Protocol):
    async def reconfigure(self, spec: InstanceSpec) -> bool:
        """Bring what runs to spec: cpu, memory, disks and NICs added or taken away, grown disks; `define` keeps it.

        Raise Unsupported, with what would have to be off, before anything is changed; Conflict (absent, off).
        """
        ...


@dataclass(frozen=True)
class SnapshotSeen:
    """A snapshot as the hypervisor has it. memory: it goes back to a running instance."""

    name: str
    memory: bool
    created_at: str = ""  # RFC 3339, "" where not known


@runtime_checkable
class Snapshots(Protocol):
    async def snapshots(self, name: str) -> list[SnapshotSeen]: ...
    async def snapshot(self, name: str, snapshot: str, *, memory: bool = False) -> bool:
        """Snapshot all disks; memory: and the memory of what runs. One of that name that is whole is left as it is."""
        ...

    async def revert(self, name: str, snapshot: str) -> bool:
        """Go back. With memory it runs afterwards, else it is as before: off stays off. Raise NotFound."""
        ...

    async def drop_snapshot(self, name: str, snapshot: str) -> bool:
        """Take a snapshot away; absent is fine."""
        ...


@dataclass(frozen=True)
class Move:
    """A live migration. spec: as defined on the target, whose volumes are there already (blank ones where copied).

    address: where the source reaches the target. copy_disks: names of the disks to copy, () = storage is shared.
    """

    spec: InstanceSpec
    address: str
    copy_disks: tuple[str, ...] = ()
    bandwidth_mib_s: int = 0  # 0: no limit


@runtime_checkable
class MigratesLive(Protocol):
    async def migrate(
        self, move: Move, target: Hypervisor, *, timeout_s: float, progress: Progress | None = None
    ) -> bool:
        """Move a running instance; it runs on the target, defined there, and the source's definition is gone.

        Observes both sides first: what runs on the target already is done. Cancelled or failed, it runs on the source.
        """
        ...

    async def preflight(self, name: str) -> list[str]:
        """Return the reasons why it could not be migrated live now, in words; [] = nothing is known against it."""
        ...


@runtime_checkable
class Consoles(Protocol):
    def console(self, name: str) -> AbstractAsyncContextManager[ByteStream]:
        """Open the serial console. Raise Conflict (it does not run)."""
        ...


@runtime_checkable
class Displays(Protocol):
    def display(self, name: str) -> AbstractAsyncContextManager[ByteStream]:
        """Open its screen: the bytes are VNC (RFB). Raise Conflict (it does not run)."""
        ...


@dataclass(frozen=True)
class ScreenTicket:
    """What opens a screen at the hypervisor itself, once and soon. fingerprint: of the certificate there, as it tells.

    protocol: which viewer it takes (webmks: VMware's); url: where that one connects to, the secret is in it.
    """

    protocol: str
    url: str
    fingerprint: str


@runtime_checkable
class Tickets(Protocol):
    async def ticket(self, name: str) -> ScreenTicket:
        """Return a new ticket for its screen. Raise Conflict (it does not run)."""
        ...


@dataclass(frozen=True)
class BackupFile:
    """One disk's content in a file on the host. since: the checkpoint it goes on from, "" = it is whole."""

    disk: str  # root, data1; "instance" = all of a container in one archive
    path: str
    format: str  # qcow2, tar
    since: str = ""


@runtime_checkable
class BacksUp(Protocol):
    async def backup(
        self, name: str, folder: str, *, checkpoint: str, since: str = "", disks: Sequence[str] = ()
    ) -> list[BackupFile]:
        """Write consistent copies of disks into folder on the host, whether it runs or not, and set a checkpoint.

        since: a checkpoint; what changed since is written where that can be, else all (as each file's `since` says).
        disks: only these; () = all writable ones. Run again after it was killed: anew.
        """
        ...

    async def drop_checkpoint(self, name: str, checkpoint: str) -> bool: ...


@dataclass(frozen=True)
class Found:
    """An instance that is not ours, as far as it can be adopted. problems: why it cannot, in words; () = it can."""

    name: str
    kind: InstanceKind
    power: PowerState
    cpu: float
    memory_mib: int
    disks: tuple[DiskAttachment, ...]
    nics: tuple[NicAttachment, ...]
    problems: tuple[str, ...] = ()


@runtime_checkable
class Adopts(Protocol):
    async def describe(self, name: str) -> Found:
        """Describe an instance of the host. Raise NotFound."""
        ...

    async def adopt(self, name: str, instance_id: str) -> bool:
        """Mark an instance as ours, running or not, without touching it; it keeps its name on the host."""
        ...

    async def disown(self, name: str) -> bool:
        """Take the mark away again; the instance stays as it is."""
        ...


@runtime_checkable
class Carries(Protocol):
    """A hypervisor that holds the disks itself."""

    def carrier(self) -> Carrier: ...

    async def delete_disk(self, name: str, disk: str) -> bool:
        """Delete a further disk that `reconfigure` or `define` has taken away; until then it keeps its content.

        Absent is fine. Raise Conflict while the instance has it.
        """
        ...


@runtime_checkable
class SavesImages(Protocol):
    """A hypervisor that makes images of its instances itself (LXD); elsewhere an image is a backed up disk."""

    async def save_image(self, name: str, path: str) -> bool:
        """Write an image of an instance, whether it runs or not, to a file on the host; one that is there is kept.

        It appears whole or not at all. Raise NotFound.
        """
        ...
