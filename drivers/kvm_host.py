"""A KVM host's drivers, put together over one connection."""

from __future__ import annotations

from functools import cache

from core.settings import DriverSettings
from drivers.hosts import Host
from drivers.hypervisor.kvm import KvmHypervisor
from drivers.network.bridge import BridgeNetwork
from drivers.storage.dir import DirStorage
from drivers.transport.base import Endpoint
from drivers.transport.ssh import connect as connect_transport


async def connect(endpoint: Endpoint, settings: DriverSettings) -> Host:
    """Connect to a host by SSH and build its drivers. Raise Unreachable, CredentialRejected."""
    transport = await connect_transport(endpoint, settings)
    return Host(
        name=endpoint.name, kind="kvm", transport=transport, hypervisor=KvmHypervisor(transport, settings),
        storage=cache(lambda path: DirStorage(transport, path)), network=BridgeNetwork(transport),
    )  # fmt: skip
