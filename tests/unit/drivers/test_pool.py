"""The pool of connections, over simulated hosts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from core.errors import Invalid, Unreachable
from core.settings import DriverSettings
from drivers.fake_world import FakeHost, world
from drivers.pool import HostPool
from drivers.transport.base import Endpoint

ENDPOINT = Endpoint("fake-1", "192.0.2.1")


@pytest.fixture
async def pool() -> AsyncIterator[HostPool]:
    world.reset()
    world.add(FakeHost("fake-1"))
    found = HostPool(DriverSettings())
    yield found
    await found.close()
    world.reset()


async def test_all_share_one_connection(pool: HostPool) -> None:
    found = await asyncio.gather(*(pool.get("fake", ENDPOINT) for _ in range(10)))
    assert len({id(host) for host in found}) == 1
    assert await pool.get("fake", ENDPOINT) is found[0]


async def test_all_share_one_failure_and_the_next_tries_again(pool: HostPool) -> None:
    world.fail("fake-1", "transport.connect", Unreachable("no answer"), times=1)
    found = await asyncio.gather(*(pool.get("fake", ENDPOINT) for _ in range(5)), return_exceptions=True)
    assert {type(one) for one in found} == {Unreachable}
    assert (await pool.get("fake", ENDPOINT)).transport.is_alive()


async def test_one_that_gives_up_takes_nothing_from_the_others(pool: HostPool) -> None:
    first, second = (asyncio.ensure_future(pool.get("fake", ENDPOINT)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).transport.is_alive()


async def test_a_dead_connection_is_made_again(pool: HostPool) -> None:
    before = await pool.get("fake", ENDPOINT)
    world.crash("fake-1")
    with pytest.raises(Unreachable):
        await pool.get("fake", ENDPOINT)
    world.revive("fake-1")
    after = await pool.get("fake", ENDPOINT)
    assert after is not before
    assert after.transport.is_alive()


async def test_a_changed_host_key_means_another_connection(pool: HostPool) -> None:
    before = await pool.get("fake", ENDPOINT)
    after = await pool.get("fake", replace(ENDPOINT, host_key="ssh-ed25519 AAAA"))
    assert after is not before
    assert not before.transport.is_alive()


async def test_dropped_and_closed(pool: HostPool) -> None:
    host = await pool.get("fake", ENDPOINT)
    await pool.drop("another")
    assert host.transport.is_alive()
    await pool.drop("fake-1")
    assert not host.transport.is_alive()
    again = await pool.get("fake", ENDPOINT)
    await pool.close()
    assert not again.transport.is_alive()


async def test_an_unknown_kind(pool: HostPool) -> None:
    with pytest.raises(Invalid, match="no driver 'abacus'"):
        await pool.get("abacus", ENDPOINT)
