"""A way to an API through SSH: a port of this machine's loopback that leads, by a server, to where the API answers."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from core.errors import CredentialRejected
from core.settings import DriverSettings
from drivers.transport.base import Endpoint, Way
from drivers.transport.hostkey import scan_host_key
from drivers.transport.ssh import SshTransport, connect

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Tunnel:
    """Open for as long as its SSH connection lives. port: of the loopback."""

    transport: SshTransport
    port: int

    def is_alive(self) -> bool:
        """Say whether a call could still go through."""
        return self.transport.is_alive()

    async def close(self) -> None:
        """Close the port and the connection."""
        await self.transport.close()


async def dig(name: str, way: Way, address: str, port: int, settings: DriverSettings) -> Tunnel:
    """Open a way to an address as the SSH server sees it.

    Raise CredentialRejected (another host key, the user), HostFault (it leads nowhere there), Unreachable.
    """
    shown = await scan_host_key(way.address, way.port, settings.connect_timeout_s)
    if shown.fingerprint != way.fingerprint:
        raise CredentialRejected(
            f"the SSH host key of {way.address} is {shown.fingerprint}, not {way.fingerprint}", f"host/{name}",
            {"seen": shown.fingerprint, "wanted": way.fingerprint}, "find out why it changed before you trust it",
        )  # fmt: skip
    there = Endpoint(name, way.address, way.port, way.user, way.key_file, shown.public)
    transport = await connect(there, settings)
    try:
        return Tunnel(transport, await transport.lead(address, port))
    except BaseException:
        await transport.close()
        raise


@asynccontextmanager
async def dug(name: str, way: Way, address: str, port: int, settings: DriverSettings) -> AsyncIterator[int]:
    """Hold a way open for a while; yield the port of the loopback. Raise as `dig`."""
    tunnel = await dig(name, way, address, port, settings)
    try:
        yield tunnel.port
    finally:
        await tunnel.close()
