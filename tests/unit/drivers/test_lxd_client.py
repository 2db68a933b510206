"""LXD's client is waited for as long as it or LXD does something, and no longer."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from core.errors import Unreachable
from drivers.hypervisor import lxd_client
from drivers.hypervisor.lxd_api import LxdApi
from drivers.hypervisor.lxd_client import LxdClient
from drivers.transport.base import Result, Transport

MIB = 2**20


class World:
    """An LXD and its client on a host, at each look a step further."""

    def __init__(self, *, sent: list[int], working: int = 0, dies: bool = False) -> None:
        """Take what the client has read at each look (the last stays), and how many looks LXD works on something."""
        self.sent, self.working, self.dies = sent, working, dies
        self.done = asyncio.Event()
        self.endpoint = type("Endpoint", (), {"name": "h3"})
        self.looks = 0

    async def get(self, *path: str) -> dict[str, Any]:
        if not path:
            return {"environment": {"server_pid": 2 if self.dies and self.looks > 1 else 1}}
        self.looks += 1
        return {"running": ["/1.0/operations/1"]} if self.looks <= self.working else {}

    async def run(self, argv: list[str], **_: Any) -> Result:
        if argv[0] == "sh":
            at = min(self.looks, len(self.sent)) - 1
            if at == len(self.sent) - 1 and self.sent[-1] < 0:
                self.done.set()
                return Result(tuple(argv), 0, "", "")
            return Result(tuple(argv), 0, f"{self.sent[at]}\n" if self.sent[at] else "", "")
        await self.done.wait()
        return Result(tuple(argv), 0, "imported", "")


async def run(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(lxd_client, "_LOOK_S", 0.005)
    client = LxdClient(cast(Transport, world), cast(LxdApi, world), "/var/lib/lxd/unix.socket")
    async with asyncio.timeout(10):
        return (await client.run_client(["import", "--quiet", "/x.tar.gz", "rf-x"], 60)).stdout


async def test_what_moves_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sent=[n * MIB for n in range(1, 40)] + [-1])
    assert await run(world, monkeypatch) == "imported"


async def test_what_lxd_works_on_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sent=[MIB] * 40 + [-1], working=38)
    assert await run(world, monkeypatch) == "imported"


async def test_a_client_that_is_not_seen_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sent=[0] * 40 + [-1])
    assert await run(world, monkeypatch) == "imported"


async def test_one_that_waits_for_nothing_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is kept alive by a few bytes now and then."""
    world = World(sent=[MIB + 12 * n for n in range(100)])
    with pytest.raises(Unreachable, match="LXD on h3 does nothing for its client"):
        await run(world, monkeypatch)
    assert world.looks == lxd_client._STILL_LOOKS + 1


async def test_an_lxd_that_began_anew_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(sent=[n * MIB for n in range(1, 40)], dies=True)
    with pytest.raises(Unreachable, match="began anew"):
        await run(world, monkeypatch)
