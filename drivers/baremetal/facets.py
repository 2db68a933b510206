"""What a BMC, or what stands in for it, may be able to do besides power: small protocols.

A driver has what its class has the verbs for (`facets`), so no flag can say otherwise; where its machine lacks it
after all, the verb raises Unsupported. Changing verbs are *ensure* and return whether they changed anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Protocol, runtime_checkable

from drivers.baremetal.base import BmcEndpoint
from drivers.baremetal.inventory import Disk, Inventory


class BootDevice(StrEnum):
    DISK = "disk"
    NETWORK = "network"
    CDROM = "cdrom"


@runtime_checkable
class BootsOnce(Protocol):
    async def boot_once(self, device: BootDevice) -> bool:
        """Let the next start, and only that, be from a device. Raise Unsupported."""
        ...


@runtime_checkable
class HoldsMedia(Protocol):
    async def media(self) -> str:
        """Return the address of the image that is inserted as a CD, "" for none."""
        ...

    async def insert_media(self, url: str) -> bool:
        """Insert an image as a CD; another one is taken out first."""
        ...

    async def eject_media(self) -> bool: ...


@runtime_checkable
class Inspects(Protocol):
    async def inspect(self, *, timeout_s: float = 1800.0) -> Inventory:
        """Look at what the machine is made of. Ended after timeout_s, or by cancellation, it leaves nothing running.

        Raise HostFault (it did not answer in time, or told of an error), Conflict (somebody inspects it already).
        """
        ...


@dataclass(frozen=True)
class Sensor:
    """value: in unit (celsius, rpm, percent, watts, volts). health: OK, Warning, Critical, or ""."""

    name: str
    value: float | None
    unit: str
    health: str = ""


@runtime_checkable
class HasSensors(Protocol):
    async def sensors(self) -> tuple[Sensor, ...]: ...


@dataclass(frozen=True)
class BmcEvent:
    """One line of the event log. severity: OK, Warning, Critical, or ""."""

    id: str
    at: datetime | None
    severity: str
    message: str


@runtime_checkable
class KeepsEvents(Protocol):
    async def events(self, *, limit: int = 100) -> tuple[BmcEvent, ...]:
        """Return the latest entries of the event log, the newest first."""
        ...


@runtime_checkable
class Identifies(Protocol):
    async def identify(self, on: bool) -> bool:
        """Let its LED blink, so that a person finds it, or no more."""
        ...


@runtime_checkable
class Erases(Protocol):
    async def erase(self, *, timeout_s: float = 86400.0) -> bool:
        """Wipe all disks so that nothing can be read from them any more; the machine is restarted for it.

        Raise HostFault (a disk could not be wiped, or not in time), Conflict (the machine is in use).
        """
        ...


@dataclass(frozen=True)
class Deployment:
    """image: http(s)://… of a whole disk, raw or qcow2. config_drive: an ISO 9660 image for its cloud-init."""

    image: str
    sha256: str
    disk: Disk
    config_drive: bytes = field(repr=False)


@runtime_checkable
class Deploys(Protocol):
    async def deploy(self, want: Deployment, *, timeout_s: float = 7200.0) -> bool:
        """Write a disk, whatever is on it, and start the machine from it. Ended early, the machine is off.

        Raise HostFault (it was not written, or not in time), Unsupported.
        """
        ...

    async def take_back(self, *, timeout_s: float = 600.0) -> bool:
        """Ensure that no deployment is under way, failed or done: the machine is off, and can be inspected again."""
        ...


@runtime_checkable
class Registers(Protocol):
    """What stands between us and BMCs, and must know a machine's own before it can reach the machine."""

    async def register(self, driver: str, behind: BmcEndpoint, macs: Sequence[str]) -> bool:
        """Ensure that it knows a machine. driver: redfish, ipmi, fake-hardware; macs: of the cards that boot.

        Raise HostFault (the BMC does not answer it), Conflict (another machine has one of the MACs).
        """
        ...


FACETS: Mapping[str, type] = {
    "boot-once": BootsOnce, "virtual-media": HoldsMedia, "inspect": Inspects, "sensors": HasSensors,
    "event-log": KeepsEvents, "identify": Identifies, "erase": Erases, "deploy": Deploys,
}  # fmt: skip


def facets(driver: object) -> frozenset[str]:
    """Return the names of what a driver can do besides power."""
    return frozenset(name for name, protocol in FACETS.items() if isinstance(driver, protocol))
