"""One host's set of drivers, and how it is built.

`connect(kind, endpoint, settings)` is all that the tasks know of driver classes. registry.py is the table of kinds;
loaded lazily, so that a front-end without LXD hosts never imports pylxd.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from core.settings import DriverSettings
from drivers import registry
from drivers.hypervisor.base import Hypervisor
from drivers.network.base import Network
from drivers.storage.base import Storage
from drivers.transport.base import Endpoint, LocksItself, Transport


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
    # NUMA: cpus, siblings (threads of one core, where there are several), memory_mib, hugepages, hugepages_free
    cells: list[dict[str, Any]] = field(default_factory=list)
    hugepages: dict[str, int] = field(default_factory=dict)  # KiB of a page -> MiB in all, where they can be used
    hugepages_free: dict[str, int] = field(default_factory=dict)  # of these
    pci: list[dict[str, Any]] = field(default_factory=list)  # address, id (vendor:device), class, iommu_group, cell
    boot_id: str = ""  # another one after each boot; "" = not known


@dataclass
class Host:
    """One host's drivers, all over the same transport."""

    name: str
    kind: str
    transport: Transport
    hypervisor: Hypervisor
    storage: Callable[[str], Storage]  # datastore path on the host -> driver
    network: Network

    async def answer(self) -> None:
        """Wait for any answer of it, whatever is wrong with it otherwise. Raise Unreachable."""
        if isinstance(self.transport, LocksItself):  # it has no shell
            await self.hypervisor.capabilities()
        else:
            await self.transport.run(["true"], check=False)

    async def close(self) -> None:
        """Close the hypervisor's connection, then the transport."""
        await self.hypervisor.close()
        await self.transport.close()


async def connect(kind: str, endpoint: Endpoint, settings: DriverSettings) -> Host:
    """Connect to a host and build its drivers. Raise Unreachable, CredentialRejected, Invalid (kind), HostFault."""
    host: Host = await registry.load(kind).connect(endpoint, settings)
    return host
