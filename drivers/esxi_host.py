"""The drivers of an ESXi host, or of a place in a vCenter, put together over one session with its API."""

from __future__ import annotations

from functools import cache

from core.settings import DriverSettings
from drivers.hosts import Host
from drivers.hypervisor.esxi import hypervisor_of
from drivers.network.portgroup import PortGroupNetwork
from drivers.storage.vmfs import VmfsStorage
from drivers.transport.base import Endpoint
from drivers.transport.vsphere import connect as connect_transport

OWN_TRANSPORT = True  # not reached by SSH


async def connect(endpoint: Endpoint, settings: DriverSettings) -> Host:
    """Log in and build the drivers. Raise Unreachable, CredentialRejected, Invalid (no password), NotFound (place)."""
    transport = await connect_transport(endpoint, settings)
    return Host(
        name=endpoint.name, kind="esxi", transport=transport, hypervisor=hypervisor_of(transport),
        storage=cache(lambda path: VmfsStorage(transport, path)), network=PortGroupNetwork(transport),
    )  # fmt: skip
