"""One host's set of drivers, and the table: host kind -> how it is built.

`connect(kind, endpoint, settings)` is all that the tasks know of driver classes. Loaded lazily, so that a front-end
without LXD hosts never imports pylxd.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from core.settings import DriverSettings
from drivers.hypervisor.base import Hypervisor
from drivers.network.base import Network
from drivers.storage.base import Storage
from drivers.transport.base import Endpoint, Transport


@dataclass(frozen=True)
class HostFacts:
    """What one look over SSH says of a machine. kinds: drivers that could run here ("kvm", "lxd")."""

    hostname: str
    machine_id: str
    architecture: str
    os: str
    kernel: str
    cpus: int
    cpu_model: str
    memory_mib: int
    disks: list[dict[str, Any]]
    nics: list[dict[str, Any]]  # name, mac, addresses, state, speed_mbps, bridge
    management_nic: str  # the one that carries the address we came by
    virtualisation: dict[str, Any]  # flags vmx/svm, /dev/kvm, nested, …
    versions: dict[str, str]  # libvirt, qemu, lxd, openssh; "" = not installed
    kinds: list[str]
    missing: list[str] = field(default_factory=list)  # what would have to be done, in words


@dataclass
class Host:
    """One host's drivers, all over the same transport."""

    name: str
    kind: str
    transport: Transport
    hypervisor: Hypervisor
    storage: Callable[[str], Storage]  # datastore path on the host -> driver
    network: Network

    async def close(self) -> None:
        """Close the hypervisor's connection, then the transport."""
        await self.hypervisor.close()
        await self.transport.close()


Builder = Callable[[Endpoint, DriverSettings], Awaitable[Host]]
