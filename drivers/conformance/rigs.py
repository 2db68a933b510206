"""What a driver brings along to be tried: one rig per family."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Protocol

from core.states import InstanceKind
from drivers.hypervisor.base import DiskAttachment, Hypervisor, InstanceSpec
from drivers.hypervisor.powers import Move
from drivers.network.base import Network
from drivers.storage.base import ImageFile, Storage


class Tools(Protocol):
    """What a guest, QEMU and a backup do with disks and files on the host."""

    async def write(self, disk: DiskAttachment, text: str) -> None: ...
    async def read(self, disk: DiskAttachment) -> str: ...
    async def put(self, path: str, data: bytes) -> None: ...

    async def copies(self, *texts: str) -> list[bytes]:
        """Return qcow2 copies of a disk to which text after text was written: a whole one, then what changed each."""
        ...


@dataclass(frozen=True)
class Effort:
    """How much the state machine tries, and how long it waits before it tries a call again that did not come through.

    inside: guests answer within no time, so that they are asked, too.
    """

    examples: int = 15
    steps: int = 15
    inside: bool = False
    pause_s: float = 0.25


DELAYS_S = (0.0, 0.005, 0.02, 0.1, 0.3)  # after which a call is killed


def as_it_is(spec: InstanceSpec) -> InstanceSpec:
    return spec


def twice(spec: InstanceSpec) -> InstanceSpec:
    return replace(spec, cpu=spec.cpu * 2, memory_mib=spec.memory_mib * 2)


@dataclass
class HypervisorRig:
    """What a driver brings along. new: a spec that can be defined (images and disks are there), gone after the test.

    broken: turns a good spec into one whose image or disk is missing. take_name: makes an instance by that name that
    is not ours. ready: waits until exec works (on `other`, too). at_once: how many instances can be asked for together.

    What follows is for optional powers; one whose field is missing is not reached. folder: an empty one on the
    host. file_bytes: a file's size there, 0 if absent. with_disk, with_nic: the spec with one more, which is ready.
    larger: the spec with more cpu and memory; may_grow: one that can become so while it runs. move: a live migration,
    and its target. other: another host's hypervisor, where the same specs can be defined. console_talk: what is typed,
    and what is to come back, None where nobody answers.
    guests: False where a simulator boots none, so that only what the hypervisor itself says can be checked.
    hotplug: False where no guest runs that lets go of a device. moves: what can migrate while it runs.
    tools: what writes to and reads from disks of instances that are off; tools_see_snapshots: also of those that have
    snapshots. left_of: names of what the host still has of
    an instance that was deleted. disturb: lets the next call fail in a way that another try is to overcome.
    """

    hypervisor: Hypervisor
    new: Callable[[], Awaitable[InstanceSpec]]
    broken: Callable[[InstanceSpec], InstanceSpec]
    take_name: Callable[[str], Awaitable[None]] | None = None
    ready: Callable[[str], Awaitable[None]] | None = None
    at_once: int = 10
    delays_s: tuple[float, ...] = DELAYS_S
    folder: str = ""
    file_bytes: Callable[[str], Awaitable[int]] | None = None
    with_disk: Callable[[InstanceSpec], Awaitable[InstanceSpec]] | None = None
    with_nic: Callable[[InstanceSpec], Awaitable[InstanceSpec]] | None = None
    larger: Callable[[InstanceSpec], InstanceSpec] = twice
    may_grow: Callable[[InstanceSpec], InstanceSpec] = as_it_is
    move: Callable[[InstanceSpec], Awaitable[tuple[Move, Hypervisor]]] | None = None
    other: Hypervisor | None = None
    console_talk: tuple[bytes, bytes] | None = (b"\necho a$((1+1))b\n", b"a2b")
    reboot_grace_s: float = 20.0
    guests: bool = True
    hotplug: bool = True
    moves: tuple[InstanceKind, ...] = tuple(InstanceKind)
    tools: Tools | None = None
    tools_see_snapshots: bool = True
    left_of: Callable[[InstanceSpec], Awaitable[list[str]]] | None = None
    disturb: Callable[[], Awaitable[None]] | None = None
    effort: Effort = Effort()


@dataclass
class StorageRig:
    """storage: an empty datastore for this test alone, not yet prepared; image: a small, real qcow2 image.

    format: of the disks that it makes. overlays: they stand on their image, which must stay.
    """

    storage: Storage
    image: ImageFile
    tools: Tools
    format: str = "qcow2"
    overlays: bool = True
    disturb: Callable[[], Awaitable[None]] | None = None
    effort: Effort = Effort()


@dataclass
class NetworkRig:
    """there: a bridge that exists. free: a bridge name that does not, and is taken away after the test.

    management: the interface or bridge that carries the management address. cidr: "" where a bridge can have none.
    """

    network: Network
    there: str
    free: str
    management: str
    cidr: str = "10.99.0.1/24"
    disturb: Callable[[], Awaitable[None]] | None = None
    effort: Effort = Effort()

    @property
    def addresses(self) -> tuple[str, ...]:
        return (self.cidr,) if self.cidr else ()
