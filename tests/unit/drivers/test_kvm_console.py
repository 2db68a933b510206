"""A console that does not open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from core.errors import Unreachable
from core.ids import new_id, on_host
from core.settings import DriverSettings
from drivers.hypervisor import kvm_console
from drivers.hypervisor.domain_seen import DomainSeen
from drivers.hypervisor.kvm import KvmHypervisor
from drivers.transport.base import Session
from tests.unit.drivers.scripted import Scripted


class Silent(Session):
    """A command that says nothing."""

    async def read(self, n: int = 65536) -> bytes:
        await asyncio.sleep(60)
        return b""


class Host(Scripted):
    """A transport all of whose sessions are silent."""

    def __init__(self) -> None:
        super().__init__(lambda _: (0, "", ""))
        self.ended = False

    @asynccontextmanager
    async def session(self, argv: Sequence[str], *, sudo: bool = False) -> AsyncIterator[Session]:
        try:
            yield Silent()
        finally:
            self.ended = True


async def test_a_console_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    transport, name = Host(), on_host(new_id())
    host = KvmHypervisor(transport, DriverSettings(domain_type="qemu"))

    async def running(*_: object) -> DomainSeen:
        return DomainSeen(name, "", "pc", 1, 1, 0, 0, 65536, 65536, (), (), "/dev/pts/7", 0, False, ())

    monkeypatch.setattr(host, "_running", running)
    monkeypatch.setattr(kvm_console, "_OPEN_S", 0.1)

    async def opened() -> None:
        async with host.console(name):
            pytest.fail("it is not open")

    with pytest.raises(Unreachable, match=r"the console of .* did not open"):
        await asyncio.wait_for(opened(), 5)
    assert transport.ended
