"""One host's set of drivers, and how it is built.

`connect(kind, endpoint, settings)` is all that the tasks know of driver classes. registry.py is the table of kinds;
loaded lazily, so that a front-end without LXD hosts never imports pylxd.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from inspect import isfunction
from typing import Any

from core.errors import HostFault, RackflowError
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
    module = registry.load(kind)
    if kind in registry.OWN:
        host: Host = await module.connect(endpoint, settings)
        return host
    return await _brought(registry.drivers()[kind], module.connect, endpoint, settings)


async def _brought(
    driver: registry.Driver, make: Callable[..., Any], endpoint: Endpoint, settings: DriverSettings
) -> Host:
    """Connect by a package's driver, and see that it has what will be asked of it. Raise as it does, and HostFault."""
    subject, fix = f"host/{endpoint.name}", f"repair or reinstall {driver.package}"
    try:
        host: Host = await make(endpoint, settings)
        lacking = _lacking(host, settings.datastore_path)
    except RackflowError:
        raise
    except Exception as error:  # it is somebody else's code: it must not pass for a defect of ours
        message = f"driver {driver.name} of {driver.package} broke as it connected: {type(error).__name__}: {error}"
        raise HostFault(message, subject, fix=fix) from error
    if lacking:
        with suppress(Exception):
            await host.close()
        message = f"driver {driver.name} of {driver.package} lacks {', '.join(lacking)}"
        raise HostFault(message, subject, {"module": driver.module}, fix)
    return host


def _lacking(host: Any, datastore: str) -> list[str]:
    """Return the verbs that a host's drivers do not have; a verb taken over from the protocol itself does nothing."""
    if not isinstance(host, Host):
        return [f"a Host (connect returned {type(host).__name__})"]
    parts = {
        "transport": (Transport, host.transport), "hypervisor": (Hypervisor, host.hypervisor),
        "storage": (Storage, host.storage(datastore)), "network": (Network, host.network),
    }  # fmt: skip
    return [
        f"{family}.{verb}"
        for family, (contract, part) in parts.items() for verb in verbs_of(contract)
        if getattr(type(part), verb, None) in (None, getattr(contract, verb))
    ]  # fmt: skip


def verbs_of(protocol: type) -> tuple[str, ...]:
    """Return the verbs of a contract, in the order in which they stand there."""
    return tuple(name for name, what in vars(protocol).items() if isfunction(what) and name[0] != "_")
