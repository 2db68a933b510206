"""One worker at a time on a host: a lock held on the host itself, over the worker's SSH connection.

The lock is `flock` on a file, held by a small remote process that lives as long as its stdin. A dead worker's
connection closes, so its lock goes. A successor finds the holder's pid in the file and ends it, but only when the
holder's claim has run out: that is what keeps a worker that hangs from changing the world behind its successor's back.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from core.errors import Busy, Unreachable
from drivers.transport.base import LocksItself, Session, Transport

LOCK_FILE = "/run/lock/rackflow.lock"
HELD = 75  # flock's exit code when somebody else holds the lock

# $1 worker, $2 file: the pid written is that of the shell that holds the lock through flock's open descriptor.
_HOLD = 'echo "$$ $1" > "$2.holder" && echo locked && exec cat > /dev/null'


@dataclass
class _Held:
    transport: Transport
    session: Session
    stack: AsyncExitStack


@dataclass
class HostLocks:
    """The locks of one worker, one per host and connection."""

    worker_id: str
    _held: dict[str, _Held] = field(default_factory=dict)
    _opening: defaultdict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def hold(self, host: str, transport: Transport, alive: Callable[[str], Awaitable[bool]]) -> None:
        """Hold the lock of a host; return at once if it is held over this connection. Raise Busy, Unreachable."""
        if self._stands(host, transport):
            return
        if isinstance(transport, LocksItself):
            await transport.lock(self.worker_id, alive)
            return
        async with self._opening[host]:
            if not self._stands(host, transport):
                await self.drop(host)
                self._held[host] = await self._take(host, transport, alive)

    def _stands(self, host: str, transport: Transport) -> bool:
        held = self._held.get(host)
        return held is not None and held.transport is transport and held.session.is_alive()

    async def _take(self, host: str, transport: Transport, alive: Callable[[str], Awaitable[bool]]) -> _Held:
        for final in (False, True):
            held = await self._try(transport)
            if held is not None:
                return held
            holder = (await transport.run(["cat", f"{LOCK_FILE}.holder"], check=False)).stdout.split()
            pid, worker = (holder[0], holder[1]) if len(holder) == 2 else ("", "")
            if final or (worker != self.worker_id and (not worker or await alive(worker))):
                break
            await transport.run(["kill", "-9", pid], sudo=True, check=False)
            await asyncio.sleep(0.2)
        raise Busy(
            f"host {host} is held by another rackflow worker ({worker or 'unknown'})",
            subject=f"host/{host}",
            evidence={"lock": LOCK_FILE, "pid": pid, "worker": worker},
            fix="stop the other rackflow, or wait until its claim has run out",
        )

    async def _try(self, transport: Transport) -> _Held | None:
        stack = AsyncExitStack()
        argv = ["flock", "--nonblock", "--conflict-exit-code", str(HELD), LOCK_FILE,
                "sh", "-c", _HOLD, "rackflow", self.worker_id, LOCK_FILE]  # fmt: skip
        session = await stack.enter_async_context(transport.session(argv, sudo=True))
        try:
            async with asyncio.timeout(10):
                async for line in session.lines():
                    if line.strip() == "locked":
                        return _Held(transport, session, stack)
                code = await session.wait()
        except TimeoutError as error:
            await stack.aclose()
            raise Unreachable("the host did not answer the request for its lock within 10 s") from error
        await stack.aclose()
        if code != HELD:
            raise Unreachable(f"taking the lock {LOCK_FILE} failed with exit code {code}")
        return None

    async def drop(self, host: str) -> None:
        """Give a host's lock back, if held."""
        held = self._held.pop(host, None)
        if held is not None:
            await held.stack.aclose()

    async def close(self) -> None:
        """Give all locks back."""
        for host in list(self._held):
            await self.drop(host)
