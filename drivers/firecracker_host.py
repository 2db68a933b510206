"""A Firecracker host's drivers, put together over one SSH connection."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from core.settings import DriverSettings
from drivers.hosts import Host
from drivers.hypervisor.base import DiskAttachment
from drivers.hypervisor.firecracker import FirecrackerHypervisor
from drivers.network.bridge import BridgeNetwork
from drivers.storage.base import VolumeSpec
from drivers.storage.dir import DirStorage
from drivers.transport.base import Endpoint
from drivers.transport.ssh import connect as connect_transport


class RawStorage(DirStorage):
    """A folder whose disks are raw, whatever their images are: Firecracker reads nothing else."""

    async def ensure_volume(self, spec: VolumeSpec) -> DiskAttachment:
        """Make a disk, or grow one. Raise as DirStorage."""
        return await super().ensure_volume(replace(spec, format="raw"))


async def connect(endpoint: Endpoint, settings: DriverSettings) -> Host:
    """Connect to a host by SSH and build its drivers. Raise Unreachable, CredentialRejected."""
    transport = await connect_transport(endpoint, settings)
    return Host(
        name=endpoint.name, kind="firecracker", transport=transport,
        hypervisor=FirecrackerHypervisor(transport, settings), storage=cache(lambda path: RawStorage(transport, path)),
        network=BridgeNetwork(transport),
    )  # fmt: skip
