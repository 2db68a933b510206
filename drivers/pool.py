"""Connections that stay open: one per host and kind in a process, shared by all that ask, made again when dead."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from core.errors import RackflowError
from core.settings import DriverSettings
from drivers.hosts import Host, connect
from drivers.transport.base import Endpoint, Transport
from drivers.transport.ssh import connect as connect_ssh

Key = tuple[str, Endpoint]


@dataclass(frozen=True)
class _Entry:
    """A host's drivers, or, with host None, only its transport."""

    transport: Transport
    host: Host | None = None

    async def close(self) -> None:
        with contextlib.suppress(RackflowError, OSError):
            await (self.host or self.transport).close()


class HostPool:
    """Drivers by host. A changed address or host key gets a new connection."""

    def __init__(self, settings: DriverSettings) -> None:
        self._settings = settings
        self._open: dict[Key, _Entry] = {}
        self._opening: dict[Key, asyncio.Task[_Entry]] = {}

    async def get(self, kind: str, endpoint: Endpoint) -> Host:
        """Return a host's drivers, connected. Raise Unreachable, CredentialRejected, Invalid (unknown kind)."""

        async def make() -> _Entry:
            host = await connect(kind, endpoint, self._settings)
            return _Entry(host.transport, host)

        host = (await self._entry((kind, endpoint), make)).host
        assert host is not None
        return host

    async def transport(self, endpoint: Endpoint) -> Transport:
        """Return a transport only, for a machine whose kind is not known yet."""
        for (_, known), entry in self._open.items():
            if known == endpoint and entry.transport.is_alive():
                return entry.transport

        async def make() -> _Entry:
            return _Entry(await connect_ssh(endpoint, self._settings))

        return (await self._entry(("", endpoint), make)).transport

    async def _entry(self, key: Key, make: Callable[[], Awaitable[_Entry]]) -> _Entry:
        entry = self._open.get(key)
        if entry is not None and entry.transport.is_alive():
            return entry
        # All who wait share one attempt and its failure, else each would sit out the time-out after the other.
        task = self._opening.get(key)
        if task is None:
            task = self._opening[key] = asyncio.ensure_future(self._make(key, make))
        return await asyncio.shield(task)

    async def _make(self, key: Key, make: Callable[[], Awaitable[_Entry]]) -> _Entry:
        try:
            await self._close(key[0], key[1].name)  # dead, or to an address or key of before
            self._open[key] = entry = await make()
            if key[0]:
                await self._close("", key[1].name)  # its transport does what that one did
            return entry
        finally:
            del self._opening[key]

    async def _close(self, kind: str, name: str) -> None:
        for key in [key for key in self._open if (key[0], key[1].name) == (kind, name)]:
            await self._open.pop(key).close()

    async def drop(self, name: str) -> None:
        """Close all connections to a host, by its name."""
        entries = [self._open.pop(key) for key in list(self._open) if key[1].name == name]
        await asyncio.gather(*(entry.close() for entry in entries))

    async def close(self) -> None:
        """Close everything."""
        for task in list(self._opening.values()):
            task.cancel()
        entries = list(self._open.values())
        self._open.clear()
        await asyncio.gather(*(entry.close() for entry in entries))
