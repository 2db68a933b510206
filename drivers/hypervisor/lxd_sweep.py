"""LXD: what it leaves on its host when it is killed just as it starts a container."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from typing import Any

from drivers.hypervisor.lxd_api import LxdApi
from drivers.hypervisor.lxd_core import LxdCore
from drivers.hypervisor.powers import Sweeps
from drivers.transport.base import Transport

LEFT_FOR_S = 30.0  # younger, LXD may be about to give one end to a container
_NAME = re.compile(r"veth[0-9a-f]{8}")  # as LXD names both ends

Pair = frozenset[tuple[int, str]]  # of two ends, each with its index and name


class LxdSweeps(LxdCore, Sweeps):
    """Part of LxdHypervisor."""

    def __init__(self, transport: Transport, api: LxdApi, socket: str) -> None:
        super().__init__(transport, api, socket)
        self._strays: dict[Pair, float] = {}

    async def sweep(self) -> int:
        """Take away pairs of veths that no container got, once they were seen for LEFT_FOR_S; return how many."""
        said = await self._transport.run(["ip", "-j", "link", "show", "type", "veth"])
        at = time.monotonic()
        self._strays = {pair: self._strays.get(pair, at) for pair in strays(json.loads(said.stdout or "[]"))}
        old = [pair for pair, since in self._strays.items() if at - since >= LEFT_FOR_S]
        for pair in old:
            await self._transport.run(["ip", "link", "delete", min(pair)[1]], sudo=True, check=False)
        return len(old)


def strays(links: Sequence[dict[str, Any]]) -> set[Pair]:
    """Return LXD's pairs with both ends on the host, by `ip -j link`: an end in a container has no name here."""
    ends = {link["ifname"]: link for link in links if _NAME.fullmatch(link.get("ifname", ""))}
    return {
        frozenset({(link["ifindex"], name), (ends[link["link"]]["ifindex"], link["link"])})
        for name, link in ends.items() if link.get("link") in ends
    }  # fmt: skip
