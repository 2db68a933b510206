"""An LXD host's drivers, put together over one SSH connection."""

from __future__ import annotations

from functools import cache

from core.settings import DriverSettings
from drivers.hosts import Host
from drivers.hypervisor.lxd import connect as connect_lxd
from drivers.network.bridge import BridgeNetwork
from drivers.storage.dir import DirStorage
from drivers.transport.base import Endpoint
from drivers.transport.ssh import connect as connect_ssh


async def connect(endpoint: Endpoint, settings: DriverSettings) -> Host:
    """Build the drivers of an LXD host. Raise Unreachable (also: LXD does not run), CredentialRejected."""
    transport = await connect_ssh(endpoint, settings)
    try:
        hypervisor = await connect_lxd(transport, settings)
    except BaseException:
        await transport.close()
        raise
    return Host(
        name=endpoint.name, kind="lxd", transport=transport, hypervisor=hypervisor,
        storage=cache(lambda path: DirStorage(transport, path)), network=BridgeNetwork(transport),
    )  # fmt: skip
