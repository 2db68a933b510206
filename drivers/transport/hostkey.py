"""Ask a machine for its host key, before there is any trust."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import asyncssh

from drivers.transport.base import Endpoint
from drivers.transport.errors import translate


@dataclass(frozen=True)
class HostKey:
    """public: "ssh-ed25519 AAAA…", to be pinned; fingerprint: "SHA256:…", to be shown."""

    algorithm: str
    public: str
    fingerprint: str


def host_key(key: asyncssh.SSHKey) -> HostKey:
    """Return a key in the form that is pinned: no comment."""
    public = " ".join(key.export_public_key().decode().split()[:2])
    return HostKey(key.get_algorithm(), public, key.get_fingerprint())


async def scan_host_key(address: str, port: int = 22, timeout_s: float = 5) -> HostKey:
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
