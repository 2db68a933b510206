"""Ask a machine for its host key, before there is any trust."""

from __future__ import annotations

import asyncio

import asyncssh

from drivers.transport.base import Endpoint, Shown
from drivers.transport.errors import translate


def host_key(key: asyncssh.SSHKey) -> Shown:
    """Return a key in the form that is pinned: no comment."""
    public = " ".join(key.export_public_key().decode().split()[:2])
    return Shown(key.get_algorithm(), public, key.get_fingerprint())


async def scan_host_key(address: str, port: int = 22, timeout_s: float = 5) -> Shown:
    """Return the host key that answers at address. Raise Unreachable."""
    endpoint = Endpoint(name=address, address=address, port=port)
    try:
        async with asyncio.timeout(timeout_s):
            key = await asyncssh.get_server_host_key(address, port, config=None)
    except (asyncssh.Error, OSError) as error:
        raise translate(error, endpoint) from error
    if key is None:
        raise translate(OSError("it showed no host key"), endpoint)
    return host_key(key)
