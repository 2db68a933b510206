"""A real Inspector on nodes of fake hardware, with inventories posted as a ramdisk does: all states and errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from core.errors import Conflict, CredentialRejected, HostFault, Invalid, NotFound, Unreachable
from core.states import MachinePower
from drivers.baremetal.inspector import Inspector, Introspection
from drivers.baremetal.ironic import Ironic
from drivers.baremetal.ironic_node import IronicNode
from lab.baremetal.services import Services
from tests.services import SETTINGS, canned, endpoint, fake_node, post, post_until_taken

SMALL = {
    "description": "too small", "conditions": [{"field": "memory_mb", "op": "lt", "value": 1024}],
    "actions": [{"action": "fail", "message": "less than 1024 MB"}],
}  # fmt: skip
RACK = {
    "description": "rack", "conditions": [{"field": "memory_mb", "op": "ge", "value": 1}],
    "actions": [{"action": "set-attribute", "path": "/extra/rack", "value": "r{data[cpus]}"}],
}  # fmt: skip


@pytest.fixture
async def ironic(services: Services) -> AsyncIterator[Ironic]:
    found = Ironic(endpoint(services, "ironic"), SETTINGS)
    yield found
    await found.close()


@pytest.fixture
async def inspector(services: Services) -> AsyncIterator[Inspector]:
    found = Inspector(endpoint(services, "inspector"), SETTINGS)
    yield found
    await found.set_rules([])
    await found.close()


@pytest.fixture
def url(services: Services) -> str:
    return f"{services.url('inspector')}/v1/continue"


async def run(node: IronicNode, url: str, mac: str, **changes: str) -> None:
    """Inspect a node to its end. Raise as `inspect`."""
    await asyncio.gather(node.inspect(timeout_s=60), post_until_taken(url, canned(mac, **changes)))


async def test_what_it_finds(ironic: Ironic, inspector: Inspector, url: str) -> None:
    name, mac = await fake_node(ironic)
    node = IronicNode(ironic, name, inspector)
    with pytest.raises(NotFound):  # never introspected
        await inspector.status(name)
    found, _ = await asyncio.gather(node.inspect(timeout_s=60), post_until_taken(url, canned(mac)))
    assert (found.cpu.count, found.memory_mib, found.nics[0].mac) == (2, 512, mac)
    assert found.pci
    assert await node.power() is MachinePower.OFF
    assert (await inspector.status(name)).state == "finished"
    assert "cpus" in await inspector.data(name)
    assert "cpus" not in await inspector.data(name, processed=False)
    assert await inspector.abort(name) is False
    assert await post(url, canned(mac)) == 400  # nobody waits for it any more


async def test_the_rules_are_made_once_and_are_used(ironic: Ironic, inspector: Inspector, url: str) -> None:
    name, mac = await fake_node(ironic)
    node = IronicNode(ironic, name, inspector)
    assert await inspector.set_rules([SMALL, RACK])
    assert not await inspector.set_rules([SMALL, RACK])
    with pytest.raises(HostFault, match="less than 1024 MB"):
        await run(node, url, mac)
    assert await inspector.set_rules([RACK])
    assert [rule["description"] for rule in await inspector.rules()] == ["rack"]
    before = await inspector.status(name)
    after = await inspector.reprocess(name)
    assert (after.state, after.error) == ("finished", "")
    assert after.finished_at != before.finished_at
    extra = await ironic.call("reading", lambda client: client.get_node(name).extra)
    assert extra["rack"] == "r2"
    with pytest.raises(Invalid):
        await inspector.set_rules([{**RACK, "conditions": [{"field": "memory_mb", "op": "near", "value": 1}]}])


async def test_a_second_one_while_one_is_under_way(ironic: Ironic, inspector: Inspector) -> None:
    name, _ = await fake_node(ironic)
    await inspector.introspect(name)
    with pytest.raises(Conflict):
        await inspector.inspect(name)
    assert not (await inspector.status(name)).finished  # the first one was left alone
    with pytest.raises(NotFound):
        await inspector.data(name)
    assert await inspector.abort(name)


async def test_it_is_aborted_at_its_deadline_and_off(ironic: Ironic, inspector: Inspector, url: str) -> None:
    """Also when the ramdisk reported an error: the service goes on waiting then, until its own timeout."""
    name, mac = await fake_node(ironic)
    node = IronicNode(ironic, name, inspector)
    task = asyncio.ensure_future(node.inspect(timeout_s=6))
    for _ in range(20):
        if not task.done():
            await post(url, canned(mac, error="the disk is on fire"))
            await asyncio.sleep(0.25)
    with pytest.raises(HostFault, match="did not end within 6 s"):
        await task
    await ended(inspector, name)
    assert "ancel" in (await inspector.status(name)).error
    assert await node.power() is MachinePower.OFF


@pytest.mark.slow
async def test_it_is_aborted_when_it_is_cancelled(ironic: Ironic, inspector: Inspector) -> None:
    name, _ = await fake_node(ironic)
    task = asyncio.ensure_future(inspector.inspect(name))
    await asyncio.sleep(1.5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert "ancel" in (await ended(inspector, name)).error


async def ended(inspector: Inspector, name: str) -> Introspection:
    for _ in range(80):
        found = await inspector.status(name)
        if found.finished:
            return found
        await asyncio.sleep(0.25)
    raise AssertionError(f"{name} is still {found.state}")


async def test_two_at_once_are_told_apart(ironic: Ironic, inspector: Inspector, url: str) -> None:
    nodes = [await fake_node(ironic) for _ in range(2)]
    found = await asyncio.gather(
        *(inspector.inspect(name, timeout_s=60) for name, _ in nodes),
        *(post_until_taken(url, canned(mac)) for _, mac in nodes),
    )
    assert [one and one.nics[0].mac for one in found[:2]] == [mac for _, mac in nodes]


async def test_an_inventory_of_nobody(url: str) -> None:
    assert await post(url, canned("52:54:00:dd:dd:dd")) == 400


async def test_no_such_node_no_password_no_service(inspector: Inspector, services: Services) -> None:
    with pytest.raises(NotFound):
        await inspector.inspect("nobody")
    wrong = Inspector(endpoint(services, "inspector", password="guess"), SETTINGS)
    with pytest.raises(CredentialRejected):
        await wrong.inspect("x")
    nobody = Inspector(endpoint(services, "inspector", address="http://127.0.0.1:1"), SETTINGS)
    with pytest.raises(Unreachable):
        await nobody.inspect("x")
    await asyncio.gather(wrong.close(), nobody.close())


async def test_the_service_is_killed_in_the_middle(
    ironic: Ironic, inspector: Inspector, services: Services, url: str
) -> None:
    name, mac = await fake_node(ironic)
    await inspector.introspect(name)
    while (await inspector.status(name)).state != "waiting":
        await asyncio.sleep(0.25)
    services.kill("inspector")
    with pytest.raises(Unreachable):
        await inspector.status(name)
    await asyncio.to_thread(services.start, "inspector")
    assert (await inspector.status(name)).state == "waiting"
    await post_until_taken(url, canned(mac))
    assert (await ended(inspector, name)).error == ""
