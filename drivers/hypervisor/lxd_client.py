"""LXD's own command line client, run on the host for what it sends from there: archives and images.

It waits for an operation by LXD's events, and for ever when that event does not come: LXD dies meanwhile, or (seen with
LXD 5.0.2) was asked within its first second.
"""

from __future__ import annotations

import asyncio

from core.errors import Unreachable
from drivers.hypervisor import lxd_scripts
from drivers.hypervisor.lxd_core import LxdCore
from drivers.transport.base import Result

_LOOK_S = 5.0
_STILL_LOOKS = 6  # at which nothing has moved, before it waits in vain
_STILL_BYTES = 2**16  # between two looks: its connection is kept alive


class LxdClient(LxdCore):
    """Part of LxdHypervisor."""

    async def run_client(self, words: list[str], timeout_s: float) -> Result:
        """Run it, whatever comes out. Raise Unreachable: LXD began anew meanwhile, or does nothing for it."""
        argv, pid = [self._client, *words], await self._pid()
        running = asyncio.ensure_future(self._transport.run(argv, sudo=True, check=False, timeout_s=timeout_s))
        still = 0
        before: int | None = None
        try:
            while not (await asyncio.wait({running}, timeout=_LOOK_S))[0]:
                if await self._pid() != pid:
                    raise Unreachable(f"LXD on {self._host} began anew meanwhile", f"host/{self._host}")
                now = await self._sent(argv)
                rests = now is not None and before is not None and now - before < _STILL_BYTES
                still, before = still + 1 if rests else 0, now
                if still == _STILL_LOOKS:
                    raise Unreachable(f"LXD on {self._host} does nothing for its client", f"host/{self._host}")
            return running.result()
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    async def _pid(self) -> int:
        return int((await self._api.get())["environment"]["server_pid"])

    async def _sent(self, argv: list[str]) -> int | None:
        """Return how many bytes a client has read to send them; None: it is not seen, or LXD works for somebody."""
        if await self._api.get("operations"):
            return None
        script = lxd_scripts.argv(lxd_scripts.COUNTERS, f"(^|/){' '.join(argv)}$")
        found = (await self._transport.run(script, sudo=True, check=False)).stdout.split()
        return int(found[0]) if found else None
