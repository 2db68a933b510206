"""A serial console that a command on the host opens: it says "ready" or "taken", then passes bytes both ways."""

from __future__ import annotations

import asyncio

from core.errors import Busy, HostFault, Unreachable
from drivers.transport.base import ByteStream, Session

_READY = b"ready\n"
_TAKEN = b"taken\n"


class SessionStream(ByteStream):
    """A session's bytes, after what was read while it opened."""

    def __init__(self, session: Session, first: bytes) -> None:
        self._session = session
        self._first = first

    async def read(self, n: int = 65536) -> bytes:
        """Return what came; b"" when the console is closed."""
        if self._first:
            now, self._first = self._first[:n], self._first[n:]
            return now
        return await self._session.read(n)

    async def write(self, data: bytes) -> None:
        """Type."""
        await self._session.write(data)


async def opened(session: Session, name: str, subject: str, limit_s: float) -> SessionStream:
    """Return the console once it is open. Raise Busy (open elsewhere), HostFault, Unreachable (too late)."""
    try:
        async with asyncio.timeout(limit_s):
            return SessionStream(session, await _greeting(session, name, subject))
    except TimeoutError as error:
        raise Unreachable(
            f"the console of {name} did not open within {limit_s:g} s", subject, {},
            "see what the host is busy with",
        ) from error  # fmt: skip


async def _greeting(session: Session, name: str, subject: str) -> bytes:
    """Return what has come from it already."""
    seen = b""
    while not seen.startswith(_READY):
        more = await session.read()
        seen += more
        if seen.startswith(_TAKEN):
            raise Busy(f"the console of {name} is open elsewhere", subject, {}, "close it there first")
        if not more:
            raise HostFault(
                f"the console of {name} could not be opened", subject, {"exit_code": await session.wait()},
                "see whether it has just stopped",
            )  # fmt: skip
    return seen.removeprefix(_READY)
